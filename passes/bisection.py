"""Which layers break a pass: found, and kept as they were, before the pass is undone as a whole.

A pass that loses too much mostly loses it in a few layers: a logarithm behind one of them, a range that no grid fits.
Layers are tried in a copy of the model as it was before the pass, into which what the pass made of some of them is
grafted: of each layer the nodes from the values that both models have, by name and shape, up to its answer. So a trial
is a run of the model, not of the pass. For the trials the pass runs once more, without repairs (`Context.repairs`):
behind layers that lost nearly all, weights that make up for it are others altogether, and would be blamed where those
layers are as they were. Values of one name must hold the same numbers but for what the pass lost: a pass
that scales channels first gives the model that it made so (`Context.rewritten`).

Layers are weighed by halving: a group whose layers together keep the floor is done with; any other is split, down to
single layers, by the loss at the outputs. In the order of their losses the fewest are then sought without which the
rest keeps the floor. One at a time, the heaviest first, layers are given back to the pass where the floor holds without
them: a layer that loses much alone may lose nothing beside others. With the rest kept the pass runs anew: in the form
that computes in float, where there is one.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from ..ir.clone import clone, copy_nodes
from ..ir.graph import Graph, Node, Value
from ..runtime.agreement_text import percent
from .base import Context, Layer, Outcome, Override, Pass, Report
from .pipeline import spec

if TYPE_CHECKING:
    from ..runtime.agreement import Agreement

SAMPLES = 24
GIVEN_BACK = 12
"""Layers that are tried to be given back, at most."""
MOST = 0.9
"""The share of a pass's layers that may be kept; beyond it the pass is not worth having."""


@dataclass(frozen=True, slots=True)
class Breaking:
    """A layer to keep, by its name, and the agreement that it alone leaves."""

    name: str
    share: float


def breaking(
    before: Graph, after: Graph, report: Report, ctx: Context, floor: float
) -> tuple[list[Breaking], list[Breaking]]:
    """The fewest layers of those done in `report` without which the rest keeps `floor`, and all of them, worst first.

    The former are none where more than `MOST` of the layers would be kept, or nothing is known of single ones.
    """
    trials = _Trials(before, after, report, ctx)
    if len(trials.names) < 2:
        return [], []
    weighed: dict[str, tuple[float, float]] = {}

    def weigh(names: Sequence[str]) -> None:
        agreement = trials.of(names)
        if len(names) == 1 or agreement.share >= floor + (1 - floor) / 2:
            weighed.update(dict.fromkeys(names, (trials.loss(agreement) / len(names), agreement.share)))
            return
        weigh(names[: len(names) // 2])
        weigh(names[len(names) // 2 :])

    with ctx.progress.task("looking for the layers that break it"):
        half = len(trials.names) // 2
        for part in (trials.names[:half], trials.names[half:]):
            weigh(part)
        order = sorted(trials.names, key=lambda name: -weighed[name][0])
        low, high = 1, max(1, int(MOST * len(order)))
        if not trials.of(order[high:]).share >= floor:
            return [], []
        while low < high:
            middle = (low + high) // 2
            if trials.of(order[middle:]).share >= floor:
                high = middle
            else:
                low = middle + 1
        kept = _without_spare(trials, order, high, floor)
    breaking = [Breaking(name, weighed[name][1]) for name in order]
    return [one for one in breaking if one.name in kept], breaking


def _without_spare(trials: _Trials, order: Sequence[str], count: int, floor: float) -> list[str]:
    """Of the first `count` layers in `order`, those without which the floor does not hold."""
    kept = list(order[:count])
    for name in sorted(kept, key=lambda name: -trials.weight(name))[:GIVEN_BACK]:
        fewer = [other for other in kept if other != name]
        if fewer and trials.of([other for other in order if other not in fewer]).share >= floor:
            kept = fewer
    return kept


def keeping(ctx: Context, one: Pass, layers: Sequence[Breaking], form: Pass | None = None) -> Context:
    """What the pass is given so that it leaves `layers` as they are, or gives them the options of `form`."""
    options = {} if form is None else {
        field.name: getattr(form, field.name)
        for field in fields(form)
        if getattr(form, field.name) != getattr(one, field.name)
    }  # fmt: skip
    wishes = tuple(
        Override(match=glob.escape(layer.name), passes={one.name: options})
        if form is not None
        else Override(match=glob.escape(layer.name), skips=(one.name,))
        for layer in layers
    )
    return replace(ctx, overrides=(*ctx.overrides, *wishes))


def tell(report: Report, layers: Sequence[Breaking], reason: str, form: Pass | None = None) -> None:
    """Say in `report` which layers were kept, or have another `form`, and why: `reason` is what the whole pass would
    have come to."""
    kept = {layer.name: layer for layer in layers}
    report.layers = [
        Layer(layer.name, layer.op, Outcome.REVERTED, _why(kept[layer.name]), layer.detail)
        if layer.name in kept and layer.outcome is Outcome.SKIPPED
        else layer
        for layer in report.layers
    ]
    listed = ", ".join(f"'{layer.name}' ({percent(layer.share)})" for layer in layers[:8])
    more = f" and {len(layers) - 8} more" if len(layers) > 8 else ""
    how = "as they were" if form is None else f"in the form of {spec(form)}"
    report.notes.append(f"kept {len(layers)} layer(s) {how}, since {reason}: {listed}{more}")


def _why(layer: Breaking) -> str:
    return f"kept as it was: this layer alone leaves an agreement of {percent(layer.share)}"


class _Trials:
    """The model before a pass with what the pass made of some layers; `names` are those that can be tried so."""

    def __init__(self, before: Graph, after: Graph, report: Report, ctx: Context) -> None:
        from ..runtime.session import Session

        assert ctx.held_out is not None
        assert ctx.teacher is not None
        self._before, self._after, self._ctx = before, after, ctx
        self._samples = ctx.held_out.take(SAMPLES, ctx.seed)
        self._teacher = Session(ctx.teacher, threads=ctx.threads)
        self._there = _by_name(after)
        self._here = _by_name(before)
        done = {layer.name for layer in report.layers if layer.outcome is Outcome.DONE}
        named = {node.name or node.outputs[0].name: node for node in before if node.outputs}
        self._nodes = {
            name: node for name, node in named.items() if name in done and self._counterpart(node.output) is not None
        }
        self.names = list(self._nodes)

    def of(self, names: Sequence[str]) -> Agreement:
        """The agreement with the teacher where the pass changed the layers `names` alone."""
        from ..runtime.agreement import agreement

        trial = self._grafted(names)
        return agreement(self._teacher, trial, self._samples, threads=self._ctx.threads, exact=self._ctx.exact)

    def weight(self, name: str) -> int:
        """Bytes of what the layer is made of."""
        return sum(v.constant.nbytes for v in self._nodes[name].inputs if v is not None and v.constant is not None)

    @staticmethod
    def loss(agreement: Agreement) -> float:
        return sum(output.loss + (1.0 - output.share) for output in agreement.compared)

    def _counterpart(self, value: Value) -> Value | None:
        """What the readers of `value` read in the model after the pass, or `None`."""
        other = self._there.get(value.name)
        if other is None or self._here.get(value.name) is not value or not _alike(value, other):
            return None
        for user in other.users:
            if user.op == "QuantizeLinear":
                return next((u.output for u in user.output.users if u.op == "DequantizeLinear"), other)
        return other

    def _grafted(self, names: Sequence[str]) -> Graph:
        twins: dict[Value, Value] = {}
        trial = clone(self._before, twins)
        grafts: list[tuple[Value, Value]] = []
        for name in names:
            value = self._nodes[name].output
            end = self._counterpart(value)
            assert end is not None
            cone, reads = self._cone(end, value)
            copies = {inner: twins[outer] for inner, outer in reads.items()}
            copy_nodes(self._after, cone, trial, copies)
            if end in copies:
                grafts.append((twins[value], copies[end]))
        for old, new in grafts:
            old.replace_uses(new)
        trial.sweep()
        trial.sort()
        return trial

    def _cone(self, end: Value, value: Value) -> tuple[list[Node], dict[Value, Value]]:
        """The nodes of the model after the pass that make `end`, in order, and what they read of the model before."""
        cone: set[Node] = set()
        reads: dict[Value, Value] = {}
        stack = [end]
        while stack:
            at = stack.pop()
            here = self._here.get(at.name)
            if here is not None and here is not value and self._there.get(at.name) is at and _alike(here, at):
                reads[at] = here
            elif at.producer is not None and at.producer not in cone:
                cone.add(at.producer)
                stack += [v for v in at.producer.inputs if v is not None and v.constant is None]
        return [node for node in self._after if node in cone], reads


def _alike(one: Value, other: Value) -> bool:
    return one.dtype is other.dtype and one.shape == other.shape


def _by_name(graph: Graph) -> dict[str, Value]:
    """The values by their names, those left out that share one."""
    by_name: dict[str, Value | None] = {}
    for value in (*graph.inputs, *(v for node in graph for v in node.outputs)):
        by_name[value.name] = None if value.name in by_name or not value.name else value
    return {name: value for name, value in by_name.items() if value is not None}
