"""The `clean` pass: everything that can go without changing an answer.

Calls of the model's own functions give way to the nodes of these. Constants are folded, dead nodes and unread constants
removed, equal nodes merged, and the rules of this folder run on a worklist until none of them fires; then shapes are
inferred anew and the round is repeated while it still found something. Every rule says in its own file what it
rewrites, why that is exact, and when it does not fire.

Nodes whose name another has get a new one, which most runtimes ask for.

Kept as they are: names, types and dynamic axes of the model's inputs and outputs (unread inputs included), nodes of
other domains, random nodes, overridable inputs, and function parameters. The type of an intermediate value that the
model does not record is not recorded afterwards either, lest the file grow; passes infer what they need. Models of
operator sets before 7, whose arithmetic broadcasts by other rules, only lose what is dead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..base import Pass, Report, option

if TYPE_CHECKING:
    from ...ir.graph import Graph, Output
    from ...ir.node import Value
    from ...ir.types import Type
    from ..base import Context

_OLDEST = 7
_ROUNDS = 16
"""More rounds than any model seen has needed; a bound, so that two rules that undo each other cannot run forever."""


@dataclass(frozen=True, slots=True)
class Clean(Pass):
    """Fold, merge and remove whatever changes no answer."""

    name: ClassVar[str] = "clean"
    lossy: ClassVar[bool] = False

    traces: bool = option(False, "keep what an exporter noted of its source code on nodes (stack traces, scopes)")

    def run(self, graph: Graph, ctx: Context) -> Report:
        """Clean `graph` and its functions in place; the report counts the rewrites of each rule."""
        from .inline import inline_functions
        from .trace import forget_traces

        report = Report()
        inline_functions(graph, report)
        for each in (graph, *(function.graph for function in graph.functions.values())):
            recorded: dict[Value, Type | None] = {v: v.type for v in _made(each) if v.type is not None}
            bodies = [inner for inner in each.graphs() if inner is not each]
            interface: list[Value | Output] = [value for inner in bodies for value in inner.inputs]
            interface += [output for inner in bodies for output in inner.outputs]
            declared = [item.type for item in interface]
            clean(each, report, recorded)
            for value in _made(each):
                value.type = recorded.get(value)
            for item, type in zip(interface, declared):
                item.type = type
            report.rewrote("node-name", _tell_apart(each))
            if not self.traces:
                report.rewrote("trace", forget_traces(each))
        return report


def _tell_apart(graph: Graph) -> int:
    """Give nodes whose name another has a new one: runtimes refuse two of one name, and reports go by it."""
    from ...ir.names import second_names

    names = {node: name for inner in graph.graphs() for node, name in second_names(inner).items()}
    for node, name in names.items():
        node.name = name
    return len(names)


def _constants(graph: Graph) -> int:
    return sum(len(each.constants) for each in graph.graphs())


def _made(graph: Graph) -> Iterator[Value]:
    """The values that nodes make."""
    return (value for node in graph.walk() for value in node.outputs)


def clean(graph: Graph, report: Report, recorded: dict[Value, Type | None]) -> None:
    """Clean one graph with its bodies, and add the rewrites to `report`; leaves inferred types on the values."""
    from ...ir.allowance import Effort, TooLarge
    from . import duplicate, fold, known
    from .rewriter import Rewriter, is_plain
    from .rules import by_op

    stored = _constants(graph)
    report.rewrote("dead", graph.sweep())
    report.rewrote("dead", stored - _constants(graph))
    if graph.opset() < _OLDEST:
        if graph.opset():
            report.notes.append(f"operator set {graph.opset()}: only dead nodes were removed; the rules need {_OLDEST}")
        return
    table = by_op()
    report.rewrote("fold", fold.constants(graph))
    # Before each of them is folded to a constant of its own.
    report.rewrote("duplicate", duplicate.merge_nodes(graph, of_constants=True))
    effort = Effort.of(graph)
    for _ in range(_ROUNDS):
        before = sum(report.rewrites.values())
        effort.bytes = Effort.of(graph).bytes  # what a round computed is gone with it
        rewriter = Rewriter(graph, recorded, effort)
        report.rewrote("fold", fold.fold(rewriter, known.integers(graph)))
        rewriter.push(graph.walk())
        for node in rewriter.drain():
            for rule in table.get(node.op, ()) if is_plain(node) else ():
                if node.graph is None:
                    break
                with contextlib.suppress(TooLarge):  # raised by what it computes, before it edits
                    if rule.rewrite(node, rewriter):
                        report.rewrote(rule.name)
        report.rewrote("duplicate", duplicate.merge_nodes(graph))
        report.rewrote("dead", graph.sweep())
        if sum(report.rewrites.values()) == before:
            break
    report.rewrote("duplicate-constant", duplicate.merge_constants(graph))
    graph.sort()
