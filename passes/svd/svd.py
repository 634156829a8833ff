"""The pass `svd`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from ..base import Context, Pass, Report, option

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from ..walk.choice import Choice
    from ..walk.walk import Step


@dataclass(frozen=True, slots=True)
class Svd(Pass):
    """Split layers into two or three thinner ones where that saves work.

    Every rank's error is known from one eigendecomposition of what the layer should answer, so ranks are chosen, not
    guessed; the factors are fitted to the teacher's answers with the inputs that really arrive.
    """

    name: ClassVar[str] = "svd"
    lossy: ClassVar[bool] = True
    rivals: ClassVar[tuple[str, ...]] = ("depthwise",)

    ratio: float | None = option(
        None,
        "share of the MACs to keep; none: as few as `error` allows, layer by layer",
        low=0.01,
        high=1.0,
        layer=True,
    )
    error: float | None = option(
        None,
        "largest loss in a layer, as a share of its answer's variance (where ratio is none); none: what is safe",
        low=0.0,
        high=1.0,
        layer=True,
    )
    form: Literal["auto", "channel", "spatial", "tucker"] = option(
        "auto",
        "channel: kxk then 1x1; spatial: kx1 then 1xk; tucker: 1x1, kxk, 1x1; auto: the best of them",
        layer=True,
    )
    scope: Literal["layer", "global"] = option("layer", "the same ratio in every layer, or spread where it costs least")
    align: int = option(0, "ranks are multiples of this; 0: of what the target's kernels like", low=0)

    def run(self, graph: Graph, ctx: Context) -> Report:
        from ..walk.tolerance import loosest
        from .layers import factorise

        if self.ratio is None and self.error is None:
            return loosest(graph, ctx, lambda trial, error: factorise(replace(self, error=error), trial, ctx))
        return factorise(self, graph, ctx)

    def offer(self, step: Step, ctx: Context, most: float, tolerance: float) -> Choice | None:
        from .layers import offer

        return offer(self, step, ctx, most, tolerance)
