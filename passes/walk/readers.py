"""The linear layers of a graph: which nodes are ones, and who else reads their weights.

Readers that multiply rows by a weight in the same way are one layer, with `twins`: the moments of all of them are
summed. Readers that it serves otherwise are the layer's `others`: the other way round (x W here, x W^T there, by a
Transpose, by Gemm's transB, or from the left), as the rows of a table (tied embeddings), or inside the body of a
control-flow operator. All of them are changed together.

Not handled, each a `Skip` with the reason: weights that are computed, read by anything else, or not float; constant or
transposed inputs; stacked MatMul weights (rank above 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ...ir.graph import Graph, Node, User, Value
from ...ir.order import depths
from ..base import Skip
from .linear import FLOATS, OPS, OTHERWISE, PRODUCTS, Linear, Other, has_weight, layer_view, turns

WHOLE = frozenset({"Einsum", "GRU", "LSTM", "RNN"})
"""Operators of ONNX that multiply by weights and are no linear layers."""
LEAST = 1024
"""Numbers from which on a constant of theirs counts as a weight."""
IN_BODY = "it is inside the body of a control-flow operator"


def linear_layer(node: Node) -> Linear:
    """The layer that `node` (one of `OPS`) is, with its twins and others in the order of the weight's uses. Raises
    `Skip` where it is one that cannot be rewritten."""
    layer = _reader(node)
    twins: list[Linear] = []
    others: list[Other] = []
    for user, index, turn in _uses(layer.weight):
        if user is node:
            if (index, turn) != (layer.operand, layer.turn):
                raise Skip("it reads its weight as an input, too")
            continue
        if not isinstance(user, Node):
            raise Skip(f"its weight is shared with the model's output, {OTHERWISE}")
        other = _other(user, index, turn)
        if other is None:
            raise Skip(f"its weight is shared with {user.op} '{user.label}', {OTHERWISE}")
        if (twin := _twin(layer, other)) is not None:
            twins.append(twin)
        else:
            others.append(other)
    if any(_bias(twin) is not _bias(layer) for twin in twins):
        # Each adds a bias of its own, which stays: what they have in common is the product.
        layer, twins = replace(layer, add=None), [replace(twin, add=None) for twin in twins]
    return replace(layer, twins=tuple(twins), others=tuple(others))


def _uses(weight: Value) -> Iterator[tuple[User, int, Node | None]]:
    """Who reads a weight, at which input, and the Transpose of its two axes that stands between."""
    for user, index in weight.uses:
        if isinstance(user, Node) and turns(user):
            yield from ((reader, place, user) for reader, place in user.output.uses)
        else:
            yield user, index, None


def _other(node: Node, index: int, turn: Node | None) -> Other | None:
    """A reader of a weight that can be changed with it, `None` where it uses it for anything else."""
    if node.domain:
        return None
    if node.op == "Gather":
        return Other(node, None) if index == 0 and turn is None and node.get_int("axis") == 0 else None
    if node.op not in OPS:
        return None
    try:
        layer = _reader(node)
    except Skip:
        return None
    return Other(node, layer) if layer.turn is turn and layer.operand == index else None


def _twin(layer: Linear, other: Other) -> Linear | None:
    """The other reader as a layer that can be fitted as one with `layer`, `None` where it reads otherwise."""
    twin = other.layer
    if twin is None or twin.op != layer.op or other.node.graph is not layer.node.graph:
        return None
    if (twin.turned, twin.left) != (layer.turned, layer.left):
        return None
    if twin.groups != layer.groups:
        return None
    if twin.op == "MatMul":
        return twin
    scales = [[x.node.get_float("alpha", 1.0), x.node.get_float("beta", 1.0)] for x in (layer, twin)]
    return twin if scales[0] == scales[1] and _bias(layer) is _bias(twin) else None


def _bias(layer: Linear) -> Value | None:
    place = layer.bias_place
    return None if place is None else place[0].inputs[place[1]]


def _reader(node: Node) -> Linear:
    """The layer that `node` is, whoever else reads its weight."""
    layer = layer_view(node)
    weight = layer.weight if node.input(1) is not None else None
    if weight is None or node.input(0) is None:
        raise Skip("it has no weight")
    if weight.constant is None:
        raise Skip(f"its weight is {weight.unknown}")
    if layer.source.constant is not None:
        raise Skip("its input is constant")
    if weight.constant.dtype not in FLOATS:
        raise Skip(f"its weight is {weight.constant.dtype.text}, not float")
    if node.op == "Gemm" and node.get_int("transA"):
        raise Skip("its input is transposed")
    if node.op in PRODUCTS and len(weight.constant.shape) != 2:
        raise Skip(f"its weight has rank {len(weight.constant.shape)}")
    if layer.left and len(layer.source.shape or ()) < 2:
        raise Skip("its constant is on the left of a vector, or of what has no known rank")
    bias = node.input(2) if node.op != "MatMul" else None
    if bias is not None and bias.constant is None:
        raise Skip(f"its bias is {bias.unknown}")
    if node.op == "Gemm" and bias is not None and bias.constant is not None:
        columns = layer.outputs
        if bias.constant.size not in (1, columns) or (bias.constant.shape or (1,))[-1] != bias.constant.size:
            raise Skip(f"its bias has shape {list(bias.constant.shape)}, not one number an output")
    if not np.isfinite(np.asarray(weight.numpy(), dtype=np.float32)).all():
        raise Skip("its weight is not finite")
    if not np.any(weight.numpy()):
        raise Skip("its weight is zero everywhere")
    return layer


def linear_layers(graph: Graph) -> tuple[list[Linear], list[tuple[Node, str]]]:
    """The linear layers of a graph in its order, and the nodes that could not be taken, with the reason."""
    layers: list[Linear] = []
    refused: list[tuple[Node, str]] = []
    order = depths(graph)
    behind: set[Node] = set()  # readers of the weight of a layer that comes before them
    for node in graph:
        if node.domain or node.op not in OPS or node in behind:
            continue
        if node.op == "MatMul" and not has_weight(node):
            continue  # a product of activations has no weights to speak of
        try:
            layer = linear_layer(node)
        except Skip as skip:
            refused.append((node, skip.reason))
            continue
        if layer.twins or layer.others:
            # A walk visits all of them where it comes to the first.
            alike = [reader.node for reader in layer.readers]
            layer = linear_layer(min(alike, key=lambda node: order[node]))
            behind.update(alike, (other.node for other in layer.others))
        layers.append(layer)
    inside = (node for node in graph.walk() if node.graph is not graph and node not in behind)
    refused += [(node, IN_BODY) for node in inside if node.op in OPS and not node.domain]
    return layers, refused


def holds_weights(node: Node) -> bool:
    """Whether a node that is no linear layer multiplies by weights: a recurrent cell, an Einsum, a fused operator."""
    if not node.domain and node.op not in WHOLE:
        return False
    constants = [value.constant for value in node.inputs if value is not None and value.constant is not None]
    return any(
        tensor.dtype in FLOATS and tensor.size >= LEAST and sum(size > 1 for size in tensor.shape) > 1
        for tensor in constants
    )
