"""The pass `prune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..base import Context, Pass, Report, option

if TYPE_CHECKING:
    from ...ir.graph import Graph


@dataclass(frozen=True, slots=True)
class Prune(Pass):
    """Drop weights, and let the ones that stay make up for it.

    Every layer is fitted to the teacher's answers with the inputs that the pruned layers before it really give. Zeros
    alone make no dense kernel faster: they pay in compressed size, and as n:m where the hardware reads it.
    """

    name: ClassVar[str] = "prune"
    lossy: ClassVar[bool] = True

    kind: Literal["unstructured", "nm"] = option(
        "unstructured", "unstructured: any weight; nm: keep n of every m along the reduction axis"
    )
    ratio: float = option(0.5, "share of the weights to drop (unstructured)", low=0.0, high=0.99)
    scope: Literal["layer", "global"] = option("layer", "the same ratio in every layer, or spread where it costs least")
    n: int = option(2, "weights kept of every m (nm)", low=1)
    m: int = option(4, "group size (nm)", low=2)

    def run(self, graph: Graph, ctx: Context) -> Report:
        from .weights import prune_weights

        return prune_weights(self, graph, ctx)
