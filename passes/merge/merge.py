"""The pass `merge`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..base import Context, Pass, Report, option

if TYPE_CHECKING:
    from ...ir.graph import Graph


@dataclass(frozen=True, slots=True)
class Merge(Pass):
    """Make one layer of two that follow each other, where that is faster; an activation between them becomes a line.

    What is linear already is merged without loss. The merged layer is fitted to the teacher's answers.
    """

    name: ClassVar[str] = "merge"
    lossy: ClassVar[bool] = True

    ratio: float | None = option(None, "share of the cost to save; none: as much as is safe", low=0.0, high=0.99)
    of: Literal["auto", "macs", "params", "latency"] = option(
        "auto", "the cost that `ratio` is of; auto: latency where anything tells it, else macs"
    )
    join: bool = option(False, "whether the layer takes in the one before it, whatever that loses", layer=True)

    def run(self, graph: Graph, ctx: Context) -> Report:
        from ..structure.driver import Restructuring
        from .pairs import Pairs

        return Restructuring(self, self, Pairs(graph, ctx), "join", ctx, Report()).run(graph)
