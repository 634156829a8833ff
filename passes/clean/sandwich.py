"""A function of single elements between two nodes that only move elements.

    Transpose(f(Transpose(x)))   ->   Transpose(Transpose(f(x)))
    view(f(view(x)))             ->   view(view(f(x)))

for Relu, Sigmoid, Exp and their like, Cast, and Clip and arithmetic with a single constant; and views around a
Softmax of the last axis that keep the last size. What stands side by side then is one node or none (see
`transpose`, `view`).

Exact: f does the same to every element wherever it lies. Does not fire where a value in between is read by others, or
where the two would not become one.
"""

from __future__ import annotations

from ...ir.node import Node, Value
from ...ir.ops import VIEWS
from ...ir.types import TensorType, Type
from .broadcast import same
from .rewriter import Rewriter, Rule
from .view import target

_ALONE = (
    *(
        "Abs",
        "Cast",
        "Ceil",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Log",
        "Mish",
    ),
    *("Neg", "Not", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh"),
)
_WITH_ONE = ("Add", "Clip", "Div", "Max", "Min", "Mul", "Pow", "Sub")


_LONGEST = 16
"""Functions looked through, so that the search stays short in a long chain."""


def _rewrite(node: Node, rewriter: Rewriter) -> bool:
    family = ("Transpose",) if node.op == "Transpose" else VIEWS
    between: list[tuple[Node, int]] = []
    reader, index = node, 0
    while (inner := rewriter.made_only_for(reader, index, *family)) is None:
        middle = rewriter.made_only_for(reader, index, *_ALONE, *_WITH_ONE, "Softmax")
        variable = None if middle is None else _variable(middle)
        if middle is None or variable is None or len(between) == _LONGEST:
            return False
        between.append((middle, variable))
        reader, index = middle, variable
    source = inner.inputs[0]
    if not between or source is None:
        return False
    if any(m.op == "Softmax" and not _keeps_last(m, inner, source, rewriter) for m, _ in between):
        return False
    shape = node.output.shape
    if node.op != "Transpose" and not same(source.shape, shape) and target(source.shape, shape) is None:
        return False
    moved = source
    for middle, variable in reversed(between):
        inputs = [moved if i == variable else v for i, v in enumerate(middle.inputs)]
        type = _like(source, middle)
        moved = rewriter.make(middle, middle.op, inputs, middle.attributes, type=type, name=middle.output.name)
    last = between[0][0]
    inputs = [moved, *inner.inputs[1:]]
    again = rewriter.make(node, inner.op, inputs, inner.attributes, merged=[inner], type=_like(inner.output, last))
    rewriter.set_input(node, 0, again)
    return True


def _variable(middle: Node) -> int | None:
    """The only input that is not a single constant, if every element of it is treated alone."""
    variable = [i for i, v in enumerate(middle.inputs) if v is not None and (v.constant is None or v.constant.shape)]
    return variable[0] if len(variable) == 1 else None


def _keeps_last(softmax: Node, inner: Node, source: Value, rewriter: Rewriter) -> bool:
    """Whether a Softmax takes the last axis, and that is the same axis before the view `inner`."""
    before, after = source.shape, inner.output.shape
    if inner.op == "Transpose" or rewriter.opset < 13 or not before or not after:
        return False
    return before[-1] is not None and before[-1] == after[-1] and softmax.get_int("axis", -1) in (-1, len(after) - 1)


def _like(shape: Value, dtype: Node) -> Type | None:
    """The shape of one value with the element type of what a node makes."""
    return None if dtype.output.dtype is None else TensorType(dtype.output.dtype, shape.shape)


RULE = Rule("sandwich", ("Transpose", *VIEWS), _rewrite)
