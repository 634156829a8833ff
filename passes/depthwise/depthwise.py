"""The pass `depthwise`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from ..base import Context, Pass, Report, option

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from ..walk.choice import Choice
    from ..walk.walk import Step


@dataclass(frozen=True, slots=True)
class Depthwise(Pass):
    """Rewrite convolutions as depthwise-separable ones, fitted to the teacher's answers without training.

    Rank k has k depthwise filters a channel; k terms cost about k (1/n + 1/taps) of the layer.
    """

    name: ClassVar[str] = "depthwise"
    lossy: ClassVar[bool] = True
    rivals: ClassVar[tuple[str, ...]] = ("svd",)

    rank: int = option(0, "depthwise filters a channel; 0: as few as `error` allows, layer by layer", low=0, layer=True)
    error: float | None = option(
        None,
        "largest loss in a layer, as a share of its answer's variance (where rank is 0); none: what is safe",
        low=0.0,
        high=1.0,
        layer=True,
    )
    form: Literal["auto", "dw-pw", "pw-dw"] = option(
        "auto", "depthwise first, pointwise first, or the better one", layer=True
    )

    def run(self, graph: Graph, ctx: Context) -> Report:
        from ..walk.tolerance import loosest
        from .layers import separate

        if not self.rank and self.error is None:
            return loosest(graph, ctx, lambda trial, error: separate(replace(self, error=error), trial, ctx))
        return separate(self, graph, ctx)

    def offer(self, step: Step, ctx: Context, most: float, tolerance: float) -> Choice | None:
        from .layers import offer

        return offer(self, step, ctx, most, tolerance)
