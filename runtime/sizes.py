"""What the symbolic dimensions of a model are for one sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from .samples import Samples


def sizes(graph: Graph, found: Samples | None) -> dict[str, int]:
    """Name -> size: 1 for the batch, the sample's own sizes elsewhere; nothing without samples."""
    if found is None:
        return {}
    feeds = next(found.batches(1))
    return {
        dim: size
        for value in graph.inputs
        if value.name in feeds and value.shape is not None
        for dim, size in zip(value.shape, feeds[value.name].shape, strict=True)
        if isinstance(dim, str)
    }
