"""Plans of library targets, carried out in this process: the kernels that an artifact holds, without linking one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from optc.errors import TargetError
from optc.ir.graph import Graph
from optc.ir.onnx.reader import from_proto
from optc.passes.base import Context
from optc.passes.clean.clean import Clean
from optc.targets.tvm.artifact.build import lowered
from optc.targets.tvm.artifact.plan import Copy, Fill, KernelCall, PlannedTensor, Require, RunPlan
from optc.targets.tvm.cpu.machine import Machine
from optc.targets.tvm.host import HostTarget
from optc.targets.tvm.schedule import pipeline


@dataclass(frozen=True, slots=True)
class Program:
    """A plan, and its kernels as functions."""

    plan: RunPlan
    kernels: Any


def build(model: onnx.ModelProto | Graph, machine: Machine) -> Program:
    """What an artifact of the model would hold, cleaned and legalised as a build does it. Raises `OptcError`."""
    import tvm
    from tvm import tirx
    from tvm.target import Target

    graph = model.clone() if isinstance(model, Graph) else from_proto(model)
    target = HostTarget()
    for one in (Clean(), *target.legalisation().passes):
        one.run(graph, Context(target.facts))
    mod, plan = lowered(graph, machine, {})
    kernels = {
        var.name_hint: function.with_attr("global_symbol", var.name_hint)
        for var, function in pipeline.schedule(mod, machine).functions_items()
        if isinstance(function, tirx.PrimFunc)
    }
    if not kernels:
        return Program(plan, None)
    target_text = Target({**machine.target(), "opt-level": 1})
    return Program(plan, tvm.tirx.build(tvm.IRModule(kernels), target=target_text))


def run(program: Program, feeds: Sequence[Any]) -> list[np.ndarray]:
    """The outputs for inputs in the order of the graph's. Raises `TargetError` where something required is not so."""
    return _Run(program, feeds).outputs()


class _Run:
    """Memory that is full of junk, as an artifact may find it."""

    def __init__(self, program: Program, feeds: Sequence[Any]) -> None:
        plan = self.plan = program.plan
        self.kernels = program.kernels
        self.sizes = {name: np.shape(feeds[index])[axis] for name, index, axis in plan.dims}
        stored = _room(len(plan.constants.stored))
        stored[: len(plan.constants.stored)] = np.frombuffer(bytes(plan.constants.stored), np.uint8)
        spread = _room(plan.constants.spread)
        for table in plan.constants.tables:
            codes = stored[table.codes : table.codes + table.count]
            words = stored[table.words : table.words + 4 * (int(codes.max()) + 1)].view(np.uint32)
            spread[table.at : table.at + 4 * table.count] = words[codes].view(np.uint8)
        inputs = [_room(np.asarray(feed).nbytes) for feed in feeds]
        for room, feed in zip(inputs, feeds, strict=True):
            data = np.asarray(feed).tobytes()
            room[: len(data)] = np.frombuffer(data, np.uint8)
        self.spaces = {
            "weights": [stored],
            "tables": [spread],
            "input": inputs,
            "output": [_room(self.size(tensor.size)) for tensor in plan.outputs],
            "arena": [_room(max(map(self.size, sizes))) for sizes in plan.slots],
        }

    def size(self, text: str) -> int:
        return evaluated(text, self.sizes)

    def view(self, tensor: PlannedTensor) -> np.ndarray:
        shape, dtype = tuple(map(self.size, tensor.shape)), dtype_of(tensor.dtype)
        rooms, index = self.spaces[tensor.space.kind], tensor.space.index
        raw = rooms[0][index:] if tensor.space.kind in ("weights", "tables") else rooms[index]
        return raw[: int(np.prod(shape, dtype=np.int64)) * dtype.itemsize].view(dtype).reshape(shape)

    def outputs(self) -> list[np.ndarray]:
        check_equal(self.plan, self.sizes)
        for step in self.plan.steps:
            if isinstance(step, Copy):
                self.view(step.to).reshape(-1)[:] = self.view(step.source).reshape(-1)
            elif isinstance(step, Fill):
                self.view(step.to)[...] = np.reshape([self.size(value) for value in step.values], step_shape(step))
            elif isinstance(step, Require):
                if not self.view(step.truth):
                    raise TargetError(step.what)
            else:
                self._call(step)
        return [self.view(tensor).copy() for tensor in self.plan.outputs]

    def _call(self, step: KernelCall) -> None:
        import tvm

        arguments = [self.size(one) if isinstance(one, str) else self.view(one) for one in step.arguments]
        tensors = {}
        for index, (one, array) in enumerate(zip(step.arguments, arguments, strict=True)):
            if isinstance(one, PlannedTensor):
                tensors[index] = tvm.runtime.empty(array.shape, one.dtype)
                if array.size:
                    tensors[index].copyfrom(np.asarray(array, order="C"))
        self.kernels[step.kernel](*[tensors.get(index, one) for index, one in enumerate(arguments)])
        for index, tensor in tensors.items():
            if arguments[index].size:
                arguments[index][...] = tensor.numpy().view(arguments[index].dtype).reshape(arguments[index].shape)


def evaluated(text: str, sizes: Mapping[str, int]) -> int:
    """A size of a plan, an expression in C++, where the dimensions that it names are so large."""
    names = {"floor_div": lambda a, b: a // b, "floor_mod": lambda a, b: a % b, "smallest": min, "largest": max}
    return int(eval(text, names, dict(sizes)))


def check_equal(plan: RunPlan, sizes: Mapping[str, int]) -> None:
    """Raises `TargetError` where sizes differ that must be the same."""
    for left, right, what in plan.equal:
        if evaluated(left, sizes) != evaluated(right, sizes):
            raise TargetError(what)


def step_shape(step: Fill) -> tuple[int, ...]:
    return tuple(int(size) for size in step.to.shape)


def _room(size: int) -> np.ndarray:
    raw = np.full(size + 128, 0xA5, np.uint8)
    return raw[-raw.ctypes.data % 64 :][: size + 64]


def dtype_of(name: str) -> np.dtype:
    """The element type of this name, one of numpy's or not."""
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else np.dtype(name)
