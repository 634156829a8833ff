"""A lossy pass that changes linear layers one after the other: its options, and the hooks that `layerwise` drives."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..base import Context, Pass, Report

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from .layerwise import Layerwise


@dataclass(frozen=True, slots=True)
class LayerPass(Pass):
    """The fields of a subclass are its options; what it makes of a layer is in its hooks."""

    lossy: ClassVar[bool] = True

    @abstractmethod
    def layerwise(self, ctx: Context) -> Layerwise[Any, Any]:
        """The hooks of the pass with these options; imported here, so that options are read without numpy."""

    @property
    def unbounded(self) -> bool:
        """Whether the options name neither an amount nor an `error`: then as much is lost as is safe (`tolerance`)."""
        return False

    def run(self, graph: Graph, ctx: Context) -> Report:
        return self.layerwise(ctx).run(graph)
