"""The pass `depthwise`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..base import Context, option
from ..walk.layer_pass import LayerPass

if TYPE_CHECKING:
    from .layers import Separate


@dataclass(frozen=True, slots=True)
class Depthwise(LayerPass):
    """Rewrite convolutions as depthwise-separable ones, fitted to the teacher's answers without training.

    Rank k has k depthwise filters a channel; k terms cost about k (1/n + 1/taps) of the layer.
    """

    name: ClassVar[str] = "depthwise"
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

    @property
    def unbounded(self) -> bool:
        return not self.rank and self.error is None

    def layerwise(self, ctx: Context) -> Separate:
        from .layers import Separate

        return Separate(self, ctx)
