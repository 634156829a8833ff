"""Where a node came from: the source nodes' names and the passes that made it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NODES_KEY = "optc.origin"
PASSES_KEY = "optc.passes"
MOST_NAMES = 256
"""Names that a node keeps: one that is made of a chain of any length, link by link, would copy them all each time."""


@dataclass(frozen=True, slots=True)
class Origin:
    """`nodes` are names in the model that was read; `passes` is empty for a node that no pass has touched."""

    nodes: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()

    @staticmethod
    def own(name: str) -> Origin:
        """The origin of a node of this name in the model that was read: itself."""
        return Origin((name,)) if name else Origin()

    @staticmethod
    def merge(origins: Iterable[Origin], by: str) -> Origin:
        """The origin of a node that the pass `by` made out of nodes of these `origins`; the first names of too many."""
        nodes: dict[str, None] = {}
        passes: dict[str, None] = {}
        for origin in origins:
            if len(nodes) < MOST_NAMES:
                nodes.update(dict.fromkeys(origin.nodes))
            passes.update(dict.fromkeys(origin.passes))
        passes[by] = None
        return Origin(tuple(nodes)[:MOST_NAMES], tuple(passes))
