"""Plans of library targets, carried out under an emulator: kernels as an artifact holds them, many models by one
runner (`emulated.cc`), which is compiled once. Linking each model's library and starting an emulator for it would take
ten times as long."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from interpreted import check_equal, dtype_of, evaluated

from optc.errors import OptcError, TargetError
from optc.ir.graph import Graph
from optc.ir.onnx.reader import from_proto
from optc.passes.base import Context
from optc.passes.clean.clean import Clean
from optc.targets.tvm.artifact.build import lowered
from optc.targets.tvm.artifact.codegen import dlpack_code
from optc.targets.tvm.artifact.plan import Copy, Fill, KernelCall, PlannedTensor, RunPlan
from optc.targets.tvm.cpu import toolchain
from optc.targets.tvm.cpu.machine import Machine
from optc.targets.tvm.host import HostTarget
from optc.targets.tvm.schedule import pipeline

_SOURCE = Path(__file__).with_name("emulated.cc")


@dataclass(frozen=True, slots=True)
class Run:
    """What a model answered: its outputs, or why it has none; `refused` where a build says so."""

    outputs: Sequence[np.ndarray] = ()
    failure: str = ""
    refused: OptcError | None = None


class Emulator:
    """A runner for a machine, in `folder`."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine, self.folder = machine, folder
        self.runner = folder / "runner"
        flags = ["-std=c++17", "-O1", "-rdynamic", f"-I{toolchain.SOURCES}"]
        command = [machine.compiler, *flags, str(_SOURCE), "-o", str(self.runner), "-ldl", "-lm"]
        subprocess.run(command, check=True)
        words = [machine.compiler, "-print-libgcc-file-name"]
        self.builtins = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    def answers(self, models: Sequence[tuple[onnx.ModelProto | Graph, Sequence[Any]]]) -> Iterator[Run]:
        """What each model answers to its inputs."""
        built = [self._built(index, model, feeds) for index, (model, feeds) in enumerate(models)]
        lines = [self._line(index, one) for index, one in enumerate(built) if not isinstance(one, OptcError)]
        emulator = toolchain.emulator(self.machine) if self.machine.emulator else ()
        assert emulator is not None
        done = subprocess.run(
            [*emulator, str(self.runner)], input="".join(lines), capture_output=True, text=True, check=True
        )
        statuses = iter(done.stdout.split())
        for index, one in enumerate(built):
            yield Run(refused=one) if isinstance(one, OptcError) else self._read(index, one, int(next(statuses)))

    def _built(self, index: int, model: onnx.ModelProto | Graph, feeds: Sequence[Any]) -> _Script | OptcError:
        graph = model.clone() if isinstance(model, Graph) else from_proto(model)
        target = HostTarget()
        try:
            for one in (Clean(), *target.legalisation().passes):
                one.run(graph, Context(target.facts))
            mod, plan = lowered(graph, self.machine, {})
            script = _Script(plan, feeds)
            check_equal(plan, script.sizes)
        except OptcError as error:
            return error
        if any(isinstance(step, KernelCall) for step in plan.steps):
            folder = self.folder / "kernels"
            folder.mkdir(exist_ok=True)
            objects = pipeline.write_objects(mod, self.machine, str(folder)).files
            linker = self.machine.compiler.removesuffix("g++") + "ld"
            script.library = str(self.folder / f"{index}.so")
            subprocess.run([linker, "-shared", *objects, self.builtins, "-o", script.library], cwd=folder, check=True)
        (self.folder / f"{index}.script").write_bytes(script.written())
        return script

    def _line(self, index: int, script: _Script) -> str:
        out = self.folder / f"{index}.out"
        out.unlink(missing_ok=True)
        return f"{script.library or '-'} {self.folder}/{index}.script {out} {self.folder}/{index}.said\n"

    def _read(self, index: int, script: _Script, status: int) -> Run:
        if status:
            said = (self.folder / f"{index}.said").read_text(errors="replace").strip()
            number = said.removeprefix("required: ")
            if status == 7 and number.isdecimal():
                return Run(refused=TargetError(script.texts[int(number)]))
            return Run(failure=f"status {status}: {said}")
        data, at, outputs = (self.folder / f"{index}.out").read_bytes(), 0, []
        for tensor in script.plan.outputs:
            shape, dtype = tuple(map(script.size, tensor.shape)), dtype_of(tensor.dtype)
            count = int(np.prod(shape, dtype=np.int64))
            outputs.append(np.frombuffer(data, dtype, count, at).reshape(shape))
            at += count * dtype.itemsize
        for name in (f"{index}.out", f"{index}.script", f"{index}.so"):
            (self.folder / name).unlink(missing_ok=True)
        return Run(outputs)


class _Script:
    """A plan as the runner reads it."""

    def __init__(self, plan: RunPlan, feeds: Sequence[Any]) -> None:
        self.plan, self.feeds, self.library = plan, [np.asarray(one) for one in feeds], ""
        self.sizes = {name: self.feeds[index].shape[axis] for name, index, axis in plan.dims}
        self.texts: list[str] = []
        self.parts: list[bytes] = []
        self.first: dict[str, int] = {}

    def size(self, text: str) -> int:
        return evaluated(text, self.sizes)

    def written(self) -> bytes:
        plan = self.plan
        stored = np.frombuffer(bytes(plan.constants.stored), np.uint8)
        spread = np.zeros(plan.constants.spread, np.uint8)
        for table in plan.constants.tables:
            codes = stored[table.codes : table.codes + table.count]
            words = np.frombuffer(stored[table.words : table.words + 4 * (int(codes.max()) + 1)].tobytes(), np.uint32)
            spread[table.at : table.at + 4 * table.count] = words[codes].view(np.uint8)
        rooms: dict[str, list[tuple[int, bytes]]] = {
            "weights": [(stored.size, stored.tobytes())],
            "tables": [(spread.size, spread.tobytes())],
            "input": [(one.nbytes, one.tobytes()) for one in self.feeds],
            "output": [(self.size(tensor.size), b"") for tensor in plan.outputs],
            "arena": [(max(map(self.size, sizes)), b"") for sizes in plan.slots],
        }
        self._numbers(sum(map(len, rooms.values())))
        count = 0
        for kind, each in rooms.items():
            self.first[kind] = count
            count += len(each)
            for size, data in each:
                self._numbers(size)
                self._text(data)
        self._numbers(len(plan.steps))
        for step in plan.steps:
            self._step(step)
        self._numbers(len(plan.outputs))
        for index, tensor in enumerate(plan.outputs):
            self._numbers(self.first["output"] + index, self.size(tensor.size))
        return b"".join(self.parts)

    def _step(self, step: Any) -> None:
        if isinstance(step, Copy):
            name, arguments = "copy", (step.source, step.to)
        elif isinstance(step, Fill):
            name, arguments = "fill", (step.to, *step.values)
        elif isinstance(step, KernelCall):
            name, arguments = step.kernel, step.arguments
        else:
            name, arguments = "require", (step.truth, str(len(self.texts)))
            self.texts.append(step.what)
        self._text(name.encode())
        self._numbers(len(arguments))
        for one in arguments:
            if isinstance(one, PlannedTensor):
                self._tensor(one)
            else:
                self._numbers(-1, self.size(one))
        if name == "copy":
            self._numbers(self.size(step.to.size))

    def _tensor(self, tensor: PlannedTensor) -> None:
        kind, index = tensor.space.kind, tensor.space.index
        within = kind in ("weights", "tables")
        room, offset = (self.first[kind], index) if within else (self.first[kind] + index, 0)
        dtype = dtype_of(tensor.dtype)
        sizes = list(map(self.size, tensor.shape))
        self._numbers(len(sizes), *sizes, room, offset, dlpack_code(dtype), 8 * dtype.itemsize)

    def _numbers(self, *numbers: int) -> None:
        self.parts.append(struct.pack(f"<{len(numbers)}q", *numbers))

    def _text(self, data: bytes) -> None:
        self._numbers(len(data))
        self.parts.append(data)
