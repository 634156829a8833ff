"""If with a constant condition.

    If<then, else>(constant)   ->   the nodes of the branch that is taken

Exact: the other branch never runs. Does not fire where the condition is not a constant of one element, or where a
branch is a function's parameter. The nodes of the branch read what they captured directly, and are renamed where the
graph has a node of their name.
"""

from __future__ import annotations

from ...ir.clone import inline
from ...ir.graph import Graph
from ...ir.node import Node, Value
from .rewriter import Rewriter, Rule


def _rewrite(node: Node, rewriter: Rewriter) -> bool:
    condition = rewriter.array(node.input(0))
    graph = node.graph
    if condition is None or condition.size != 1 or graph is None:
        return False
    taken = node.attributes.get("then_branch" if condition.reshape(()) else "else_branch")
    if taken is None or not isinstance(taken.value, Graph):
        return False
    body, values = taken.value, dict[Value, Value]()
    inline(body, values, node)
    for value, output in zip(node.outputs, body.outputs, strict=True):
        result = values.get(output.value, output.value)
        if result.type is None:
            result.type = value.type
        rewriter.push(value.users)
        value.replace_uses(result)
    rewriter.push(v.producer for v in values.values() if v.producer is not None)
    rewriter.drop(node)
    return True


RULE = Rule("if-constant", ("If",), _rewrite)
