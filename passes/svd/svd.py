"""The pass `svd`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..base import Context, option
from ..walk.layer_pass import LayerPass

if TYPE_CHECKING:
    from .layers import Factorise


@dataclass(frozen=True, slots=True)
class Svd(LayerPass):
    """Split layers into two or three thinner ones where that saves work.

    Every rank's error is known from one eigendecomposition of what the layer should answer, so ranks are chosen, not
    guessed; the factors are fitted to the teacher's answers with the inputs that really arrive.
    """

    name: ClassVar[str] = "svd"
    rivals: ClassVar[tuple[str, ...]] = ("depthwise",)

    ratio: float | None = option(
        None,
        "share of the MACs to keep, 1: all, and the layer as it is; none: as few as `error` allows, layer by layer",
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
    scope: Literal["layer", "global"] = option(
        "global", "layer: the same ratio in every layer; global: spread where it costs least"
    )
    align: int = option(0, "ranks are multiples of this; 0: of what the target's kernels like", low=0)

    @property
    def unbounded(self) -> bool:
        return self.ratio is None and self.error is None

    def layerwise(self, ctx: Context) -> Factorise:
        from .layers import Factorise

        return Factorise(self, ctx)
