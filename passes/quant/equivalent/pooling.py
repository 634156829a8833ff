"""A mean over all spatial positions as GlobalAveragePool, which has an integer kernel where ReduceMean has none.

    ReduceMean(x, axes = all but the first two) = GlobalAveragePool(x), then Flatten unless dimensions are kept

Exact for any rank from 3 up. Does not fire on other types than float, where the rank is unknown, the axes are computed,
or any of the first two axes is reduced as well; nor on three axes unless a convolution, perhaps through an activation,
made the value: elsewhere it is the mean of a LayerNormalization in many nodes, which runtimes know by its ReduceMean.
"""

from __future__ import annotations

from ....ir.graph import Graph, Node, Value
from ....ir.origin import Origin
from ....ir.types import DType


def pool_spatial_means(graph: Graph) -> dict[Node, list[Node]]:
    """Rewrite every such ReduceMean of `graph`; returns what took the place of each."""
    return {
        node: _replace(graph, node)
        for node in graph
        if node.op == "ReduceMean" and not node.domain and _is_spatial(node)
    }


def _is_spatial(node: Node) -> bool:
    x = node.input(0)
    if x is None or x.dtype is not DType.FLOAT or x.shape is None or len(x.shape) < 3:
        return False
    if len(x.shape) == 3 and not _is_convolved(x):
        return False
    listed = node.input(1)
    axes = node.get_ints("axes") if listed is None else listed.numpy()
    if axes is None or node.get_int("noop_with_empty_axes"):
        return False
    rank = len(x.shape)
    return sorted(int(a) % rank for a in axes) == list(range(2, rank))


def _is_convolved(x: Value) -> bool:
    maker = x.producer
    if maker is not None and maker.op != "Conv" and maker.inputs and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer
    return maker is not None and maker.op == "Conv"


def _replace(graph: Graph, node: Node) -> list[Node]:
    origin = Origin.merge([node.origin], "quant")
    steps = [graph.add("GlobalAveragePool", [node.inputs[0]], origin=origin, name=node.name, before=node)]
    if not node.get_int("keepdims", 1):
        steps.append(graph.add("Flatten", [steps[0].output], {"axis": 1}, origin=origin, before=node))
    pooled = steps[-1].output
    pooled.name, pooled.type = node.output.name, node.output.type
    node.output.replace_uses(pooled)
    graph.remove(node)
    return steps
