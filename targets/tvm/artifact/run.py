"""Running an artifact: in this process where this machine can, else its runner under an emulator."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ....errors import TargetError
from ....runtime import cpu
from ....storage.workspace import Workspace, record
from ..cpu import features, toolchain
from ..cpu.machine import Machine
from ..cpu.system import bare, runner_compiler
from . import folder as artifact
from . import manifest
from .manifest import Port

Array = npt.NDArray[Any]


class Library:
    """An artifact ready to run, in this process. Threads are its own; 0 takes one for each core."""

    emulated: ClassVar[bool] = False

    def __init__(self, path: str, *, threads: int = 0) -> None:
        self.threads = threads
        # The loader keeps the library open after its file has gone.
        with artifact.opened(path) as folder:
            document = manifest.read(folder, path)
            self.inputs, self.outputs = manifest.ports(document["inputs"]), manifest.ports(document["outputs"])
            _check_machine(path, document)
            try:
                self._library = ctypes.CDLL(os.path.join(os.path.abspath(folder), "model.so"))
            except OSError as error:
                said = str(error).replace(folder, path)
                raise TargetError(
                    f"{path} was built for {document['target']} and does not load here: {said}"
                ) from error
        self._library.optc_open.restype = ctypes.c_void_p
        self._library.optc_error.restype = ctypes.c_char_p
        self._model = ctypes.c_void_p(self._library.optc_open(threads))

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self._library.optc_close(self._model)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs for one set of inputs, in order. Raises `TargetError` where the inputs do not fit."""
        inputs = fitting(feeds, self.inputs)
        dims = [np.array(array.shape or (0,), np.int64) for array in inputs]
        sizes = [np.zeros(max(1, len(port.shape)), np.int64) for port in self.outputs]
        where = _pointers(dims)
        if self._library.optc_shapes(self._model, where, _pointers(sizes)):
            raise TargetError(self._error())
        outputs = [np.empty(tuple(s[: len(p.shape)]), p.dtype) for s, p in zip(sizes, self.outputs, strict=True)]
        if self._library.optc_run(self._model, _pointers(inputs), where, _pointers(outputs)):
            raise TargetError(self._error())
        return outputs

    def _error(self) -> str:
        said: bytes = self._library.optc_error()
        return f"the compiled model failed: {' '.join(said.decode(errors='replace').split())}"


class Emulated:
    """An artifact for another machine, run by its own runner under an emulator; `seconds` tells nothing of a device."""

    emulated: ClassVar[bool] = True

    def __init__(self, path: str, machine: Machine, *, threads: int = 0) -> None:
        self.threads = threads or 1
        self._command = require_emulator(machine)
        self._folder = Workspace()
        if os.path.isdir(path):
            document = manifest.read(path)
            self._sources = os.path.abspath(path)
        else:
            artifact.unpack(path, self._folder.name)
            document = manifest.read(self._folder.name, path)
            self._sources = self._folder.name
        self.inputs, self.outputs = manifest.ports(document["inputs"]), manifest.ports(document["outputs"])
        if document["machine"]["triple"] != machine.triple:
            raise TargetError(f"{path} was built for {document['target']}, not for {machine.name}")
        self._runner = os.path.join(self._folder.name, "runner")
        toolchain.run(
            [
                runner_compiler(machine),
                *("-std=c++17", "-O1", "-pthread", "runner.cc", os.path.join(self._sources, "model.so")),
                *("-Wl,--allow-shlib-undefined", "-o", self._runner),
            ],
            folder=self._sources,
            what="building the runner",
        )
        bare(machine, self._folder.name)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs for one set of inputs, in order. Raises `TargetError` where the runner fails."""
        with Workspace() as work:
            names = []
            for index, array in enumerate(fitting(feeds, self.inputs)):
                names.append(os.path.join(work, f"in{index}.npy"))
                np.save(names[-1], array)
            out, outputs = os.path.join(work, "out"), manifest.file_names(self.outputs)
            record(work, "out", outputs)
            command = [*self._command, self._runner, "--threads", str(self.threads), "--out", out, *names]
            environment = {**os.environ, "QEMU_SET_ENV": f"LD_LIBRARY_PATH={self._sources}:{self._folder.name}"}
            done = subprocess.run(
                command, cwd=self._sources, capture_output=True, text=True, env=environment, check=False
            )
            if done.returncode:
                said = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
                raise TargetError(f"the compiled model failed under {self._command[0]}: {said}")
            files = zip(outputs, self.outputs, strict=True)
            return [np.load(os.path.join(out, name)).view(port.dtype) for name, port in files]


def _check_machine(path: str, document: Mapping[str, Any]) -> None:
    """Raises `TargetError` where the artifact is of another kind of CPU, whose instructions would end the process."""
    triple, here = document["machine"]["triple"], platform.machine().lower()
    kind = triple.partition("-")[0]
    if {"amd64": "x86_64", "arm64": "aarch64"}.get(here, here) != kind:
        raise TargetError(f"{path} was built for {document['target']} ({triple}), and this is {here}")
    check_features(document["machine"]["features"], triple, f"{path} was built for a CPU with")


def check_features(wanted: Sequence[str], triple: str, what: str) -> None:
    """Raises `TargetError`, which begins with `what`, where this CPU lacks some of LLVM's features for the triple.

    A system that does not tell what its CPU has is taken at the user's word.
    """
    flags, named = cpu.flags(), features.names(triple)
    names = (name.removeprefix("+") for name in wanted if not name.startswith("-"))
    needed = [name for name in names if named.get(name) != features.UNLISTED]
    if flags and (absent := features.lacking(needed, triple, flags)):
        older = ", or with host:cpu=x86-64-v2" if cpu.is_x86() else ""
        raise TargetError(f"{what} {', '.join(absent)}, which this one lacks; build it here{older}")


def require_emulator(machine: Machine) -> tuple[str, ...]:
    """The command that runs the machine's programs here. Raises `TargetError` where it is missing."""
    command = toolchain.emulator(machine)
    if command is None:
        raise TargetError(
            f"{machine.name} code cannot run here without {machine.emulator[0]}; install the package "
            f"{machine.emulator_package}"
        )
    return command


def fitting(feeds: Mapping[str, Array], ports: tuple[Port, ...]) -> list[Array]:
    """The arrays of a model's inputs, in order. Raises `TargetError` for one that is missing or of another kind."""
    arrays = []
    for port in ports:
        if port.name not in feeds:
            raise TargetError(f"the input '{port.name}' is missing; the model takes {', '.join(p.name for p in ports)}")
        array = np.asarray(feeds[port.name], order="C")
        fixed = all(
            not isinstance(want, int) or want == size for want, size in zip(port.shape, array.shape, strict=False)
        )
        if array.dtype != np.dtype(port.dtype) or array.ndim != len(port.shape) or not fixed:
            wanted = f"{np.dtype(port.dtype).name}[{', '.join(map(str, port.shape))}]"
            raise TargetError(f"input '{port.name}' is {array.dtype.name}{list(array.shape)}; the model takes {wanted}")
        arrays.append(array)
    return arrays


def _pointers(arrays: list[Array]) -> Any:
    return (ctypes.c_void_p * max(1, len(arrays)))(*(array.ctypes.data for array in arrays))
