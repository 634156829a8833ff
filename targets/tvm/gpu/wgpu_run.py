"""Running a WebGPU artifact in this process, through the package `wgpu` and whatever driver it finds."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ....errors import TargetError
from ..artifact import folder as artifact
from ..artifact import manifest
from ..artifact.run import fitting
from .build import WEIGHTS

Array = npt.NDArray[Any]

NEEDS = (
    "cannot run here: needs a browser with WebGPU, or the Python package wgpu with a Vulkan driver "
    "(pip install wgpu; Debian mesa-vulkan-drivers libvulkan1)"
)


@functools.cache
def adapter() -> Any | None:
    """The graphics adapter that `wgpu` finds, or none."""
    try:
        import wgpu

        return wgpu.gpu.request_adapter_sync()
    except (ImportError, OSError, RuntimeError):
        return None


class WebGpuProgram:
    """An artifact whose shaders are compiled and launched here; times are those of the driver that is found."""

    emulated: ClassVar[bool] = True

    def __init__(self, path: str, *, threads: int = 0) -> None:
        self.threads = threads or 1
        with artifact.opened(path) as folder:
            document = manifest.read(folder, path)
            self.inputs, self.outputs = manifest.ports(document["inputs"]), manifest.ports(document["outputs"])
            here = adapter()
            if here is None:
                raise TargetError(f"{path} {NEEDS}")
            half = document["gpu"]["storage"] == "float16"
            # The whole of what the adapter offers: a kernel may read more buffers than the least that is promised.
            limits = {name: here.limits[name] for name in here.limits if name.startswith("max-storage-buffer")}
            self._device = here.request_device_sync(
                required_features=["shader-f16"] if half else [], required_limits=limits
            )
            with open(os.path.join(folder, WEIGHTS), "rb") as file:
                weights = file.read()
            self._plan = document["gpu"]
            self._buffers = [self._buffer(one, weights) for one in self._plan["buffers"]]
            self._launches = [self._launch(one, folder) for one in self._plan["launches"]]

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs for one set of inputs, in order. Raises `TargetError` where the inputs do not fit."""
        queue = self._device.queue
        arrays = fitting(feeds, self.inputs)
        for one, buffer in zip(self._plan["buffers"], self._buffers, strict=True):
            if one["kind"] == "input":
                queue.write_buffer(buffer, 0, _padded(arrays[one["index"]].tobytes()))
        encoder = self._device.create_command_encoder()
        for launch, (pipeline, group) in zip(self._plan["launches"], self._launches, strict=True):
            if pipeline is None:
                source, to = (self._buffers[number] for number in launch["buffers"])
                encoder.copy_buffer_to_buffer(source, 0, to, 0, min(source.size, to.size))
                continue
            work = encoder.begin_compute_pass()
            work.set_pipeline(pipeline)
            work.set_bind_group(0, group)
            work.dispatch_workgroups(*launch["groups"])
            work.end()
        queue.submit([encoder.finish()])
        for required in self._plan.get("required", ()):
            if not bytes(queue.read_buffer(self._buffers[required["buffer"]]))[0]:
                raise TargetError(f"the compiled model failed: {required['what']}")
        outputs: list[Array] = [np.empty(0)] * len(self.outputs)
        for one, buffer in zip(self._plan["buffers"], self._buffers, strict=True):
            if one["kind"] == "output":
                port = self.outputs[one["index"]]
                shape = tuple(int(size) for size in port.shape)
                data = bytes(queue.read_buffer(buffer))[: int(np.prod(shape)) * np.dtype(port.dtype).itemsize]
                outputs[one["index"]] = np.frombuffer(data, port.dtype).reshape(shape)
        return outputs

    def _buffer(self, one: Mapping[str, Any], weights: bytes) -> Any:
        import wgpu

        usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_DST | wgpu.BufferUsage.COPY_SRC
        if one["kind"] == "weights":
            data = _padded(weights[one["index"] : one["index"] + one["bytes"]])
            return self._device.create_buffer_with_data(data=data, usage=usage)
        return self._device.create_buffer(size=-(-one["bytes"] // 4) * 4, usage=usage)

    def _launch(self, one: Mapping[str, Any], folder: str) -> tuple[Any, Any]:
        import wgpu

        if not one["kernel"]:
            return None, None
        with open(os.path.join(folder, f"{one['kernel']}.wgsl"), encoding="utf-8") as text:
            code = text.read()
        try:
            shader = self._device.create_shader_module(code=code)
            pipeline = self._device.create_compute_pipeline(
                layout="auto", compute={"module": shader, "entry_point": one["kernel"]}
            )
        except wgpu.GPUError as error:
            said = " ".join(str(error).split())[:300]
            raise TargetError(f"the shader '{one['kernel']}' does not compile: {said}") from error
        uniform = self._device.create_buffer_with_data(
            data=np.array([one["groups"][0]], np.uint32).tobytes(), usage=wgpu.BufferUsage.UNIFORM
        )
        bound = [*(self._buffers[number] for number in one["buffers"]), uniform]
        group = self._device.create_bind_group(
            layout=pipeline.get_bind_group_layout(0),
            entries=[{"binding": i, "resource": {"buffer": buffer}} for i, buffer in enumerate(bound)],
        )
        return pipeline, group


def _padded(data: bytes) -> bytes:
    """Whole words, as the language's buffers are."""
    return data + bytes(-len(data) % 4)
