"""Replacements as edits of the structure: each block has one, of the form that loses least for what it saves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...errors import DataError
from ...ir.clone import copy_nodes
from ...ir.graph import Graph, Node, Value
from ...ir.origin import Origin
from ...ir.types import DType, TensorType
from ..base import Context, Detail, Report, Skip
from ..structure.apart import apart, share_left
from ..structure.edit import Edit, Kind
from ..structure.saving import Saving
from .forms import FORMS, fitted
from .places import Place, place_from, places
from .samples import Taken, taken
from .training import trained

if TYPE_CHECKING:
    from .replace import Replace

BEST = 0.98
"""The largest share of a block's cost that what stands for it may have."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What stands for a block: `body` reads "x" and answers as the block did, but for `error` of the variance; it takes
    the share `left` of the block's cost, if anything was asked about that."""

    begin: str
    form: str
    body: Graph
    error: float
    left: float


@dataclass(frozen=True, slots=True, eq=False)
class Replacement(Edit):
    """`fitted` goes to the `place`."""

    place: Place
    fitted: Fitted

    def apply(self, graph: Graph) -> frozenset[str]:
        place, body = self.place, self.fitted.body
        node = self.node
        label, name, kind = node.name, self.out.name, self.out.type
        origin = Origin.merge([one.origin for one in place.nodes], by="replace")
        copies: dict[Value, Value] = {body.inputs[0]: place.begin}
        nodes = copy_nodes(body, body, graph, copies, before=node)
        for number, one in enumerate(nodes):
            one.name = f"{label}.{number}" if label else ""
            one.origin = origin
            one.output.name = f"{name}.{number}"
        answer = nodes[-1].output
        self.out.replace_uses(answer)
        answer.name, answer.type = name, kind
        graph.sweep()
        return frozenset({name})


class Replacements(Kind):
    """The blocks of a graph, each with what was fitted for it; the others are told in a `report`."""

    verb = "replacing saved"
    none = "no convolutions follow each other that another block could stand for"
    worth = 0.005

    def __init__(self, one: Replace, graph: Graph, ctx: Context, report: Report) -> None:
        self._one, self._ctx = one, ctx
        self._fitted: list[Fitted] = []
        self._numbers: dict[str, int] = {}
        self._saving = Saving.in_graph(graph, ctx, one.of)
        self._fit_all(graph, report)

    def _fit_all(self, graph: Graph, report: Report) -> None:
        """Fit something for each block; for those alone that must go, where nothing else does."""
        wanted: dict[Place, Replace] = {}
        for place in places(graph):
            node = place.layers[-1].node
            try:
                wanted[place] = self._options(place)
            except Skip as skip:
                report.skipped(node.label, node.op, skip.reason)
        if self._one.ratio == 0.0 or any(options.force for options in wanted.values()):
            wanted = {place: options for place, options in wanted.items() if options.force}
        with self._ctx.progress.task("blocks of another kind", len(wanted)) as tick:
            for place, options in wanted.items():
                node = place.layers[-1].node
                try:
                    best = self._best(graph, place, options)
                except Skip as skip:
                    report.skipped(node.label, node.op, skip.reason)
                except DataError as error:
                    report.skipped(node.label, node.op, str(error))
                else:
                    self._numbers[place.end.name] = len(self._fitted)
                    self._fitted.append(best)
                tick(1)

    def edits(self, graph: Graph) -> list[Edit]:
        each = (
            self.at(node, self._numbers[node.output.name])
            for node in graph
            if len(node.outputs) == 1 and node.output.name in self._numbers
        )
        return [edit for edit in each if edit is not None]

    def at(self, node: Node, number: int) -> Replacement | None:
        best = self._fitted[number]
        place = place_from(best.begin, node)
        return None if place is None else Replacement(number, place.end, place.nodes, place, best)

    def left(self, graph: Graph, name: str, edit: Edit, ctx: Context, of: str) -> float:
        return self._fitted[edit.number].left

    def details(self, edit: Edit) -> dict[str, Detail]:
        best = self._fitted[edit.number]
        return {**super().details(edit), "form": best.form, "error": round(best.error, 4), "left": round(best.left, 4)}

    def _options(self, place: Place) -> Replace:
        for node in place.nodes:
            self._ctx.options(self._one, node)
        return self._ctx.options(self._one, place.layers[-1].node)

    def _best(self, graph: Graph, place: Place, options: Replace) -> Fitted:
        """The form of least error for what it saves. Raises `Skip` where none saves anything."""
        ctx = self._ctx
        pairs = taken(graph, place.begin, place.end, ctx)
        best: Fitted | None = None
        reason = ""
        for form in FORMS if options.form == "auto" else (options.form,):
            try:
                one = self._fit(form, place, pairs, options)
            except Skip as skip:
                reason = reason or skip.reason
                continue
            if one.left > BEST and not options.force:
                reason = f"what would stand for it takes {one.left:.2f} times as much {self._saving.of}"
                continue
            if best is None or _price(one) < _price(best):
                best = one
        if best is None:
            raise Skip(reason)
        return best

    def _fit(self, form: str, place: Place, pairs: Taken, options: Replace) -> Fitted:
        body = fitted(form, place, pairs, options, self._ctx)
        one = Fitted(place.begin.name, form, body, 0.0, 0.0)
        node = place.layers[-1].node
        shape = (1, *pairs.read[0].shape[1:])
        graphs = apart(
            Replacement(0, place.end, place.nodes, place, one),
            place.begin,
            TensorType(DType.FLOAT, shape),
            lambda twin: _standing(twin, one),
        )
        left = share_left(graphs, shape, self._ctx, self._saving.of, f"time of '{node.label}' as {form}")
        if form == "inverted" and (left <= BEST or options.force):
            trained(body, pairs, options.steps, self._ctx)
        return replace(one, error=pairs.error(body, self._ctx.threads), left=left)


def _standing(node: Node, one: Fitted) -> Replacement | None:
    """The replacement in a graph of the block alone."""
    place = place_from("x", node)
    return None if place is None else Replacement(0, place.end, place.nodes, place, one)


def _price(one: Fitted) -> float:
    return one.error / max(1.0 - one.left, 1e-3)
