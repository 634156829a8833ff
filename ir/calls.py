"""How the functions of a model call each other: in how many levels, and how many nodes they stand for.

A file chooses both: functions that call the next one twice stand for 2^40 nodes after forty of them. What walks a model
does so level by level, so levels are few or the model is refused; what copies functions asks first how much comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import ModelError
from .graph import FunctionKey, Graph, Node

DEEPEST = 64
"""Levels of bodies and calls inside each other; exporters write a dozen."""
FEW = 50_000
"""Nodes that calls may stand for in any model."""


@dataclass(frozen=True, slots=True)
class Calls:
    """What each function of a model, and under `None` the model itself, stands for when all calls are followed."""

    nodes: dict[FunctionKey | None, int]

    @property
    def total(self) -> int:
        return self.nodes[None]

    @staticmethod
    def of(model: Graph) -> Calls:
        """Raises `ModelError` where functions call themselves, or bodies and calls are too many levels deep."""
        nodes: dict[FunctionKey | None, int] = {}
        levels: dict[FunctionKey | None, int] = {}
        for key in _callees_first(model):
            count = depth = 0
            for node, level in _inside(_graph(model, key)):
                callee = _key(node)
                count += nodes[callee] if callee in model.functions else 1
                depth = max(depth, level + (levels[callee] + 1 if callee in model.functions else 0))
            if depth > DEEPEST:
                where = "the graph" if key is None else f"function {key[1]!r}"
                raise ModelError(f"{where} holds bodies and calls in {depth} levels, more than {DEEPEST}; inline some")
            nodes[key], levels[key] = count, depth
        return Calls(nodes)


def most_nodes(model: Graph) -> int:
    """Nodes that calls may stand for in `model`: what it holds some times over, or few."""
    functions = sum(1 for one in model.functions.values() for _ in _inside(one.graph))
    return FEW + 8 * (functions + sum(1 for _ in _inside(model)))


def _callees_first(model: Graph) -> Iterator[FunctionKey | None]:
    """The functions that are called, each after those that it calls, and the model itself last."""
    done: set[FunctionKey | None] = set()
    open_calls: dict[FunctionKey | None, None] = {}
    pending: list[FunctionKey | None] = [None]
    while pending:
        key = pending[-1]
        if key in done:
            pending.pop()
            continue
        callees = [one for one in _called(_graph(model, key)) if one in model.functions and one not in done]
        if not callees:
            pending.pop()
            open_calls.pop(key, None)
            done.add(key)
            yield key
            continue
        open_calls[key] = None
        if any(one in open_calls for one in callees):
            name = next(one[1] for one in callees if one in open_calls)
            raise ModelError(f"function {name!r} calls itself, directly or through others, which ONNX does not allow")
        pending += callees


def _called(graph: Graph) -> dict[FunctionKey, None]:
    return dict.fromkeys(_key(node) for node, _ in _inside(graph))


def _inside(graph: Graph) -> Iterator[tuple[Node, int]]:
    """Every node of a graph and of its bodies, with the levels of bodies around it."""
    pending = [(graph, 0)]
    while pending:
        one, level = pending.pop()
        for node in one:
            yield node, level
            if node.attributes:
                pending += [(body, level + 1) for body in node.bodies]


def _graph(model: Graph, key: FunctionKey | None) -> Graph:
    return model if key is None else model.functions[key].graph


def _key(node: Node) -> FunctionKey:
    return node.domain, node.op, node.overload
