"""The driver of passes that edit the structure: what may be edited, what is, in what order, and what is told of it.

What is edited in the end is edited in the model as it came in, and one walk over all layers behind the first edit
repairs what is left to repair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph, Node
from ...ir.tensor import Tensor
from ...runtime.agreement_text import percent
from ..base import Context, Detail, Outcome, Pass, Report, Skip
from ..walk.linear import FLOATS
from ..walk.mirror import NOTE, with_mirror_images
from ..walk.tolerance import safest
from ..walk.walk import thin_note
from .edit import Edit, EditKind
from .order import TriedEdits, in_order_of_price, words
from .repair import repair
from .saving import Saving

MOST = 0.35
"""The share of the cost that a pass left to its own choice tries to save."""
FINAL = 65536
"""Rows a layer for the last fit: what is compensated is large."""
FREE = 1e-7
"""A loss at which an edit is made however much was saved already: two linear layers become one without any."""


class Amount(Protocol):
    """The options that the driver reads."""

    @property
    def ratio(self) -> float | None: ...

    @property
    def of(self) -> str: ...


@dataclass(slots=True)
class Restructuring:
    """One run of the pass `one` with edits of a `kind`; `wants` says whether the options of a node ask for its edit."""

    one: Pass
    amount: Amount
    kind: EditKind
    wants: str
    ctx: Context
    report: Report

    def run(self, graph: Graph) -> Report:
        kind, ctx, report = self.kind, self.ctx, self.report
        forced, open_ = self._sorted(kind.named(graph))
        if not forced and not open_:
            if not report.layers:
                report.notes.append(kind.none)
            return report
        saving = Saving.in_graph(graph, ctx, self.amount.of)
        ratio = self.amount.ratio
        if forced or ratio == 0.0:
            self._carry_out(graph, {name: {} for name in forced}, report)
            return report
        left = {name: kind.left(graph, name, edit, ctx, saving.of) for name, edit in open_.items()}
        saved = {name: saving.share(edit.nodes) * (1.0 - left[name]) for name, edit in open_.items()}
        worth = {name: edit for name, edit in open_.items() if saved[name] >= kind.worth}
        nodes = {name: (edit.node, set(edit.nodes)) for name, edit in open_.items()}
        most, free = (MOST, FREE) if ratio is None else (ratio, 0.0)
        order = in_order_of_price(kind, graph, ctx, saving, worth, left, most, free=free)
        reason = "others lose less for what they save"
        unsafe = ""
        if not order:
            reason = "nothing tells what it would lose: answers are not finite"
        elif ratio is None:
            unsafe = self._as_many_as_are_safe(graph, saving, order)
        else:
            self._all(graph, saving, order, ratio)
        tried = {name for one in order for name in one.names}
        done = {layer.name for layer in report.layers if layer.outcome is Outcome.DONE}
        for name, (node, _) in nodes.items():
            if name in done:
                continue
            why = unsafe if name in tried else reason
            if name not in worth:
                why = _little(saved[name], left[name], kind.worth, saving.of)
            if any(node in nodes[other][1] for other in done):
                why = "it went with another one, that it lies in"
            report.skipped(name, node.op, why)
        return report

    def _sorted(self, named: Mapping[str, Edit]) -> tuple[dict[str, Edit], dict[str, Edit]]:
        """The edits that must be made, and those that may; the others are reported."""
        forced: dict[str, Edit] = {}
        open_: dict[str, Edit] = {}
        for name, edit in named.items():
            try:
                for node in edit.nodes:
                    self.ctx.options(self.one, node)
                wanted = getattr(self.ctx.options(self.one, edit.node), self.wants)
                _check_finite(edit)
            except Skip as skip:
                self.report.skipped(name, edit.node.op, skip.reason)
                continue
            (forced if wanted else open_)[name] = edit
        return forced, open_

    def _all(self, graph: Graph, saving: Saving, order: Sequence[TriedEdits], ratio: float) -> None:
        """Make all edits of `order`."""
        before = graph.clone()
        self._carry_out(graph, _figures(order), self.report)
        left = saving.left(before, graph, self.ctx, words(order))
        most = "no more than " if 1.0 - left < ratio else ""
        self.report.notes.append(f"{self.kind.verb} {most}{1.0 - left:.1%} of the {saving.of}")

    def _as_many_as_are_safe(self, graph: Graph, saving: Saving, order: Sequence[TriedEdits]) -> str:
        """Make the most edits of `order` that are safe; returns why not the rest of them."""

        def run(trial: Graph, count: float) -> Report:
            outcome = Report()
            self._carry_out(trial, _figures(order[: int(count)]), outcome)
            return outcome

        choice = safest(graph, self.ctx, range(len(order), 0, -1), run)
        if choice.amount is None:
            left = f"even the cheapest would leave an agreement of {percent(choice.share)}"
            return f"{left}, below {100 * choice.floor:.4g} %"
        self.report.layers += choice.report.layers
        saved = sum(one.saved for one in order[: int(choice.amount)])
        agreed = "" if choice.share is None else f", at an agreement of {percent(choice.share)}"
        self.report.notes += [*choice.report.notes, f"{self.kind.verb} {saved:.1%} of the {saving.of}{agreed}"]
        return "with it, too, the model would agree less than is safe"

    def _carry_out(self, graph: Graph, chosen: Mapping[str, Mapping[str, Detail]], report: Report) -> None:
        """Make the edits `chosen`, with what is told of each, in the order of `graph`, and repair what follows."""
        edits = {name: edit for name, edit in self.kind.named(graph).items() if name in chosen}
        planned = {name: (edit.node, edit.number, self.kind.details(edit)) for name, edit in edits.items()}
        touched: set[str] = set()
        for name, (node, number, details) in planned.items():
            edit = self.kind.at(node, number) if node.graph is not None else None
            if edit is not None:  # else another one left nothing of it
                touched |= edit.apply(graph)
            report.done(name, node.op, **details, **chosen[name])
        if not touched:
            return
        seen = with_mirror_images(self.ctx)
        if seen is not self.ctx:
            report.notes.append(NOTE)

        def kept(node: Node) -> str:
            return self.ctx.kept(self.one, node)

        if thin := repair(graph, seen, touched, FINAL, kept=kept):
            report.notes.append(thin_note(thin))


def _check_finite(edit: Edit) -> None:
    """Raises `Skip` where a weight of an edit is not finite: nothing tells what its answers are worth."""
    for node in edit.layers:
        for value in node.inputs:
            constant = None if value is None else value.constant
            if constant is not None and constant.dtype in FLOATS and not np.isfinite(_floats(constant)).all():
                raise Skip(f"the weight of '{node.label}' is not finite")


def _floats(constant: Tensor) -> NDArray[np.float32]:
    return np.asarray(constant.numpy(), np.float32)


def _little(saved: float, left: float, worth: float, of: str) -> str:
    if left >= 1.0:
        return f"what would stand for it takes {left:.2f} times as much {of}"
    return f"it saves {max(saved, 0.0):.1%} of the {of}, less than {worth:.1%}"


def _figures(order: Sequence[TriedEdits]) -> dict[str, dict[str, Detail]]:
    """What is told of each edit; of several that are made together the last has the figures."""
    figures: dict[str, dict[str, Detail]] = {}
    for one in order:
        figures |= {name: {"with": one.names[-1]} for name in one.names[:-1]}
        figures[one.names[-1]] = {"saved": round(one.saved, 4), "loss": round(one.loss, 6)}
    return figures
