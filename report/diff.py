"""What differs between two forms of a model: nodes, operators, weights, cost, answers; as values, and as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from ..ir.cost import cost
from ..ir.graph import Graph
from ..runtime.agreement import Agreement
from .amount import size_rows
from .build import Size, agreement_dict
from .changes import Change, changes, op_text
from .layers import type_text
from .shown import shown
from .tables import notes, table
from .terminal import agreement_lines

SCHEMA = "optc.diff/1"


@dataclass(frozen=True, slots=True)
class Diff:
    """Two models. `ops` maps an operator to how many of it each model has; `agreement` is `None` where the two were not
    run side by side, and `reason` then says why; `notes` are on the samples they were run on."""

    names: tuple[str, str]
    sizes: tuple[Size, Size]
    opsets: tuple[dict[str, int], dict[str, int]]
    ports: tuple[tuple[str, ...], tuple[str, ...]]
    ops: dict[str, tuple[int, int]]
    changes: tuple[Change, ...]
    same: int
    agreement: Agreement | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether anything in the files does: nodes, weights, inputs and outputs, opsets."""
        return bool(self.changes) or self.ports[0] != self.ports[1] or self.opsets[0] != self.opsets[1]


def diff(first: Graph, second: Graph, names: tuple[str, str], dims: Mapping[str, int] | None = None) -> Diff:
    """Compare two graphs without running them; every weight is read. Raises `ModelError` where inference does."""
    counts = [Counter(op_text(node) for node in graph.walk()) for graph in (first, second)]
    ops = {op: (counts[0][op], counts[1][op]) for op in sorted(counts[0] | counts[1])}
    changed, same = changes(first, second)
    return Diff(
        names,
        (_size(first, dims), _size(second, dims)),
        (_opsets(first), _opsets(second)),
        (_ports(first), _ports(second)),
        ops,
        changed,
        same,
    )


def _size(graph: Graph, dims: Mapping[str, int] | None) -> Size:
    whole = cost(graph, dims)
    return Size(whole.bytes, whole.params, whole.macs, sum(1 for _ in graph.walk()))


def _opsets(graph: Graph) -> dict[str, int]:
    return {domain or "ai.onnx": version for domain, version in sorted(graph.opsets.items())}


def _ports(graph: Graph) -> tuple[str, ...]:
    inputs = [f"input {value.name} {type_text(value.type)}" for value in graph.inputs]
    return (*inputs, *(f"output {output.name} {type_text(output.type)}" for output in graph.outputs))


def as_dict(difference: Diff) -> dict[str, Any]:
    """The comparison as plain values, for JSON."""
    agreement = difference.agreement
    return {
        "schema": SCHEMA,
        "models": list(difference.names),
        "sizes": [asdict(size) for size in difference.sizes],
        "opsets": list(difference.opsets),
        "ports": [list(ports) for ports in difference.ports],
        "ops": {op: list(counts) for op, counts in difference.ops.items()},
        "same": difference.same,
        "differs": difference.differs,
        "changes": [asdict(change) for change in difference.changes],
        "agreement": None if agreement is None else agreement_dict(agreement),
        "reason": difference.reason,
        "notes": list(difference.notes),
    }


def render(difference: Diff, top: int) -> RenderableType:
    """The comparison for a terminal; `top` is how many nodes of each kind of change to show."""
    parts: list[RenderableType] = [_totals(difference)]
    gone, new = ([port for port in difference.ports[i] if port not in difference.ports[1 - i]] for i in (0, 1))
    parts += [f"[red]- {shown(port)}[/]" for port in gone] + [f"[green]+ {shown(port)}[/]" for port in new]
    if difference.agreement is None:
        parts.append(f"not run side by side: {shown(difference.reason)}")
    parts += notes(difference.notes)
    parts += [] if difference.agreement is None else agreement_lines(difference.agreement)
    ops = {op: (a, b) for op, (a, b) in difference.ops.items() if a != b}
    if ops:
        parts.append("\noperators  " + "  ".join(f"{shown(op)} {a} -> {b}" for op, (a, b) in ops.items()))
    counts = Counter(change.kind for change in difference.changes)
    parts.append(
        f"\nnodes  {difference.same} the same" + "".join(f", {n} {kind}" for kind, n in sorted(counts.items()))
    )
    for kind in ("changed", "removed", "added"):
        ones = [change for change in difference.changes if change.kind == kind]
        if ones[:top]:
            parts.append(_table(kind, ones[:top]))
        if top < len(ones):
            parts.append(f"... and {len(ones) - top} more {kind}")
    return Group(*parts)


def _totals(difference: Diff) -> Table:
    totals = table("")
    for name in difference.names:
        totals.add_column(shown(name), justify="right", overflow="fold")
    totals.add_column("ratio", justify="right")
    for row in size_rows(*difference.sizes, "weights"):
        totals.add_row(*row)
    opsets = (", ".join(f"{domain} {version}" for domain, version in one.items()) for one in difference.opsets)
    totals.add_row("opset", *map(shown, opsets))
    return totals


def _table(kind: str, ones: Iterable[Change]) -> Table:
    nodes = table("node", "operator", "weights", "by", title=f"\n{kind}")
    for one in ones:
        before, after = " ".join(one.before), " ".join(one.after)
        ops = before if before == after else " -> ".join(part for part in (before, after) if part)
        old, new = (", ".join(w.text for w in weights) for weights in (one.old, one.new))
        weights = " -> ".join(part for part in (old, new) if part)
        nodes.add_row(shown(one.name), shown(ops), shown(weights), shown(", ".join(one.passes)))
    return nodes
