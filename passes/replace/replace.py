"""The pass `replace`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..base import Context, Pass, Report, option

if TYPE_CHECKING:
    from ...ir.graph import Graph


@dataclass(frozen=True, slots=True)
class Replace(Pass):
    """Put a cheaper block of another kind in the place of several convolutions, where it answers about the same.

    Each form is fitted to what the block answers, by closed forms and a short training; what loses least for what it
    saves goes first.
    """

    name: ClassVar[str] = "replace"
    lossy: ClassVar[bool] = True

    ratio: float | None = option(None, "share of the cost to save; none: as much as is safe", low=0.0, high=0.99)
    of: Literal["auto", "macs", "params", "latency"] = option(
        "auto", "the cost that `ratio` is of; auto: latency where anything tells it, else macs"
    )
    form: Literal["auto", "conv", "lowrank", "separable", "inverted"] = option(
        "auto",
        "conv: one convolution; lowrank: one of low rank; separable: depthwise, then pointwise; inverted: an inverted "
        "bottleneck; auto: the one of least error for what it saves",
        layer=True,
    )
    expansion: float = option(
        4.0, "inner channels of an inverted bottleneck, in multiples of its inputs", low=0.25, high=16.0, layer=True
    )
    rank: float = option(0.25, "rank of the low-rank form, as a share of the outputs", low=0.01, high=1.0, layer=True)
    kernel: int = option(
        0, "side of the kernel, an odd number; 0: that of the block's largest", low=0, high=15, layer=True
    )
    steps: int = option(200, "most steps of training of a form that no closed form fits", low=0)
    force: bool = option(False, "whether the block that ends there goes, whatever that loses", layer=True)

    def run(self, graph: Graph, ctx: Context) -> Report:
        from ..structure.driver import Restructuring
        from .kind import replacements

        report = Report()
        return Restructuring(self, self, replacements(self, graph, ctx, report), "force", ctx, report).run(graph)
