"""Pairs of layers that can be one.

With y = B f(A x + b) + d and f ~ s u + t, channel by channel, the pair is about

    (B s A) x  +  B (s b + t) + d,

where s and t are the least-squares line through what f makes of its inputs on some samples; 1 and 0 where there is no
activation, and then it is exact but for what a padding of B sees of b. For convolutions B s A is their composition:
kernels of k and l taps are one of k + l - 1. What is lost besides is made up for as far as it goes: the merged layer is
fitted to what the teacher has behind B.

Not merged: a layer whose answer others read, too; dilated ones, and a stride before a kernel of more than one tap;
where the merged weights would be more than both have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.types import DType, TensorType
from ..base import Context, Skip
from ..structure.apart import apart, shape_of, share_left
from ..structure.edit import Edit, EditKind
from ..walk.linear import Linear
from ..walk.readers import linear_layer
from ..walk.target import Array

ACTIVATIONS = frozenset({
    *("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid"),
    *("HardSwish", "Tanh", "Softplus", "Softsign", "Gelu", "Mish"),
})  # fmt: skip
SAMPLES = 64
"""Samples that lines through activations are drawn by."""


@dataclass(frozen=True, slots=True)
class Line:
    """f ~ slope u + offset, (channels,) each."""

    slope: Array
    offset: Array


@dataclass(frozen=True, slots=True, eq=False)
class Pair(Edit):
    """`second` takes in `first`; `line` stands for the activation between them, if there is one."""

    first: Linear
    second: Linear
    line: Line | None

    def apply(self, graph: Graph) -> frozenset[str]:
        _join(self)
        graph.sweep()
        return frozenset({self.out.name})


class Pairs(EditKind):
    """Pairs of layers that become one. Lines through activations are those of the graph as it came in."""

    verb = "merging saved"
    none = "no two layers follow each other that could be one"
    worth = 0.002  # what is linear loses nothing

    def __init__(self, graph: Graph, ctx: Context) -> None:
        self._lines: list[Line | None] = [None]
        self._numbers: dict[str, int] = {}
        self._fit(graph, ctx)

    def edits(self, graph: Graph) -> list[Edit]:
        pairs = (self.at(node, self._numbers.get(_before(node), 0)) for node in graph)
        return [pair for pair in pairs if pair is not None]

    def at(self, node: Node, number: int) -> Pair | None:
        second = _ending(node)
        chain = None if second is None else _chain(second)
        if second is None or chain is None:
            return None
        first, between = chain
        line = self._lines[number]
        if (between is None) != (line is None) or not _composes(first, second):
            return None
        middle = () if between is None else (between,)
        added = tuple(one.add for one in (first, second) if one.add is not None)
        return Pair(number, second.output, (first.node, *added, *middle, second.node), first, second, line)

    def left(self, graph: Graph, name: str, edit: Edit, ctx: Context, of: str) -> float:
        assert isinstance(edit, Pair)
        source = edit.first.source
        shape = shape_of(graph, source, ctx)
        kind = TensorType(DType.of(edit.first.dtype), shape)
        graphs = apart(edit, source, kind, lambda node: self.at(node, edit.number))
        return share_left(graphs, shape, ctx, of, f"time of '{name}' merged")

    def _fit(self, graph: Graph, ctx: Context) -> None:
        """Draw a line through each activation between two layers."""
        from ...runtime.session import Session

        nodes = {}
        for node in graph:
            second = _ending(node)
            chain = None if second is None else _chain(second)
            if chain is not None and chain[1] is not None:
                nodes[chain[1]] = chain[0]
        if not nodes or ctx.fit is None:
            return
        values = [value for node, first in nodes.items() for value in (first.output, node.output)]
        session = Session(graph, outputs=values, threads=ctx.threads)
        sums = {node: np.zeros((5, first.outputs)) for node, first in nodes.items()}
        for feeds in ctx.fit.take(min(SAMPLES, ctx.fit.count), ctx.seed).batches(16):
            arrays = session.run(feeds)
            for place, (node, first) in enumerate(nodes.items()):
                x, y = (_rows(array, first) for array in arrays[2 * place : 2 * place + 2])
                sums[node] += [np.full(first.outputs, len(x)), x.sum(0), y.sum(0), (x * x).sum(0), (x * y).sum(0)]
        for node, (count, x, y, xx, xy) in sums.items():
            spread = count * xx - x * x
            slope = np.where(spread > 1e-9 * count * xx, (count * xy - x * y) / np.maximum(spread, 1e-30), 0.0)
            self._numbers[node.output.name] = len(self._lines)
            self._lines.append(Line(slope, (y - slope * x) / np.maximum(count, 1.0)))


def _layer(node: Node) -> Linear | None:
    """A layer that nobody shares and that has its weights on the right; `None` for any other node."""
    try:
        layer = linear_layer(node) if node.op in ("Conv", "Gemm", "MatMul") and not node.domain else None
    except Skip:
        return None
    if layer is None or not layer.alone or layer.left or layer.turn is not None:
        return None
    return layer


def _ending(node: Node) -> Linear | None:
    """The layer that ends in a node, which is the sum of a MatMul and its bias where there is one."""
    inner = [node]
    if node.op == "Add":
        inner = [value.producer for value in node.inputs if value is not None and value.producer is not None]
    layers = (_layer(one) for one in inner)
    return next((layer for layer in layers if layer is not None and layer.output.producer is node), None)


def _before(node: Node) -> str:
    """The name of what a layer reads."""
    layer = _ending(node)
    return "" if layer is None else layer.source.name


def _chain(second: Linear) -> tuple[Linear, Node | None] | None:
    """The layer before one, of which nobody else reads anything, and the activation between them."""
    value, between = second.source, None
    if _read_once(value) and value.producer is not None and value.producer.op in ACTIVATIONS:
        between = value.producer
        inner = between.inputs[0]
        if inner is None or any(other is not None and other.constant is None for other in between.inputs[1:]):
            return None
        value = inner
    first = _ending(value.producer) if _read_once(value) and value.producer is not None else None
    return None if first is None else (first, between)


def _read_once(value: Value) -> bool:
    return len(value.uses) == 1 and not value.is_output


def _composes(first: Linear, second: Linear) -> bool:
    """Whether both are of one kind, and one layer of no more weights than both have can stand for them."""
    if first.is_conv != second.is_conv or first.dtype != second.dtype:
        return False
    if not first.is_conv:
        rows = first.source.shape
        if second.bias_place is None and first.bias_place is not None:
            return False
        merged = first.shape[2] * second.shape[1]
        return rows is not None and merged <= math.prod(first.shape) + math.prod(second.shape)
    nodes = first.node, second.node
    if any(node.get_string("auto_pad", "NOTSET") not in ("", "NOTSET") for node in nodes):
        return False
    if {*first.dilations, *second.dilations} != {1} or len(first.kernel) != len(second.kernel):
        return False
    pointwise = set(second.kernel) == {1}
    if set(first.strides) != {1} and not pointwise:
        return False
    if pointwise and any(second.node.get_ints("pads")):
        return False
    taps = math.prod(a + b - 1 for a, b in zip(first.kernel, second.kernel, strict=True))
    inputs = first.channels * first.groups
    return inputs * second.outputs * taps <= math.prod(first.shape) + math.prod(second.shape)


def _join(pair: Pair) -> None:
    """Let the second layer do what both did."""
    first, second, line = pair.first, pair.second, pair.line
    slope = np.ones(first.outputs) if line is None else line.slope
    offset = np.zeros(first.outputs) if line is None else line.offset
    before, after = _dense(first), _dense(second)
    bias = first.bias()
    inner = offset if bias is None else slope * bias + offset
    shift = after.reshape(*after.shape[:2], -1).sum(axis=2) @ inner
    weight = _composed(slope[:, None] * before.reshape(len(slope), -1), before.shape, after)
    node, place = second.place
    source = first.source
    if second.is_conv:
        ends = [one.node.get_ints("pads") or (0,) * (2 * len(one.kernel)) for one in (first, second)]
        node.set_attribute("pads", [a + b for a, b in zip(*ends, strict=True)])
        node.set_attribute("strides", [a * b for a, b in zip(first.strides, second.strides, strict=True)])
        node.set_attribute("kernel_shape", list(weight.shape[2:]))
        node.set_attribute("group", 1)
        constant = second.constant(weight, second.weight.name)
    else:
        flat = weight.reshape(weight.shape[:2]) / second.node.get_float("alpha", 1.0)
        constant = second.constant(flat if second.turned else flat.T, second.weight.name)
    node.set_input(place, constant)
    second.node.set_input(1 - second.operand, source)
    if shift.any():
        linear_layer(second.node).shift_bias(shift)


def _dense(layer: Linear) -> Array:
    """The weights (outputs, inputs, *kernel) as of one group."""
    groups, n, _ = layer.shape
    weights = layer.weights().reshape(groups, n, layer.channels, *layer.kernel)
    dense = np.zeros((groups * n, groups * layer.channels, *layer.kernel))
    for g in range(groups):
        dense[g * n : (g + 1) * n, g * layer.channels : (g + 1) * layer.channels] = weights[g]
    return dense


def _composed(flat: Array, shape: tuple[int, ...], after: Array) -> Array:
    """The weights of `after` behind those of shape `shape` in `flat` (channels, rest)."""
    before = flat.reshape(shape)
    kernels = before.shape[2:], after.shape[2:]
    size = tuple(a + b - 1 for a, b in zip(*kernels, strict=True))
    whole = np.zeros((after.shape[0], before.shape[1], *size))
    for v in np.ndindex(*kernels[1]):
        for u in np.ndindex(*kernels[0]):
            at = tuple(i + j for i, j in zip(u, v, strict=True))
            whole[(slice(None), slice(None), *at)] += after[(..., *v)] @ before[(..., *u)]
    return whole


def _rows(array: object, layer: Linear) -> Array:
    """(rows, channels) of what a layer, or the activation behind it, answers."""
    values = np.asarray(array, np.float64)
    values = np.moveaxis(values, 1 if layer.is_conv else -1, -1)
    return values.reshape(-1, values.shape[-1])
