"""What an output says, from how the model computes it:

- a Softmax at the end, or exponentials over their sum along an axis, as some exporters spell it: probabilities along
  that axis, wherever a Transpose puts it;
- a Sigmoid at the end: independent yes/no probabilities, decided at one half;
- a MatMul, Gemm or Conv at the end, seen through bias, reshapes and pooling, of shape [rows, classes], or a MatMul or
  Gemm of any rank: logits along the last axis, of which the softmax is compared;
- else plain values.
"""

from __future__ import annotations

import enum

from ..ir.graph import Node, Value
from ..ir.ops import CODINGS, VIEWS

_RECODED = CODINGS | {"Identity", "Cast", "Dropout"}
_TURNED = _RECODED | {"Transpose"}
_PASSED = _RECODED | VIEWS
_SPREAD = VIEWS | {"Expand", "Identity"}
_POOLED = frozenset({"GlobalAveragePool", "ReduceMean", "AveragePool", "Relu", "Clip", "BatchNormalization"})


class Kind(enum.StrEnum):
    """What an output says."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"
    DECISIONS = "decisions"
    VALUES = "values"
    DISCRETE = "discrete"
    ROWS = "matched rows"
    BEFORE = "before the selection"


def output_kind(value: Value) -> Kind:
    """What the output `value` says; see the rules above."""
    if value.dtype is not None and not value.dtype.is_float:
        return Kind.DISCRETE
    rank = None if value.shape is None else len(value.shape)
    pooled = turned = False
    at: Value | None = value
    while at is not None and at.producer is not None:
        node = at.producer
        if node.op == "Softmax" or _shares_axis(node) is not None:
            return Kind.PROBABILITIES
        if node.op == "Sigmoid":
            return Kind.DECISIONS
        if node.op == "LogSoftmax":
            return Kind.LOGITS
        if node.op in ("MatMul", "Gemm") or (node.op == "Conv" and rank == 2):
            if turned:  # its last axis need not be that of classes
                return Kind.VALUES
            single = not value.shape or value.shape[-1] == 1 or len(value.shape) < 2
            return Kind.VALUES if single or (pooled and rank != 2) else Kind.LOGITS
        if node.op == "Add" and any(v is not None and v.constant is not None for v in node.inputs):
            at = next(v for v in node.inputs if v is not None and v.constant is None)
        elif node.op in _PASSED or node.op in _POOLED or node.op == "Transpose":
            pooled |= node.op in _POOLED
            turned |= node.op == "Transpose"
            at = node.input(0)
        else:
            break
    return Kind.VALUES


def output_axis(value: Value) -> int:
    """The axis along which a deciding output holds its classes: the last, or the Softmax's own, wherever a Transpose
    behind it puts it."""
    node = value.producer
    orders: list[tuple[int, ...]] = []
    while node is not None and node.op in _TURNED and (source := node.input(0)) is not None:
        if node.op == "Transpose":
            axes = range(len(source.shape or value.shape or ()))
            orders.append(node.get_ints("perm", tuple(reversed(axes))))
        node = source.producer
    axis = -1 if node is None else _own_axis(node)
    for order in reversed(orders):
        axis = order.index(axis % len(order)) if order else -1
    return axis


def _own_axis(node: Node) -> int:
    """The axis along which `node` holds its classes."""
    if (axis := _shares_axis(node)) is not None:
        return axis
    if node.op not in ("Softmax", "LogSoftmax") or node.graph is None:
        return -1
    opset = node.graph.opset()
    # Before opset 13 Softmax normalised everything from `axis` on; that is one axis only where it is the last.
    return node.get_int("axis", -1) if opset >= 13 else -1


def _shares_axis(node: Node) -> int | None:
    """The one axis along which `node` divides exponentials by their sum, or multiplies them by its reciprocal; `None`
    where it computes anything else."""
    if node.op not in ("Div", "Mul") or node.domain:
        return None
    pairs = [(node.input(0), node.input(1)), (node.input(1), node.input(0))]
    for top, below in pairs[: 1 if node.op == "Div" else 2]:
        total = None if below is None else below.producer
        inverted = node.op == "Div"
        while total is not None and (total.op in _SPREAD or (total.op == "Reciprocal" and not inverted)):
            inverted |= total.op == "Reciprocal"
            source = total.input(0)
            total = None if source is None else source.producer
        if total is None or total.op != "ReduceSum" or not inverted or top is None or total.input(0) is not top:
            continue
        if top.producer is not None and top.producer.op == "Exp":
            axes = total.get_ints("axes") or _integers(total.input(1))
            return axes[0] if len(axes) == 1 else None
    return None


def _integers(value: Value | None) -> tuple[int, ...]:
    constant = None if value is None else value.constant
    return () if constant is None else tuple(int(axis) for axis in constant.numpy().reshape(-1))
