"""Chains of Transposes.

    Transpose<q>(Transpose<p>(x))   ->   Transpose<p[q]>(x)

Exact: both only move elements. Output axis i of the outer is axis q[i] of the inner's output, which is axis p[q[i]] of
x. A result in the given order is x itself. Does not fire where a permutation is left to its default and the rank is
unknown, nor where others read the value in between and the result is not x: nothing would be saved.
"""

from __future__ import annotations

from ...ir.node import Node
from .rewriter import Rewriter, Rule


def permutation(node: Node) -> tuple[int, ...] | None:
    """The `perm` of a Transpose, reversed axes where it is left out; `None` where that needs an unknown rank."""
    perm = node.get_ints("perm")
    if perm:
        return perm
    for value in (node.inputs[0], node.output):
        if value is not None and value.shape is not None:
            return tuple(range(len(value.shape)))[::-1]
    return None


def _rewrite(node: Node, rewriter: Rewriter) -> bool:
    inner = rewriter.made_by(node, 0, "Transpose")
    if inner is None:
        return False
    first, second = permutation(inner), permutation(node)
    if first is None or second is None or len(first) != len(second):
        return False
    perm, source = [first[i] for i in second], inner.inputs[0]
    if perm == sorted(perm) and source is not None:
        return rewriter.bypass(node, source)
    if len(inner.output.uses) > 1:
        return False
    node.set_attribute("perm", perm)
    rewriter.set_input(node, 0, source)
    rewriter.touch(node, inner)
    return True


RULE = Rule("transpose-chain", ("Transpose",), _rewrite)
