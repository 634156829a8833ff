"""The targets `metal` and `webgpu`: shaders and the plan of launches, for a program written around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ....errors import TargetError
from ....ir.types import DType
from ....passes.base import option
from .target import GpuTarget

if TYPE_CHECKING:
    from ....ir.graph import Graph
    from ....runtime.session import Runnable
    from .device import Gpu

_WORDS = (DType.FLOAT, DType.INT32, DType.UINT32)
"""What the shading language of WebGPU has as elements of buffers everywhere."""


@dataclass(frozen=True, slots=True)
class ShaderTarget(GpuTarget):
    """Emits source alone."""

    fp16: bool = option(False, "whether numbers are stored in half precision")

    @property
    def half(self) -> bool:
        return self.fp16

    def machine(self) -> Gpu:
        from .device import DEVICES

        return DEVICES[self.name]

    def open(self, path: str, *, threads: int = 0) -> Runnable:
        raise TargetError(f"{path} {self.cannot_run}")


@dataclass(frozen=True, slots=True)
class MetalTarget(ShaderTarget):
    """Metal shading language, for the GPUs of Apple."""

    name: ClassVar[str] = "metal"
    suffix: ClassVar[str] = ".metal"
    help: ClassVar[str] = "Metal shaders, weights and the plan of launches, as source, by TVM"

    @property
    def cannot_run(self) -> str:
        return "cannot run here: needs a program for macOS or iOS that launches its shaders"


@dataclass(frozen=True, slots=True)
class WebGpuTarget(ShaderTarget):
    """WebGPU shading language, for browsers; run here where the package `wgpu` finds a driver."""

    name: ClassVar[str] = "webgpu"
    suffix: ClassVar[str] = ".webgpu"
    help: ClassVar[str] = "WebGPU shaders, weights and the plan of launches, as source, by TVM"

    @property
    def cannot_run(self) -> str:
        from .wgpu_run import NEEDS, adapter

        return NEEDS if adapter() is None else ""

    def check_inputs(self, graph: Graph) -> None:
        super(WebGpuTarget, self).check_inputs(graph)  # the short form needs the class as it was before its slots
        for value in graph.inputs:
            if value.dtype is not None and value.dtype not in _WORDS:
                raise TargetError(
                    f"input '{value.name}' is {value.dtype.numpy.name}, which WebGPU has no numbers of; "
                    "let the model take float32 or int32"
                )

    def open(self, path: str, *, threads: int = 0) -> Runnable:
        from .wgpu_run import WebGpuProgram

        return WebGpuProgram(path, threads=threads)
