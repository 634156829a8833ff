"""Running an artifact on a device that a shell reaches: the library and a runner are pushed, run and timed there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ....errors import TargetError
from ....storage.workspace import Workspace
from ...tuning import Device
from ..artifact import folder as artifact
from ..artifact import manifest
from ..artifact.run import fitting
from ..cpu import toolchain
from ..cpu.machine import Machine
from .shell import Facts, Shell

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Runs:
    """Milliseconds of runs in their order, and the heat of the device before and after them."""

    milliseconds: tuple[float, ...]
    heat: tuple[float | None, float | None]

    @property
    def p50(self) -> float:
        return float(np.median(self.milliseconds))

    @property
    def p90(self) -> float:
        return float(np.quantile(self.milliseconds, 0.9))

    @property
    def drift(self) -> float:
        """How much longer a run takes at the end than at the beginning, of medians over a quarter of the runs: above 1
        where the device has throttled."""
        part = max(1, len(self.milliseconds) // 4)
        return float(np.median(self.milliseconds[-part:]) / np.median(self.milliseconds[:part]))


class Pushed:
    """An artifact on a device, ready to run. Each call of `run` starts the runner there."""

    emulated: ClassVar[bool] = False

    def __init__(self, path: str, device: Device, machine: Machine, *, threads: int = 0) -> None:
        """Raises `TargetError` where no runner can be built, or the device takes none."""
        self.threads = threads
        with artifact.opened(path) as folder, Workspace() as work:
            document = manifest.read(folder, path)
            self.inputs, self.outputs = manifest.ports(document["inputs"]), manifest.ports(document["outputs"])
            library = os.path.join(folder, "model.so")
            if not os.path.isfile(library):
                raise TargetError(f"{path} was built for {document['target']}, and holds no library to push")
            runner = _runner(machine, library, work)
            self.shell = Shell(device)
            self.shell.push([library, runner])
        try:
            self.shell.run(f"chmod 700 {self.shell.folder}/runner")
            self.facts: Facts = self.shell.facts()
        except TargetError:
            self.close()
            raise

    def close(self) -> None:
        """Remove everything from the device."""
        self.shell.close()

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs for one set of inputs, in order. Raises `TargetError` where they do not fit or it fails."""
        return self.measured(feeds, 1)[0]

    def timed(self, feeds: Mapping[str, Array], runs: int) -> tuple[list[Array], float]:
        """The outputs, and the seconds of the fastest of so many runs on the device."""
        outputs, times = self.measured(feeds, runs)
        return outputs, min(times.milliseconds) / 1e3

    def measured(self, feeds: Mapping[str, Array], runs: int) -> tuple[list[Array], Runs]:
        """The outputs, and how long each of so many runs took."""
        shell = self.shell
        with Workspace() as work:
            files = []
            for index, array in enumerate(fitting(feeds, self.inputs)):
                files.append(os.path.join(work, f"in{index}.npy"))
                np.save(files[-1], array)
            shell.push(files)
            names = " ".join(os.path.basename(file) for file in files)
            before = shell.heat() if runs > 1 else None
            shell.run(
                f"cd {shell.folder} && LD_LIBRARY_PATH=. ./runner --threads {self.threads} --repeat {runs} "
                f"--times times.txt --out out --force {names} 2>&1"
            )
            after = shell.heat() if runs > 1 else None
            outputs = []
            for name, port in zip(manifest.file_names(self.outputs), self.outputs, strict=True):
                shell.pull(f"out/{name}", os.path.join(work, name))
                outputs.append(self._output(os.path.join(work, name), port.dtype))
            shell.pull("times.txt", os.path.join(work, "times.txt"))
            with open(os.path.join(work, "times.txt"), encoding="ascii", errors="replace") as file:
                times = _times(file.read(), shell.device)
        return outputs, Runs(times, (before, after))

    def _output(self, path: str, dtype: str) -> Array:
        try:
            return np.asarray(np.load(path, allow_pickle=False)).view(dtype)
        except (ValueError, OSError, EOFError) as error:
            raise TargetError(f"{self.shell.device.name}: an answer is no .npy file: {error}") from error


def _times(text: str, device: Device) -> tuple[float, ...]:
    try:
        times = tuple(float(line) for line in text.split())
    except ValueError:
        times = ()
    if not times or not all(np.isfinite(times)) or min(times) < 0:
        raise TargetError(f"{device.name}: the runner gave no times")
    return tuple(max(time, 1e-6) for time in times)


def _runner(machine: Machine, library: str, work: str) -> str:
    """A program that runs the library, built in the folder `work`. Raises `TargetError` without the tools for it."""
    if machine.system == "bionic" and not machine.ndk:
        raise TargetError(
            "a program for Android, such as the runner, needs Android's development kit; set ANDROID_NDK_HOME to it"
        )
    # A library without a name of its own is asked for by the path that the linker is given.
    for path in (*(os.path.join(toolchain.SOURCES, name) for name in ("runner.cc", "model.h")), library):
        shutil.copy(path, work)
    static = ("-static-libstdc++", "-static-libgcc") if machine.system != "bionic" else ("-static-libstdc++",)
    flags = ("-std=c++17", "-O1", "-pthread", *machine.flags, *static)
    command = [toolchain.compiler(machine), *flags, "runner.cc", "model.so", "-Wl,--allow-shlib-undefined"]
    toolchain.run([*command, "-Wl,-rpath,.", "-o", "runner"], folder=work, what="building the runner")
    return os.path.join(work, "runner")
