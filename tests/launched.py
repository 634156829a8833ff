"""Launches of GPU artifacts, carried out in this process on an OpenCL device, without linking a library."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from optc.errors import TargetError
from optc.ir.graph import Graph
from optc.ir.onnx.reader import from_proto
from optc.ir.shapes.infer import infer
from optc.ir.verify.verify import verify
from optc.passes.base import Context
from optc.passes.pipeline import Pipeline
from optc.passes.runner import run as run_passes
from optc.targets import table
from optc.targets.tvm.gpu.build import planned
from optc.targets.tvm.gpu.kernels import together
from optc.targets.tvm.gpu.target import GpuTarget

Array = npt.NDArray[Any]

_OPTIONS = b"-cl-std=CL1.2 -cl-mad-enable"
"""Those of the library that ships."""
_JUNK = 0xAB
_ALL, _READ_WRITE, _LOG = 0xFFFFFFFF, 1, 0x1183


class DriverError(Exception):
    """The driver took a program otherwise than it was meant: a fault of ours, as no message of ours names it."""


def answers(model: onnx.ModelProto | Graph, feeds: Sequence[Array], spec: str = "opencl") -> list[Array]:
    """What an artifact of the model answers, built as a build does it. Raises `OptcError` where it is refused."""
    target = table.one(spec)
    assert isinstance(target, GpuTarget)
    graph = model.clone() if isinstance(model, Graph) else from_proto(model)
    graph.sort()
    verify(graph)
    target.check_inputs(graph)
    run_passes(Pipeline((*Pipeline.parse("clean"), *target.legalisation())), graph, Context(target.facts))
    plan, inputs, outputs = planned(graph, target.machine(), spec, target.half)
    by_name = {value.name: feed for value, feed in zip(graph.inputs, feeds, strict=False)}
    device = Device.here()
    program = device.program(together(plan.source)) if plan.source else None
    memory = []
    for one in plan.buffers:
        data = bytes([_JUNK]) * one.bytes
        if one.kind == "weights":
            data = bytes(plan.weights[one.index : one.index + one.bytes]) or data
        elif one.kind == "input":
            data = np.ascontiguousarray(by_name[inputs[one.index].name]).tobytes() or data
        memory.append(device.buffer(data))
    for step in plan.steps:
        buffers = [memory[index] for index in step.buffers]
        if step.kernel:
            points = [groups * threads for groups, threads in zip(step.groups, step.threads, strict=True)]
            device.launch(program, step.kernel, buffers, points, step.threads)
        else:
            device.copy(buffers[0], buffers[1], min(plan.buffers[index].bytes for index in step.buffers))
    for required in plan.required:
        if not device.read(memory[required.buffer], 1)[0]:
            raise TargetError(required.what)
    results: dict[int, Array] = {}
    infer(graph)
    for one, buffer in zip(plan.buffers, memory, strict=True):
        if one.kind == "output":
            dtype = graph.outputs[one.index].value.dtype
            assert dtype is not None
            empty = np.empty(tuple(map(int, outputs[one.index].shape)), dtype.numpy)
            results[one.index] = np.frombuffer(device.read(buffer, empty.nbytes), dtype.numpy).reshape(empty.shape)
    device.finish(memory)
    return [results[index] for index in range(len(outputs))]


class Device:
    """The first OpenCL device, by the calls that the library makes."""

    def __init__(self) -> None:
        self.cl = ctypes.CDLL("libOpenCL.so.1")
        for name in ("Context", "CommandQueue", "Buffer", "ProgramWithSource", "Kernel"):
            getattr(self.cl, f"clCreate{name}").restype = ctypes.c_void_p
        platform, self.device = ctypes.c_void_p(), ctypes.c_void_p()
        self._do("clGetPlatformIDs", 1, ctypes.byref(platform), None)
        self._do("clGetDeviceIDs", platform, ctypes.c_uint64(_ALL), 1, ctypes.byref(self.device), None)
        self.context = self._make("clCreateContext", None, 1, ctypes.byref(self.device), None, None)
        self.queue = self._make("clCreateCommandQueue", self.context, self.device, ctypes.c_uint64(0))

    @staticmethod
    @functools.cache
    def here() -> Device:
        return Device()

    def program(self, text: str) -> Any:
        source = ctypes.c_char_p(text.encode())
        size = ctypes.c_size_t(len(text.encode()))
        program = self._make("clCreateProgramWithSource", self.context, 1, ctypes.byref(source), ctypes.byref(size))
        if self.cl.clBuildProgram(program, 1, ctypes.byref(self.device), _OPTIONS, None, None):
            log = ctypes.create_string_buffer(4096)
            self.cl.clGetProgramBuildInfo(program, self.device, _LOG, ctypes.c_size_t(4095), log, None)
            raise DriverError(log.value.decode(errors="replace"))
        return program

    def buffer(self, data: bytes) -> Any:
        buffer = self._make(
            "clCreateBuffer", self.context, ctypes.c_uint64(_READ_WRITE), ctypes.c_size_t(len(data)), None
        )
        self._do("clEnqueueWriteBuffer", self.queue, buffer, 1, _size(0), _size(len(data)), data, 0, None, None)
        return buffer

    def launch(
        self, program: Any, name: str, buffers: Sequence[Any], points: Sequence[int], threads: Sequence[int]
    ) -> None:
        kernel = self._make("clCreateKernel", program, name.encode())
        for index, one in enumerate(buffers):
            self._do("clSetKernelArg", kernel, index, _size(8), ctypes.byref(one))
        three = ctypes.c_size_t * 3
        self._do(
            *("clEnqueueNDRangeKernel", self.queue, kernel, 3, None, three(*points), three(*threads), 0, None, None)
        )

    def copy(self, source: Any, to: Any, count: int) -> None:
        self._do("clEnqueueCopyBuffer", self.queue, source, to, _size(0), _size(0), _size(count), 0, None, None)

    def read(self, buffer: Any, count: int) -> bytes:
        data = ctypes.create_string_buffer(max(1, count))
        if count:
            self._do("clEnqueueReadBuffer", self.queue, buffer, 1, _size(0), _size(count), data, 0, None, None)
        return data.raw[:count]

    def finish(self, buffers: Sequence[Any]) -> None:
        self._do("clFinish", self.queue)
        for one in buffers:
            self.cl.clReleaseMemObject(one)

    def _do(self, name: str, *arguments: Any) -> None:
        if code := getattr(self.cl, name)(*arguments):
            raise DriverError(f"{name}: {code}")

    def _make(self, name: str, *arguments: Any) -> Any:
        code = ctypes.c_int(0)
        handle = getattr(self.cl, name)(*arguments, ctypes.byref(code))
        if code.value:
            raise DriverError(f"{name}: {code.value}")
        return ctypes.c_void_p(handle)


_size = ctypes.c_size_t
