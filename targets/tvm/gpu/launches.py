"""The plan of a model on a GPU: buffers, and what is launched on them in order.

Made from the plan of `plan`, whose buffers and calls are all of fixed size here. Weights, and tensors that pass between
two kernels, may be stored in fewer bits (see `storage`); what the caller gives and takes keeps its type.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx

from ....errors import TargetError
from ..artifact.plan import ALIGNMENT, Copy, Fill, KernelCall, PlannedTensor, Require, RunPlan
from ..legal.half import fits
from . import kernels
from .device import Gpu
from .storage import narrowed

_FEW = 512
"""Constants of fewer elements keep their type: nothing is saved by storing them in less."""
_LACKING = re.compile(r"\b[iuf](?:8|64)\b|\b[iu]16\b")
_HALF = re.compile(r"\bhalf\d*\b(?! ?\*)")
_F16 = re.compile(r"\bf16\b")
_DOUBLE = re.compile(r"\bdouble\d*\b")
_NAME = 80
_LETTERS = {"": "f", "float16": "h", "int8": "b"}


@dataclass(frozen=True, slots=True)
class Buffer:
    """Device memory. `kind` is input, output, scratch or weights; `index` counts inputs and outputs, and is where
    weights begin in their file."""

    kind: str
    bytes: int
    index: int = 0


@dataclass(frozen=True, slots=True)
class LaunchStep:
    """One launch of `kernel` on the buffers of these numbers; without a kernel, a copy from the first to the second."""

    kernel: str
    buffers: tuple[int, ...]
    groups: tuple[int, int, int] = (0, 0, 0)
    threads: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Required:
    """A run fails, saying `what`, where the first byte of the buffer of this number is zero when all is launched."""

    buffer: int
    what: str


@dataclass(slots=True)
class LaunchPlan:
    """Everything that a program needs to run the model: `source` holds the kernels' text by name."""

    buffers: list[Buffer] = field(default_factory=list)
    steps: list[LaunchStep] = field(default_factory=list)
    required: list[Required] = field(default_factory=list)
    weights: bytearray = field(default_factory=bytearray)
    source: dict[str, str] = field(default_factory=dict)
    stored: Counter[str] = field(default_factory=Counter)
    """Elements of weights by the type that they are stored in."""


def launch_plan(mod: tvm.IRModule, plan: RunPlan, gpu: Gpu, half: bool) -> LaunchPlan:
    """The launches of a scheduled module. Raises `TargetError` for sizes that are open."""
    if plan.dims:
        raise TargetError("a GPU plan needs fixed sizes; give them with --shape")
    scheduled = {var.name_hint: f for var, f in mod.functions_items() if isinstance(f, tirx.PrimFunc)}
    return _Maker(plan, scheduled, gpu, half).run()


class _Maker:
    def __init__(self, plan: RunPlan, scheduled: Mapping[str, tirx.PrimFunc], gpu: Gpu, half: bool) -> None:
        self.plan, self.gpu, self.half = plan, gpu, half
        self.launches = LaunchPlan()
        used = dict.fromkeys(step.kernel for step in plan.steps if isinstance(step, KernelCall))
        self.device, self.functions = kernels.lower({name: scheduled[name] for name in used}, gpu, half)
        self.written = {name: _written(scheduled[name]) for name in used}
        self._whole = self._kept_whole()
        self._copied = {
            s.source.space.index for s in plan.steps if isinstance(s, Copy) and s.source.space.kind == "weights"
        }
        self._narrow: set[int] = set()
        self._numbers: dict[Buffer | tuple[str, int], int] = {}
        self._sizes = self._slots()

    def run(self) -> LaunchPlan:
        for at, step in enumerate(self.plan.steps):
            if isinstance(step, KernelCall):
                self._call(at, step)
            elif isinstance(step, Copy):
                self.launches.steps.append(LaunchStep("", (self._buffer(step.source)[0], self._buffer(step.to)[0])))
            elif isinstance(step, Require):
                self.launches.required.append(Required(self._buffer(step.truth)[0], step.what))
            else:
                self._fill(step)
        # Inputs that nothing reads have a buffer all the same: programs count on one for each.
        for tensor in (*self.plan.inputs, *self.plan.outputs):
            self._buffer(tensor)
        return self.launches

    def _kept_whole(self) -> set[int]:
        """The steps whose result is copied to where the caller wants it, byte by byte."""
        last: dict[int, int] = {}
        whole: set[int] = set()
        for at, step in enumerate(self.plan.steps):
            if isinstance(step, Copy) and step.source.space.kind == "arena":
                whole.add(last.get(step.source.space.index, at))
            elif isinstance(step, KernelCall):
                for place in self.written[step.kernel]:
                    argument = step.arguments[place]
                    if isinstance(argument, PlannedTensor) and argument.space.kind == "arena":
                        last[argument.space.index] = at
        return whole

    def _slots(self) -> list[int]:
        sizes = [0] * len(self.plan.slots)
        for step in self.plan.steps:
            tensors = step.arguments if isinstance(step, KernelCall) else _places(step)
            for one in tensors:
                if isinstance(one, PlannedTensor) and one.space.kind == "arena":
                    sizes[one.space.index] = max(sizes[one.space.index], _bytes(one))
        return sizes

    def _call(self, at: int, step: KernelCall) -> None:
        arguments = [one for one in step.arguments if isinstance(one, PlannedTensor)]
        if len(arguments) != len(step.arguments):
            raise TargetError(f"kernel '{step.kernel}' takes a size, which a GPU plan has no word for")
        for place in self.written[step.kernel]:
            space = arguments[place].space
            if space.kind == "arena":
                narrow = self.half and at not in self._whole and arguments[place].dtype == "float32"
                (self._narrow.add if narrow else self._narrow.discard)(space.index)
        buffers: list[int] = []
        stored: dict[int, str] = {}
        for place, argument in enumerate(arguments):
            number, dtype = self._buffer(argument)
            buffers.append(number)
            if dtype != argument.dtype:
                stored[place] = dtype
        function = self.functions[step.kernel]
        buffers += [self._add(Buffer("scratch", size)) for size in function.scratch]
        for launch in function.launches:
            name = self._source(launch, stored)
            used = tuple(buffers[place] for place in launch.arguments)
            self.launches.steps.append(LaunchStep(name, used, launch.groups, launch.threads))

    def _source(self, launch: kernels.Launch, narrow: Mapping[int, str]) -> str:
        """The name of the kernel for arguments of these types; its text is written when it is first asked for."""
        places = {i: narrow[argument] for i, argument in enumerate(launch.arguments) if argument in narrow}
        # An operator's name alone may be that of a function of the language: max, erf.
        name = f"optc_{_short(launch.kernel.removesuffix('_kernel'))}"
        if places:
            name += "_" + "".join(_LETTERS[places.get(i, "")] for i in range(len(launch.arguments)))
        if name not in self.launches.source:
            function = self.device[launch.kernel]
            if places:
                function = narrowed(function, places, self.gpu.kind)
            text = kernels.source(name, function.with_attr("global_symbol", name), self.gpu)
            self._check(text)
            self.launches.source[name] = text
        return name

    def _check(self, text: str) -> None:
        """Raises `TargetError` for types that a kernel computes with and its language or the GPU lacks."""
        if self.gpu.kind == "webgpu" and (missing := _LACKING.search(text)):
            raise TargetError(f"it needs numbers of type {missing[0]}, which WebGPU lacks")
        if self.gpu.kind == "webgpu" and not self.half and _F16.search(text):
            raise TargetError("it works on halves, which devices need a feature for: webgpu:fp16=true asks for it")
        if self.gpu.kind == "opencl" and _HALF.search(text):
            raise TargetError("it computes with halves, which OpenCL has as memory alone")
        if self.gpu.kind == "opencl" and not self.gpu.doubles and _DOUBLE.search(text):
            raise TargetError("it computes with doubles, which such GPUs lack")

    def _fill(self, step: Fill) -> None:
        data = np.array([int(value) for value in step.values], np.int64).tobytes()
        self.launches.steps.append(LaunchStep("", (self._weights(data), self._buffer(step.to)[0])))

    def _buffer(self, tensor: PlannedTensor) -> tuple[int, str]:
        """The number of the buffer that holds a tensor, and the type that it is stored in."""
        space = tensor.space
        if space.kind in ("input", "output"):
            buffer = Buffer(space.kind, _bytes(tensor), space.index)
            return self._number((space.kind, space.index), buffer), tensor.dtype
        if space.kind == "arena":
            number = self._number(("arena", space.index), Buffer("scratch", self._sizes[space.index]))
            return number, "float16" if space.index in self._narrow else tensor.dtype
        data = bytes(self.plan.constants.stored[space.index : space.index + _bytes(tensor)])
        dtype = self._storage(tensor, data)
        key = ("weights", space.index)
        if key not in self._numbers:
            self.launches.stored[dtype] += tensor.elements
            if dtype != tensor.dtype:
                data = np.frombuffer(data, tensor.dtype).astype(dtype).tobytes()
            self._numbers[key] = self._weights(data)
        return self._numbers[key], dtype

    def _storage(self, tensor: PlannedTensor, data: bytes) -> str:
        """The type that a constant is stored in: int8 where nothing is lost by it, else half where asked for."""
        if tensor.dtype != "float32" or tensor.elements < _FEW or tensor.space.index in self._copied:
            return tensor.dtype
        values = np.frombuffer(data, np.float32)
        low, high = float(values.min()), float(values.max())
        if self.gpu.bytes and low >= -128 and high <= 127 and not (values % 1).any():
            return "int8"
        return "float16" if self.half and fits(values) else "float32"

    def _weights(self, data: bytes) -> int:
        self.launches.weights += bytes(-len(self.launches.weights) % ALIGNMENT)
        at = len(self.launches.weights)
        self.launches.weights += data or b"\0"
        return self._add(Buffer("weights", len(data), at))

    def _number(self, key: Any, buffer: Buffer) -> int:
        if key not in self._numbers:
            self._numbers[key] = self._add(buffer)
        return self._numbers[key]

    def _add(self, buffer: Buffer) -> int:
        self.launches.buffers.append(replace(buffer, bytes=max(1, buffer.bytes)))
        return len(self.launches.buffers) - 1


def _short(name: str) -> str:
    """A name that is no longer than drivers take: some write files of it."""
    if len(name) <= _NAME:
        return name
    return f"{name[:_NAME]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _places(step: Copy | Fill | Require) -> tuple[PlannedTensor, ...]:
    return (step.truth,) if isinstance(step, Require) else (step.to,)


def _bytes(tensor: PlannedTensor) -> int:
    return tensor.elements * np.dtype(tensor.dtype).itemsize


def _written(function: tirx.PrimFunc) -> tuple[int, ...]:
    """Positions of the parameters that a kernel writes."""
    stored: set[Any] = set()

    def note(one: Any) -> Any:
        stored.add(one.buffer)
        return one

    tvm_ffi.structural.structural_map(function.body, [(tirx.BufferStore, note)])
    return tuple(index for index, param in enumerate(function.params) if param in stored)
