"""What the GPU targets have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....errors import TargetError
from ....ir.types import DType
from ....passes.base import TargetFacts
from ....passes.pipeline import Pipeline
from ....passes.spec import text_of
from ...base import Artifact
from ..target import LibraryTarget

if TYPE_CHECKING:
    from ....ir.graph import Graph
    from .device import Gpu


@dataclass(frozen=True, slots=True)
class GpuTarget(LibraryTarget):
    """Emits kernels as source with a plan of launches. Channels stand in fours, and quantized layers run as floats."""

    @abstractmethod
    def machine(self) -> Gpu: ...

    @property
    def half(self) -> bool:
        """Whether numbers are stored in half precision."""
        return False

    @property
    def error(self) -> float:
        from ....runtime.perturbed import HALF

        return HALF if self.half else 0.0

    @property
    def facts(self) -> TargetFacts:
        return TargetFacts(
            name=text_of(self.name, self),
            channel_alignment=4,
            activation_dtype=DType.INT8,
            weight_dtype=DType.INT8,
            integer_qdq=False,
            saturating_int8=False,
            sparse_initializers=False,
            max_opset=20,
            measurable=False,
        )

    def check_ready(self, *, run: bool) -> None:
        from ..cpu import toolchain
        from ..loading import find

        find()
        if self.machine().compiler:
            toolchain.compiler(self.machine())

    def check_inputs(self, graph: Graph) -> None:
        LibraryTarget.check_inputs(self, graph)
        for value in graph.inputs:
            shape = value.shape
            if shape is None or not all(isinstance(size, int) for size in shape):
                shown = "of unknown rank" if shape is None else f"[{', '.join(str(size or '?') for size in shape)}]"
                sizes = "x".join(str(size) if isinstance(size, int) else "1" for size in shape or (1, 3, 224, 224))
                raise TargetError(
                    f"input '{value.name}' is {shown}, and {self.name} needs fixed sizes: "
                    f"give them with --shape {value.name}={sizes}"
                )

    def legalisation(self) -> Pipeline:
        from ..legal.computed_weights import ComputedWeights
        from ..legal.legal import FloatWeights, Spread
        from ..legal.primitive import Primitive
        from ..legal.widen import Widen
        from .legal import ScaleBehind

        return Pipeline((Primitive(), Widen(), Spread(), ComputedWeights(), ScaleBehind(), FloatWeights()))

    def emit(self, graph: Graph, path: str) -> Artifact:
        from .build import build

        self.check_inputs(graph)
        machine, text = self.machine(), text_of(self.name, self)
        return self.packed(path, lambda folder: build(graph, machine, text, folder, half=self.half))
