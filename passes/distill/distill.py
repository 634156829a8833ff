"""The pass `distill`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...errors import DataError
from ..base import Context, Pass, Report, option

if TYPE_CHECKING:
    from ...ir.graph import Graph


@dataclass(frozen=True, slots=True)
class Distill(Pass):
    """Train what passes before left, so that it answers as the teacher does; no labels, and no training framework.

    Steps of Adam on views of the samples, each kept only where held-out samples say so.
    """

    name: ClassVar[str] = "distill"
    lossy: ClassVar[bool] = True
    mends: ClassVar[bool] = True

    steps: int = option(0, "steps to take; 0: as many as `minutes` allow", low=0)
    minutes: float = option(5.0, "how long to train (where `steps` is 0)", low=0.0)
    rate: float | None = option(
        None, "learning rate, in root mean squares of a channel's weights; none: by trial", low=0.0, high=1.0
    )
    temperature: float = option(1.0, "how much answers are softened before they are compared", low=0.1, high=100.0)
    hints: float = option(1.0, "weight of feature maps beside the answers, each", low=0.0)
    batch: int = option(32, "samples a step", low=1)
    stage: Literal["both", "blocks", "whole"] = option(
        "both", "what learns: blocks by themselves, the student as a whole, or first the ones and then the other"
    )
    parameters: Literal["all", "bias", "affine", "rounding"] = option(
        "all", "what moves: all; biases; these with scales and shifts of normalisations; or codes and their scales"
    )
    views: Literal["auto", "none"] = option(
        "auto", "whether images are moved, mirrored, cropped and mixed, where the teacher answers them alike"
    )

    def requires(self, graph: Graph, ctx: Context) -> None:
        """Raises `DataError` where there are no samples, `ModelError` where the model's opset cannot be raised."""
        if ctx.fit is None or not ctx.fit.count:
            raise DataError("distill needs samples to learn from; give some with --data")
        from ..opset import raise_opset

        raise_opset(graph, OLDEST, ctx)

    def run(self, graph: Graph, ctx: Context) -> Report:
        from .end_to_end import train

        return train(self, graph, ctx)


OLDEST = 13
"""The oldest opset in which losses are spelled."""
