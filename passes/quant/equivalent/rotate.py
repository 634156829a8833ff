"""The channels between two factors of a layer turned so that all are alike.

svd leaves a narrow value between two linear layers whose channels are principal components: the first is many times
larger than the last, so one grid over all of them, and one scale over the columns that read them, serve the large ones
alone. Between layers with nothing in between any orthogonal Q is free,

    W_2 (W_1 x + b_1)  =  (W_2 Q^T) (Q W_1 x + Q b_1)

and a random one makes of r components r mixtures of about the same size (Ashkboos et al. 2024, "QuaRot",
arXiv:2404.00456, section 3, uses it against outliers). Q is drawn from a fixed seed.

Fires on Conv -> Conv without groups and on MatMul or Gemm -> MatMul or Gemm, where the second alone reads the first.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node
from ...base import Context
from ..layers import Layer

Array = NDArray[np.float64]


def rotate(graph: Graph, layers: Mapping[Node, Layer], ctx: Context) -> int:
    """Turn the channels between the pairs of `layers`, in place; returns how many pairs there are."""
    pairs = [(first, second) for second in layers.values() if (first := _before(second, layers)) is not None]
    for number, (first, second) in enumerate(pairs):
        drawn = np.random.default_rng((ctx.seed, number)).standard_normal((first.channels, first.channels))
        q = np.linalg.qr(drawn)[0]
        _turn_outputs(graph, first, q)
        _turn_inputs(graph, second, q)
    return len(pairs)


def _before(second: Layer, layers: Mapping[Node, Layer]) -> Layer | None:
    value = second.source
    first = None if value.producer is None else layers.get(value.producer)
    if first is None or len(value.uses) != 1 or value.is_output or (first.op == "Conv") != (second.op == "Conv"):
        return None
    grouped = any(layer.node.get_int("group", 1) != 1 for layer in (first, second))
    own = first.node.input(2)
    shared = any(len(layer.weight.uses) != 1 for layer in (first, second)) or (own is not None and len(own.uses) != 1)
    return None if grouped or shared or first.channels < 2 else first


def _turn_outputs(graph: Graph, layer: Layer, q: Array) -> None:
    weight = _weight(layer)
    _set(graph, layer, 1, np.moveaxis(np.tensordot(q, weight, axes=(1, layer.axis)), 0, layer.axis))
    bias = layer.node.input(2)
    if bias is not None:
        row = np.broadcast_to(np.asarray(bias.numpy(), np.float64).reshape(-1), (layer.channels,))
        _set(graph, layer, 2, q @ row)


def _turn_inputs(graph: Graph, layer: Layer, q: Array) -> None:
    weight, axis = _weight(layer), 1 if layer.op == "Conv" else 1 - layer.axis
    _set(graph, layer, 1, np.moveaxis(np.tensordot(q, weight, axes=(1, axis)), 0, axis))


def _weight(layer: Layer) -> Array:
    return np.asarray(layer.node.inputs[1].numpy(), np.float64)  # type: ignore[union-attr]


def _set(graph: Graph, layer: Layer, index: int, array: Array) -> None:
    old = layer.node.inputs[index]
    assert old is not None
    layer.node.set_input(index, graph.constant(np.ascontiguousarray(array, np.float32), old.name))
