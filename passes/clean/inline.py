"""Calls of the model's own functions.

    f(x, y)   ->   the nodes of the function, with the call's inputs and attributes in their places

Exact: it is what a call means. Passes look for layers in the model's graph and would find none in a function. Does not
fire where the function was written for another version of an operator set than the model, where it returns an input
that the call leaves out, nor where more nodes would come out than a multiple of those that the model holds: then the
function stays, and a note says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ...ir.calls import Calls, most_nodes
from ...ir.clone import inline
from ...ir.graph import Function, FunctionKey, Graph, Value
from ...ir.instantiate import instantiate
from ...ir.node import Node
from ...ir.origin import Origin
from ...ir.verify.verify import verify
from ..base import Report


def inline_functions(graph: Graph, report: Report) -> None:
    """Replace the calls in `graph` and its bodies, and drop the functions that nothing calls any more.

    Raises `ModelError` where a call leaves out what a node of its function needs.
    """
    functions = graph.functions
    reasons: dict[FunctionKey, str] = {}
    sizes, left = Calls.of(graph).nodes, most_nodes(graph)
    calls = deque(node for node in graph.walk() if _key(node) in functions)
    while calls:
        call = calls.popleft()
        why = _foreign(functions[_key(call)], graph)
        if sizes[_key(call)] > left:
            why = f"its calls stand for {sizes[_key(call)]} nodes"
        inlined = None if why else _replace(call, functions[_key(call)])
        if inlined is None:
            reasons[_key(call)] = why or "it returns an input that a call leaves out"
            continue
        left -= len(inlined)
        report.rewrote("inline")
        calls.extend(node for node in inlined if _key(node) in functions)
    if functions:
        report.rewrote("dead", _forget(graph))
        verify(graph)
    for key, why in reasons.items():
        report.notes.append(f"function '{key[1]}' stays one, and no pass looks for layers in it: {why}")


def _key(node: Node) -> FunctionKey:
    return node.domain, node.op, node.overload


def _foreign(function: Function, model: Graph) -> str:
    """Why the nodes of a function would mean something else in the model; empty where they do not."""
    for domain in dict.fromkeys(node.domain for node in function.graph.walk()):
        ours, theirs = model.opsets.get(domain), function.graph.opsets.get(domain, 0)
        if ours not in (None, theirs):
            return f"it was written for version {theirs} of {domain or 'ai.onnx'}, and the model for {ours}"
    return ""


def _replace(call: Node, function: Function) -> list[Node] | None:
    """Put the function's nodes in the place of a call; returns all of them, those of bodies too."""
    graph, values = call.graph, dict[Value, Value]()
    assert graph is not None
    body = instantiate(function, call)
    for index, value in enumerate(body.inputs):
        argument = call.input(index)
        if argument is not None:
            values[value] = argument
        elif value.is_output:
            return None
        else:
            for user, place in tuple(value.uses):
                assert isinstance(user, Node)
                user.set_input(place, None)
    for node in body.walk():
        graph.root.opsets.setdefault(node.domain, function.graph.opsets.get(node.domain, 0))
    nodes = inline(body, values, call)
    copies = [*nodes, *(inner for node in nodes for each in node.bodies for inner in each.walk())]
    for node in copies:
        node.origin = Origin.merge((call.origin,), by="clean")
    for node in nodes:
        for value in node.outputs:
            value.type = None  # names of sizes in a function are not the model's
    here = set(nodes)
    for old, output in zip(call.outputs, body.outputs):
        new = values[output.value]
        if new.producer in here:
            new.name, new.type = old.name or new.name, old.type
        old.replace_uses(new)
    graph.remove(call)
    return copies


def _forget(graph: Graph) -> int:
    """Drop the functions that nothing calls, and the operator sets that only they were of; returns how many."""
    kept: set[FunctionKey] = set()
    todo: list[Iterable[Node]] = [graph.walk()]
    domains = {""}
    while todo:
        for node in todo.pop():
            key = _key(node)
            domains.add(node.domain)
            if key in graph.functions and key not in kept:
                kept.add(key)
                todo.append(graph.functions[key].graph.walk())
    dropped = [key for key in graph.functions if key not in kept]
    for key in dropped:
        del graph.functions[key]
        if key[0] not in domains:
            graph.opsets.pop(key[0], None)
    return len(dropped)
