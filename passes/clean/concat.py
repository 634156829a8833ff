"""Concats.

    1. Concat(a, Concat(b, c), d) along one axis   ->  Concat(a, b, c, d)
    2. Concat(a, empty)                            ->  Concat(a)
    3. Concat of all parts of a Split, in order    ->  what was split

Exact: they only place elements. Does not fire for 1 where the inner Concat is read by others, nor across different
axes; for 2 where the empty part's size along the axis is not known to be 0.
"""

from __future__ import annotations

from ...ir.node import Node, Value
from .rewriter import Rewriter, Rule


def _axis(node: Node) -> int | None:
    """The axis of a Concat or Split, counted from the front; `None` where that needs an unknown rank."""
    axis = node.get_int("axis", 0)
    if axis >= 0:
        return axis
    shape = node.output.shape
    return None if shape is None else axis + len(shape)


def _nested(node: Node, rewriter: Rewriter) -> bool:
    """Takes all the levels at once, from the outermost: a chain of thousands would else be copied at each of them."""
    axis = _axis(node)
    if axis is None or _goes_into_another(node, axis, rewriter):
        return False
    inputs: list[Value | None] = []
    merged: list[Node] = []
    pending = [(node, index) for index in reversed(range(len(node.inputs)))]
    while pending:
        reader, index = pending.pop()
        inner = rewriter.made_only_for(reader, index, "Concat")
        if inner is None or _axis(inner) != axis:
            inputs.append(reader.inputs[index])
        else:
            merged.append(inner)
            pending += [(inner, one) for one in reversed(range(len(inner.inputs)))]
    if merged:
        rewriter.replace(node, rewriter.make(node, "Concat", inputs, {"axis": axis}, merged=merged))
    return bool(merged)


def _goes_into_another(node: Node, axis: int, rewriter: Rewriter) -> bool:
    """Whether another Concat, which is looked at later, takes the inputs of this one."""
    uses = node.output.uses
    reader, index = next(iter(uses)) if len(uses) == 1 else (None, 0)
    if not isinstance(reader, Node) or reader.op != "Concat" or _axis(reader) != axis:
        return False
    return rewriter.made_only_for(reader, index, "Concat") is node


def _empty(node: Node, rewriter: Rewriter) -> bool:
    axis = _axis(node)
    kept = [v for v in node.inputs if not _is_empty(v, axis)]
    if len(kept) == len(node.inputs) or not kept or axis is None:
        return False
    rewriter.replace(node, rewriter.make(node, "Concat", kept, {"axis": axis}))
    return True


def _is_empty(value: Value | None, axis: int | None) -> bool:
    shape = None if value is None else value.shape
    return shape is not None and axis is not None and axis < len(shape) and shape[axis] == 0


def _of_split(node: Node, rewriter: Rewriter) -> bool:
    split = rewriter.made_by(node, 0, "Split")
    if split is None or node.inputs != split.outputs or split.inputs[0] is None:
        return False
    axis, cut = _axis(node), split.get_int("axis", 0)
    if cut < 0 and split.output.shape is not None:
        cut += len(split.output.shape)
    if axis != cut:
        return False
    return rewriter.bypass(node, split.inputs[0])


RULES = (
    Rule("concat-of-concat", ("Concat",), _nested),
    Rule("concat-of-empty", ("Concat",), _empty),
    Rule("concat-of-split", ("Concat",), _of_split),
)
