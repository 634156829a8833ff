"""Replacements as edits of the structure: each block has one, of the form that loses least for what it saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import DataError
from ...ir.clone import copy_nodes
from ...ir.graph import Graph, Node, Value
from ...ir.origin import Origin
from ...ir.types import DType, TensorType
from ..base import Context, Detail, Report, Skip
from ..structure.apart import apart, share_left
from ..structure.edit import Edit, EditKind
from ..structure.saving import Saving
from .forms import FORMS, fitted
from .places import Place, outside, place_from, places
from .samples import Taken, taken
from .training import trained

if TYPE_CHECKING:
    from .replace import Replace

BEST = 0.98
"""The largest share of a block's cost that what stands for it may have."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What stands for a block between two values: `body` reads "x" and answers as the block did, but for `error` of the
    variance; it takes the share `left` of the block's cost."""

    begin: str
    end: str
    form: str
    body: Graph
    error: float
    left: float


@dataclass(frozen=True, slots=True, eq=False)
class BlockReplacement(Edit):
    """`fitted` goes to the `place`."""

    place: Place
    fitted: Fitted

    def apply(self, graph: Graph) -> frozenset[str]:
        place, body = self.place, self.fitted.body
        node = self.node
        label, name, kind = node.name, self.out.name, self.out.type
        origins = [one.origin for one in place.nodes]
        copies: dict[Value, Value] = {body.inputs[0]: place.begin}
        nodes = copy_nodes(body, body, graph, copies, before=node)
        for number, one in enumerate(nodes):
            one.name = f"{label}.{number}" if label else ""
            # What was asked of the block's last layer, whose channels others read, is asked of the last one alone.
            last = number == len(nodes) - 1
            one.origin = Origin.merge(
                origins if len(nodes) == 1 else origins[-1:] if last else origins[:-1], by="replace"
            )
            one.output.name = f"{name}.{number}"
        answer = nodes[-1].output
        self.out.replace_uses(answer)
        answer.name, answer.type = name, kind
        graph.sweep()
        return frozenset({name})


class Replacements(EditKind):
    """Blocks with what was `fitted` for them."""

    verb = "replacing saved"
    none = "no convolutions follow each other that another block could stand for"
    worth = 0.005

    def __init__(self, fitted: Sequence[Fitted]) -> None:
        self._fitted = fitted

    def edits(self, graph: Graph) -> list[Edit]:
        numbers = {one.end: number for number, one in enumerate(self._fitted)}
        each = (
            self.at(node, numbers[node.output.name])
            for node in graph
            if len(node.outputs) == 1 and node.output.name in numbers
        )
        return [edit for edit in each if edit is not None]

    def at(self, node: Node, number: int) -> BlockReplacement | None:
        one = self._fitted[number]
        place = place_from(one.begin, node)
        return None if place is None else BlockReplacement(number, place.end, place.nodes, place, one)

    def left(self, graph: Graph, name: str, edit: Edit, ctx: Context, of: str) -> float:
        return self._fitted[edit.number].left

    def details(self, edit: Edit) -> dict[str, Detail]:
        one = self._fitted[edit.number]
        return {**super().details(edit), "form": one.form, "error": round(one.error, 4), "left": round(one.left, 4)}


def replacements(one: Replace, graph: Graph, ctx: Context, report: Report) -> Replacements:
    """What fits each block of `graph` best; of those alone that must go, where nothing else does. The blocks that stay
    are told in `report`."""
    wanted: dict[Place, Replace] = {}
    every = places(graph)
    for place in every:
        node = place.node
        try:
            wanted[place] = own_options(one, place, ctx)
        except Skip as skip:
            report.skipped(node.label, node.op, skip.reason)
    if one.ratio == 0.0 or any(options.force for options in wanted.values()):
        wanted = {place: options for place, options in wanted.items() if options.force}
    else:
        for node, reason in outside(graph, every):
            report.skipped(node.label, node.op, reason)
    of = Saving.in_graph(graph, ctx, one.of).of if wanted else ""
    fitted: list[Fitted] = []
    with ctx.progress.task("blocks of another kind", len(wanted)) as tick:
        for place, options in wanted.items():
            try:
                fitted.append(_best(graph, place, options, ctx, of))
            except Skip as skip:
                report.skipped(place.node.label, place.node.op, skip.reason)
            except DataError as error:
                report.skipped(place.node.label, place.node.op, str(error))
            tick(1)
    return Replacements(fitted)


def own_options(one: Replace, place: Place, ctx: Context) -> Replace:
    """The options of a block, by the node that ends it. Raises `Skip` where any of its nodes is kept."""
    for node in place.nodes:
        ctx.options(one, node)
    return ctx.options(one, place.node)


def _best(graph: Graph, place: Place, options: Replace, ctx: Context, of: str) -> Fitted:
    """The form of least error for what it saves of a cost. Raises `Skip` where none saves anything."""
    pairs = taken(graph, place.begin, place.end, ctx)
    best: Fitted | None = None
    reason = ""
    for form in FORMS if options.form == "auto" else (options.form,):
        try:
            body = fitted(form, place, pairs, options, ctx)
        except Skip as skip:
            reason = reason or skip.reason
            continue
        left = cost_left(place, form, body, pairs, ctx, of)
        if left > BEST and not options.force:
            reason = f"what would stand for it takes {left:.2f} times as much {of}"
            continue
        one = finished(place, form, body, pairs, options, ctx, left)
        if best is None or _price(one) < _price(best):
            best = one
    if best is None:
        raise Skip(reason)
    return best


def cost_left(place: Place, form: str, body: Graph, pairs: Taken, ctx: Context, of: str) -> float:
    """The share of a block's cost that `body` in its place has."""
    one = Fitted("x", place.end.name, form, body, 0.0, 0.0)
    shape = (1, *pairs.read[0].shape[1:])

    def standing(node: Node) -> BlockReplacement | None:
        twin = place_from("x", node)
        return None if twin is None else BlockReplacement(0, twin.end, twin.nodes, twin, one)

    edit = BlockReplacement(0, place.end, place.nodes, place, one)
    graphs = apart(edit, place.begin, TensorType(DType.FLOAT, shape), standing)
    return share_left(graphs, shape, ctx, of, f"time of '{place.node.label}' as {_shapes(body)}")


def finished(place: Place, form: str, body: Graph, pairs: Taken, options: Replace, ctx: Context, left: float) -> Fitted:
    """`body` trained, where no closed form reaches it, with its error."""
    if form == "inverted":
        trained(body, pairs, options.steps, ctx)
    return Fitted(place.begin.name, place.end.name, form, body, pairs.error(body, ctx.threads), left)


def _price(one: Fitted) -> float:
    return one.error / max(1.0 - one.left, 1e-3)


def _shapes(body: Graph) -> str:
    """The weights of a form, which tell its time."""
    each = (node.inputs[1] for node in body if node.op == "Conv")
    return " ".join("x".join(map(str, weight.static_shape or ())) for weight in each if weight is not None)
