"""One-dimensional layers as two-dimensional ones over images of one row, which kernels are written for.

[N, C, W] becomes [N, C, 1, W], a kernel [k] becomes [1, k]. What treats every element or every channel alike stays in
that form between two of them, codes too, so that no data move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ....ir.attributes import AttributeKind, AttributeValue
from ....ir.node import Node, Value
from ....ir.ops import ARITHMETIC, CODINGS
from ....ir.types import TensorType
from ....passes.base import Context, Pass, Report

if TYPE_CHECKING:
    from ....ir.graph import Graph

_LAYERS = frozenset({"Conv", "ConvTranspose"})
_POOLS = frozenset({"AveragePool", "MaxPool"})
_ALONE = frozenset({
    "Abs", "Cast", "Ceil", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Log", "Mish", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh",
})  # fmt: skip
"""What treats every element alike."""
_WITH_CONSTANTS = ARITHMETIC | CODINGS | {"BatchNormalization", "Clip", "Max", "Min", "PRelu"}
_ONE_AHEAD = {"kernel_shape": (1,), "strides": (1,), "dilations": (1,), "output_padding": (0,), "output_shape": (1,)}
"""What the row's own axis has in each attribute of a layer."""


@dataclass(frozen=True, slots=True)
class LegalRows(Pass):
    """Convolutions and pools over one axis become those over an image of one row.

    Exact. Does not fire where a weight is neither a constant nor codes of one, or a pool tells where it found a value.
    """

    name: ClassVar[str] = "rows"

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        if not any(node.op in _LAYERS and not node.domain and _rank(node.input(0)) == 3 for node in graph):
            return report
        graph.sort()
        images = _Images(graph)
        count = sum(images.take(node) for node in list(graph))
        graph.sweep()
        if count:
            report.rewrote("rows", count)
        return report


class _Images:
    """The images of one row that values of rank 3 have become."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._images: dict[Value, Value] = {}

    def take(self, node: Node) -> bool:
        """Let `node` make an image, where it is a layer of one dimension or stands behind one."""
        if node.domain or len([v for v in node.outputs if v.uses or v.is_output]) != 1 or node.bodies:
            return False
        x = node.input(0)
        if node.op in _LAYERS | _POOLS and _rank(x) == 3 and x is not None:
            weights = self._weights(node) if node.op in _LAYERS else []
            if weights is None:
                return False
            self._make(node, [self._image(x), *weights], _attributes(node))
            return True
        behind = (node.op in _ALONE or node.op in _WITH_CONSTANTS) and any(v in self._images for v in node.inputs)
        operands = [self._operand(node, value) for value in node.inputs] if behind and _rank(node.output) == 3 else []
        if not operands or any(one is None and value is not None for one, value in zip(operands, node.inputs)):
            return False
        self._make(node, operands, {name: one.value for name, one in node.attributes.items()})
        return True

    def _make(self, node: Node, inputs: list[Value | None], attributes: dict[str, AttributeValue | list[int]]) -> None:
        old = node.output
        type = TensorType(old.dtype, _with_row(old.shape)) if old.dtype is not None and old.shape is not None else None
        image = self._graph.add(
            node.op, inputs, attributes, types=[type], name=node.name, origin=node.origin, before=node
        ).output  # fmt: skip
        row = self._view("Squeeze", image, node)
        row.type = old.type
        old.replace_uses(row)
        self._graph.remove(node)
        self._images[row] = image

    def _image(self, value: Value) -> Value:
        """`value` with a row of its own, looked up before codes are decoded, so that layers see them."""
        if value not in self._images:
            node = value.producer
            codes = node.input(0) if node is not None and node.op == "DequantizeLinear" and not node.domain else None
            single = node is not None and all(_is_single(v) for v in node.inputs[1:])
            if node is not None and codes is not None and codes.constant is None and single:
                decoded = [self._image(codes), *node.inputs[1:]]
                maker = None if decoded[0] is None else decoded[0].producer
                image = self._graph.add(node.op, decoded, origin=node.origin, after=maker).output
            else:
                image = self._view("Unsqueeze", value, None)
            if value.dtype is not None and value.shape is not None:
                image.type = TensorType(value.dtype, _with_row(value.shape))
            self._images[value] = image
        return self._images[value]

    def _view(self, op: str, value: Value, before: Node | None) -> Value:
        """`value` with an axis of one before its last, or without it."""
        graph, producer = self._graph, value.producer
        place = before if before is not None or producer is not None else next(iter(graph))
        operands = [value] if graph.opset() < 13 else [value, graph.constant(np.array([2], np.int64))]
        attributes = {"axes": [2]} if graph.opset() < 13 else {}
        return graph.add(op, operands, attributes, before=place, after=producer if place is None else None).output

    def _operand(self, node: Node, value: Value | None) -> Value | None:
        """What a node behind an image reads in the place of `value`; none where it cannot."""
        if value is None:
            return None
        if value in self._images:
            return self._images[value]
        constant = value.constant
        if constant is None:
            return self._image(value) if _rank(value) == 3 and node.op in ARITHMETIC else None
        if len(constant.shape) < 2 or node.op in CODINGS | {"BatchNormalization"}:
            # Channels of codes lie along axis 1 in both forms; a single axis beside numbers is that of columns.
            along = node.get_int("axis", 1) == 1
            return value if len(constant.shape) < 2 and (along or not constant.shape) else None
        if len(constant.shape) > 3 or node.op not in ARITHMETIC | {"Max", "Min", "PRelu"}:
            return None
        *ahead, last = constant.shape
        return self._graph.constant(constant.numpy().reshape(*ahead, 1, last), value.name)

    def _weights(self, node: Node) -> list[Value | None] | None:
        """The weights and the bias of a layer with kernels of one row; none where the weights are computed."""
        weight = node.input(1)
        if weight is None:
            return None
        if weight.constant is not None:
            return [self._kernel(weight), *node.inputs[2:]]
        coded = weight.producer
        codes = coded.input(0) if coded is not None and coded.op == "DequantizeLinear" and not coded.domain else None
        if coded is None or codes is None or codes.constant is None or coded.get_int("block_size"):
            return None
        if coded.get_int("axis", 1) not in (0, 1) and not all(_is_single(v) for v in coded.inputs[1:]):
            return None
        attributes = {name: one.value for name, one in coded.attributes.items()}
        decoded = self._graph.add(
            coded.op, [self._kernel(codes), *coded.inputs[1:]], attributes, origin=coded.origin, before=node
        ).output  # fmt: skip
        if weight.dtype is not None and weight.shape is not None:
            decoded.type = TensorType(weight.dtype, _with_row(weight.shape))
        return [decoded, *node.inputs[2:]]

    def _kernel(self, value: Value) -> Value:
        assert value.constant is not None
        *ahead, size = value.constant.shape
        return self._graph.constant(value.constant.numpy().reshape(*ahead, 1, size), value.name)


def _attributes(node: Node) -> dict[str, AttributeValue | list[int]]:
    attributes: dict[str, AttributeValue | list[int]] = {name: one.value for name, one in node.attributes.items()}
    for name, one in _ONE_AHEAD.items():
        if node.attributes.get(name) is not None and node.attributes[name].kind is AttributeKind.INTS:
            attributes[name] = [*one, *node.get_ints(name)]
    if "pads" in node.attributes:
        first, last = node.get_ints("pads")
        attributes["pads"] = [0, first, 0, last]
    return attributes


def _rank(value: Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _is_single(value: Value | None) -> bool:
    return value is None or (value.constant is not None and value.constant.size == 1)


def _with_row(shape: tuple[int | str | None, ...]) -> tuple[int | str | None, ...]:
    return (*shape[:-1], 1, shape[-1])
