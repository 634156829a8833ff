"""The bridge to and from onnx-graphsurgeon; the only file that imports it.

Models cross as ONNX, which both sides read and write. What onnx-graphsurgeon does not keep (model metadata, doc
strings, where nodes came from) is put back from the graph that went out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import ModelError
from ..graph import Graph
from ..names import unique_names
from ..origin import Origin

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


def to_surgeon(graph: Graph) -> gs.Graph:
    """A copy of `graph` for onnx-graphsurgeon; its weights are loaded when asked for.

    Names are as a written model would have them: the ones of this graph, made unique.
    """
    import onnx_graphsurgeon

    from .writer import to_proto

    return onnx_graphsurgeon.import_onnx(to_proto(graph))


def from_surgeon(surgeon: gs.Graph, like: Graph | None = None) -> Graph:
    """The graph that `surgeon` describes. `like` is the graph that it was made from, where there is one.

    A node keeps the origin of the node of `like` that makes a value of the same name; any other gets the origin
    `surgeon`. Raises `ModelError` where onnx-graphsurgeon cannot export the graph, or it is no valid model.
    """
    import onnx_graphsurgeon

    from .reader import from_proto

    try:
        # Types that a user left out are no reason to refuse: inference finds them.
        model = onnx_graphsurgeon.export_onnx(surgeon, do_type_check=False)
    except Exception as error:  # onnx-graphsurgeon raises its own, onnx's and numpy's
        name = getattr(surgeon, "name", "")
        raise ModelError(f"onnx-graphsurgeon cannot export graph '{name}': {' '.join(str(error).split())}") from error
    graph = from_proto(model)
    if like is not None:
        _restore(graph, like)
    return graph


def _restore(graph: Graph, like: Graph) -> None:
    graph.header = like.header
    graph.doc, graph.metadata, graph.extra = like.doc, dict(like.metadata), like.extra
    names = unique_names(like)
    producers = {names[value]: node for node in like.walk() for value in node.outputs if value in names}
    for node in graph.walk():
        source = next((producers[v.name] for v in node.outputs if v.name in producers), None)
        if source is None or source.op != node.op:
            node.origin = Origin((), ("surgeon",))
            continue
        node.origin, node.doc, node.extra = source.origin, source.doc, source.extra
        node.metadata = None if source.metadata is None else dict(source.metadata)
    # onnx-graphsurgeon lists constants as they are met; an unchanged model comes back in its own order.
    place = {value.name: i for i, value in enumerate(like.constants)}
    graph._constants = dict.fromkeys(sorted(graph.constants, key=lambda v: place.get(v.name, len(place))))
    for mine, theirs in ((graph.inputs, like.inputs), (graph.outputs, like.outputs)):
        by_name = {item.name: item for item in theirs}
        for item in mine:
            if item.name in by_name:
                item.doc = by_name[item.name].doc
                item.metadata = by_name[item.name].metadata
