"""Expands that need not be made.

    1. Expand(x, shape) of the shape x has            ->  x
    2. Expand(x) read by arithmetic that broadcasts   ->  x, where the result keeps its shape
    3. Expand(Expand(x))                              ->  Expand(x)

Exact: broadcasting repeats elements and computes nothing; the operators in 2 repeat them by themselves. Does not
fire where the shapes are not provably right: for 2 the other operand must already have the shape of the result, for
3 the outer shape must be the result's own, without relying on the inner one.
"""

from __future__ import annotations

from ...ir.node import Node
from ...ir.ops import BROADCASTING
from .broadcast import fits_into, same
from .rewriter import Rewriter, Rule


def _no_op(node: Node, rewriter: Rewriter) -> bool:
    source = node.inputs[0]
    if source is None:
        return False
    wanted = rewriter.ints(node.input(1))
    adds_nothing = wanted is not None and all(d == 1 for d in wanted) and fits_into(wanted, source.shape)
    if not adds_nothing and not same(source.shape, node.output.shape):
        return False
    return rewriter.bypass(node, source)


def _operand(node: Node, rewriter: Rewriter) -> bool:
    if len(node.inputs) != 2:
        return False
    for index in (0, 1):
        expand, other = rewriter.made_by(node, index, "Expand"), node.inputs[1 - index]
        if expand is None or other is None or expand.inputs[0] is None:
            continue
        if same(other.shape, node.output.shape) and fits_into(expand.inputs[0].shape, other.shape):
            rewriter.set_input(node, index, expand.inputs[0])
            rewriter.touch(node, expand)
            return True
    return False


def _chain(node: Node, rewriter: Rewriter) -> bool:
    inner, wanted = rewriter.made_only_for(node, 0, "Expand"), rewriter.ints(node.input(1))
    if inner is None or wanted is None or inner.inputs[0] is None or node.output.shape != wanted:
        return False
    rewriter.set_input(node, 0, inner.inputs[0])
    rewriter.touch(node, inner)
    return True


RULES = (
    Rule("expand-no-op", ("Expand",), _no_op),
    Rule("expand-operand", tuple(sorted(BROADCASTING)), _operand),
    Rule("expand-chain", ("Expand",), _chain),
)
