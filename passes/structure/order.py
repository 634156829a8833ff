"""In what order edits are made: each is tried, and the one that loses least for what it saves comes first.

An edit is made in a copy, the layers next to it are fitted by least squares to the teacher's answers as they stand
behind it, and samples that nothing was fitted to say what the model's answers have lost. Losses do not add up, but an
edit hardly becomes cheaper when another one is made: so of the rest only the first is tried anew, until it stays the
first (lazy evaluation of a greedy choice, Minoux 1978).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...ir.clone import clone
from ...ir.graph import Graph, Node, Value
from ...runtime.agreement import agreement
from ...runtime.session import Session
from ..base import Context
from .edit import Edit, EditKind
from .repair import repair
from .saving import Saving

TRIAL, FIT = 96, 256
"""Samples that judge an edit, and that its neighbours are fitted to."""
FEW = 8192
"""Rows a layer for the fit of the neighbours."""
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class TriedEdits:
    """Edits that are made together, one by the rule, with what they save, a share of the cost, and what the model's
    answers lose by them."""

    names: tuple[str, ...]
    saved: float
    loss: float

    @property
    def price(self) -> float:
        return max(self.loss, _LEAST) / max(self.saved, _LEAST)


@dataclass(slots=True)
class EditTrial:
    """A graph that is edited once and again: `at` are the edits' nodes with their numbers, `loss` is what its answers
    lack of the teacher's."""

    kind: EditKind
    graph: Graph
    at: dict[str, tuple[Node, int]]
    saving: Saving
    left: Mapping[str, float]
    loss: float = 0.0

    def edit(self, name: str) -> Edit | None:
        """The edit as it now is; `None` where another one left nothing of it."""
        if name not in self.at or self.at[name][0].graph is None:
            return None
        return self.kind.at(*self.at[name])

    def edited(self, several: Sequence[str], judge: EditJudge) -> EditTrial:
        """A copy with these edits, the layers next to them fitted and its answers judged."""
        copies: dict[Value, Value] = {}
        graph = clone(self.graph, copies)
        at = {}
        for other, (node, index) in self.at.items():
            twin = copies[node.output].producer if node.graph is not None else None
            if twin is not None:
                at[other] = twin, index
        trial = EditTrial(self.kind, graph, at, self.saving.carried(copies), self.left)
        touched: set[str] = set()
        for name in several:
            edit = trial.edit(name)
            if edit is None:  # the one before it left nothing
                continue
            touched |= edit.apply(graph)
            del trial.at[name]
        repair(graph, judge.ctx, touched, FEW, neighbours=True)
        trial.loss = judge.loss(graph)
        return trial


class EditJudge:
    """What graphs lose of the answers, on samples that their layers are not fitted to; `ctx` has those to fit on."""

    def __init__(self, graph: Graph, ctx: Context) -> None:
        assert ctx.fit is not None
        fit, self._samples = ctx.fit.split(max(min(TRIAL, ctx.fit.count // 4), 1), ctx.seed)
        self.ctx = replace(ctx, fit=fit.take(min(FIT, fit.count), ctx.seed))
        self._teacher = Session(ctx.teacher or graph.clone(), threads=ctx.threads)

    def loss(self, graph: Graph) -> float:
        agreed = agreement(self._teacher, graph, self._samples, threads=self.ctx.threads, exact=self.ctx.exact)
        loss = sum(output.loss for output in agreed.outputs)
        return loss if math.isfinite(loss) else math.inf


def in_order_of_price(
    kind: EditKind,
    graph: Graph,
    ctx: Context,
    saving: Saving,
    open_: Mapping[str, Edit],
    left: Mapping[str, float],
    share: float,
    *,
    free: float = 0.0,
) -> list[TriedEdits]:
    """The edits to make, first to make first, until `share` of the cost is gone, and then those that lose no more than
    `free`. `left` is what stands for the nodes of each, as a share of their cost. None are made where the answers are
    not finite as they are."""
    if not open_:
        return []
    judge = EditJudge(graph, ctx)
    trial = start(kind, graph, saving, open_, left, judge)
    if not math.isfinite(trial.loss):
        return []
    candidates: list[tuple[str, ...]] = [*((name,) for name in open_), *kind.together(dict(open_))]
    waiting: list[tuple[float, int, int]] = []
    gone: list[TriedEdits] = []
    ready: dict[int, tuple[EditTrial, TriedEdits]] = {}
    with ctx.progress.task("edits of the structure", len(candidates)) as tick:
        for number, several in enumerate(candidates):
            if (one := tried(trial, several, judge)) is not None:
                heapq.heappush(waiting, (one[1].price, number, 0))
            tick(1)
        total = 0.0
        while waiting and (total < share or free):
            _, number, when = heapq.heappop(waiting)
            if when < len(gone):  # it was tried when more was left
                if (again := tried(trial, candidates[number], judge)) is not None:
                    ready[number] = again
                    heapq.heappush(waiting, (again[1].price, number, len(gone)))
                continue
            best = ready.get(number) or tried(trial, candidates[number], judge)
            if best is None:
                continue
            if total >= share and best[1].loss > free:
                break
            trial, one_gone = best
            ready.clear()
            gone.append(one_gone)
            total += one_gone.saved
            if total >= share:
                total = 1.0 - saving.left(graph, trial.graph, ctx, words(gone))
    return gone


def start(
    kind: EditKind, graph: Graph, saving: Saving, open_: Mapping[str, Edit], left: Mapping[str, float], judge: EditJudge
) -> EditTrial:
    """A copy of `graph` that has lost nothing yet."""
    copies: dict[Value, Value] = {}
    twin = clone(graph, copies)
    at = {
        name: (producer, edit.number)
        for name, edit in open_.items()
        if (producer := copies[edit.out].producer) is not None
    }
    return EditTrial(kind, twin, at, saving.carried(copies), left, judge.loss(twin))


def tried(trial: EditTrial, several: Sequence[str], judge: EditJudge) -> tuple[EditTrial, TriedEdits] | None:
    """`trial` with these edits, and what that is worth; `None` where another one left nothing of them, or the answers
    are not finite with them."""
    parts = {name: trial.edit(name) for name in several}
    nodes: dict[Node, float] = {}
    for name, edit in parts.items():
        if edit is None:
            return None
        nodes |= dict.fromkeys(edit.nodes, 1.0 - trial.left.get(name, 0.0))
    after = trial.edited(several, judge)
    if not math.isfinite(after.loss):
        return None
    saved = sum(share * trial.saving.share([node]) for node, share in nodes.items())
    return after, TriedEdits(tuple(several), saved, max(after.loss - trial.loss, 0.0))


def words(order: Sequence[TriedEdits]) -> str:
    return " and ".join(f"'{name}'" for one in order for name in one.names)
