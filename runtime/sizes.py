"""What the open dimensions of a model are for one sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ir.shapes.infer import axis_name

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from .samples import Samples


def sizes(graph: Graph, samples: Samples | None) -> dict[str, int]:
    """Name -> size: 1 for the batch, the sample's own sizes elsewhere; nothing without samples.

    A size without a name goes by that of its axis (`axis_name`).
    """
    if samples is None:
        return {}
    feeds = next(samples.batches(1))
    return {
        axis_name(value.name, axis) if dim is None else dim: size
        for value in graph.inputs
        if value.name in feeds and value.shape is not None
        for axis, (dim, size) in enumerate(zip(value.shape, feeds[value.name].shape, strict=True))
        if not isinstance(dim, int)
    }
