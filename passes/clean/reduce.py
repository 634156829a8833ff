"""Reductions.

    1. ReduceMean, Sum, Max, Min, Prod over axes of size 1    ->  x, or Squeeze(x) without keepdims
    2. Squeeze(Reduce<keepdims=1>(x)) of the reduced axes     ->  Reduce<keepdims=0>(x)
    3. Flatten or Reshape of a reduction that only drops the reduced axes: likewise
    4. Unsqueeze(Reduce<keepdims=0>(x)) of the reduced axes   ->  Reduce<keepdims=1>(x)

Exact: the mean, sum, maximum, minimum and product of one number are that number; keepdims only renames axes. Does
not fire for ReduceL1, L2, LogSum and the like (they change the number), where a size is not known to be 1, where
axes are not constant, or where the reduction is read by others.
"""

from __future__ import annotations

from ...ir.attributes import AttributeValue
from ...ir.node import Node
from .broadcast import same
from .rewriter import Rewriter, Rule

_OF_ONE = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")
_ALL = (*_OF_ONE, "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")


def reduced(node: Node, rewriter: Rewriter) -> tuple[int, ...] | None:
    """The axes of a reduction from the front; `None` where they or the rank are unknown."""
    axes, source = rewriter.axes(node, 1), node.inputs[0]
    if axes is None or source is None or source.shape is None:
        return None
    rank = len(source.shape)
    if not axes:
        return () if node.get_int("noop_with_empty_axes") else tuple(range(rank))
    return tuple(sorted(a % rank for a in axes))


def _of_one(node: Node, rewriter: Rewriter) -> bool:
    axes, source = reduced(node, rewriter), node.inputs[0]
    if axes is None or source is None or source.shape is None or any(source.shape[a] != 1 for a in axes):
        return False
    if node.get_int("keepdims", 1) or not axes:
        return rewriter.bypass(node, source)
    if rewriter.opset >= 13:
        squeeze = rewriter.make(node, "Squeeze", [source, rewriter.constant(node, axes)])
    else:
        squeeze = rewriter.make(node, "Squeeze", [source], {"axes": list(axes)})
    rewriter.replace(node, squeeze)
    return True


def _keepdims(node: Node, rewriter: Rewriter) -> bool:
    inner = rewriter.made_only_for(node, 0, *_ALL)
    axes = None if inner is None else reduced(inner, rewriter)
    if inner is None or not axes or inner.inputs[0] is None or inner.inputs[0].shape is None:
        return False
    shape = inner.inputs[0].shape
    keeps = bool(inner.get_int("keepdims", 1))
    without = tuple(d for i, d in enumerate(shape) if i not in axes)
    kept = tuple(1 if i in axes else d for i, d in enumerate(shape))
    if keeps and node.op == "Squeeze":
        own = rewriter.axes(node, 1)
        wanted = 0 if own and tuple(sorted(a % len(shape) for a in own)) == axes else None
    elif not keeps and node.op == "Unsqueeze":
        own = rewriter.axes(node, 1)
        wanted = 1 if own and tuple(sorted(a % len(shape) for a in own)) == axes else None
    else:
        wanted = 0 if same(without, node.output.shape) else 1 if same(kept, node.output.shape) else None
    if wanted is None or wanted == int(keeps):
        return False
    attributes: dict[str, AttributeValue] = {k: a.value for k, a in inner.attributes.items() if k != "keepdims"}
    attributes["keepdims"] = wanted
    rewriter.replace(node, rewriter.make(node, inner.op, inner.inputs, attributes, merged=[inner]))
    return True


RULES = (
    Rule("reduce-of-one", _OF_ONE, _of_one),
    Rule("reduce-keepdims", ("Squeeze", "Unsqueeze", "Flatten", "Reshape"), _keepdims),
)
