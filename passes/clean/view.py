"""Reshape, Flatten, Squeeze and Unsqueeze: nodes that only rename the axes of the same elements in the same order.

    1. view(x)            ->  x                    where the shapes are provably equal
    2. view(view(x))      ->  x, or Reshape(x)     of the outer view's shape
    3. Reshape(x, shape)  ->  Reshape(x, constant) where the result's shape is known well enough

Exact because a view is fixed by its input and its shape. A target of numbers and one unknown size is written with
-1, which the number of elements determines; a further symbolic size is written as 0, "as in the input", where the
input has the same symbol on the same axis. So the arithmetic Shape -> Gather -> Concat -> Reshape with a dynamic
batch becomes one constant, and stays dynamic.

Does not fire where two sizes remain unknown, where a size is 0 (0 and -1 would mean something else), or, for 2,
where the inner view is read by others too (nothing would be saved).
"""

from __future__ import annotations

from ...ir.node import Node
from ...ir.ops import VIEWS
from ...ir.types import Shape
from .broadcast import same
from .rewriter import Rewriter, Rule


def target(source: Shape | None, shape: Shape | None) -> list[int] | None:
    """The constant that makes Reshape turn a value of shape `source` into one of `shape`, if there is one."""
    if shape is None or any(d == 0 for d in shape):
        return None
    if sum(not isinstance(d, int) for d in shape) <= 1:
        return [d if isinstance(d, int) else -1 for d in shape]
    sizes = []
    for axis, size in enumerate(shape):
        if isinstance(size, int):
            sizes.append(size)
        elif size is not None and source is not None and axis < len(source) and source[axis] == size:
            sizes.append(0)
        else:
            sizes.append(-1)
    return sizes if sizes.count(-1) <= 1 else None


def _no_op(node: Node, rewriter: Rewriter) -> bool:
    source = node.inputs[0]
    if source is None or not same(source.shape, node.output.shape):
        return False
    return rewriter.bypass(node, source)


def _chain(node: Node, rewriter: Rewriter) -> bool:
    inner = rewriter.made_by(node, 0, *VIEWS)
    source = None if inner is None else inner.inputs[0]
    if inner is None or source is None:
        return False
    if same(source.shape, node.output.shape) or _inverse(inner, node, rewriter):
        return rewriter.bypass(node, source)
    if len(inner.output.uses) > 1:
        return False
    shape = target(source.shape, node.output.shape)
    if shape is None and node.op == "Reshape" and not node.get_int("allowzero"):
        wanted = rewriter.ints(node.input(1))
        shape = None if wanted is None or 0 in wanted else list(wanted)
    if shape is None:
        return False
    reshape = rewriter.make(node, "Reshape", [source, rewriter.constant(node, shape)], merged=[inner])
    rewriter.replace(node, reshape)
    return True


def _inverse(inner: Node, node: Node, rewriter: Rewriter) -> bool:
    """Whether one of the two inserts exactly the axes that the other removes; both count them in the wider shape."""
    if {inner.op, node.op} != {"Squeeze", "Unsqueeze"}:
        return False
    first, second = rewriter.axes(inner, 1), rewriter.axes(node, 1)
    return bool(first) and bool(second) and sorted(first or ()) == sorted(second or ())


def _constant_shape(node: Node, rewriter: Rewriter) -> bool:
    source, wanted = node.inputs[0], node.input(1)
    if source is None or wanted is None or wanted.constant is not None:
        return False
    shape = target(source.shape, node.output.shape)
    if shape is None:
        return False
    rewriter.set_input(node, 1, rewriter.constant(node, shape))
    node.attributes.pop("allowzero", None)
    rewriter.touch(node)
    return True


RULES = (
    Rule("view-no-op", VIEWS, _no_op),
    Rule("view-chain", VIEWS, _chain),
    Rule("reshape-constant", ("Reshape",), _constant_shape),
)
