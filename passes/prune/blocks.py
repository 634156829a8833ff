"""Block pruning: whole residual branches, gates and layers go, and what stays is fitted to answer for them.

Each block that the graph can do without (`bypass`) is tried alone: it is taken out, the layers next to it are fitted by
least squares to the teacher's answers as they stand behind it, and samples that nothing was fitted to say what the
model's answers have lost. The block that loses least for the share of the time that it saves goes first. Losses of
blocks do not add up, but a block hardly becomes cheaper when another one goes: so of the rest only the first is tried
anew, until it stays the first (lazy evaluation of a greedy choice, Minoux 1978).

What goes in the end is taken out of the model as it came in, and one walk over all layers repairs what is left. Fewer
layers are faster than narrower ones of the same work, and lose less where samples are few (Wang and Wu 2023, "Practical
network acceleration with tiny sets").

Stays: a block whose answer has another shape than what would stand for it, and one that the graph's input, or an
override, keeps.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...ir.clone import clone
from ...ir.graph import Graph, Node, Value
from ...ir.ops import LAYERS
from ...runtime.agreement import agreement
from ...runtime.session import Session
from ..base import Context, Detail, Outcome, Report, Skip
from ..walk.linear import Linear
from ..walk.mirror import NOTE, with_mirror_images
from ..walk.order import asks_of, in_order
from ..walk.readers import linear_layers
from ..walk.tolerance import safest
from ..walk.walk import ROWS, too_wide, walk
from .bypass import Block, block_at, blocks, bypass
from .saving import Saving

if TYPE_CHECKING:
    from .prune import Prune

MOST = 0.35
"""The share of the cost that a pass left to its own choice tries to remove."""
TRIAL, FIT = 96, 256
"""Samples that judge a block, and that its neighbours are fitted to."""
FEW = 8192
"""Rows a layer for the fit of the neighbours."""
FINAL = 65536
"""Rows a layer for the last fit: what is compensated is large."""
WORTH = 0.02
"""The least share of the cost that a block must save to be tried."""
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class Tried:
    """Blocks that go together, one by the rule, with what they save, a share of the cost, and what the model's answers
    lose without them."""

    names: tuple[str, ...]
    saved: float
    loss: float

    @property
    def price(self) -> float:
        return max(self.loss, _LEAST) / max(self.saved, _LEAST)


def prune_blocks(options: Prune, graph: Graph, ctx: Context) -> Report:
    """Run `prune:kind=blocks`."""
    report = Report()
    named = names(graph)
    forced, open_ = _asked(options, named, ctx, report)
    if not forced and not open_:
        if not report.layers:
            report.notes.append("no block can be removed: none has the shape of what would stand for it")
        return report
    saving = Saving.in_graph(graph, ctx, options.of)
    if forced or options.ratio == 0.0:
        figures: dict[str, dict[str, Detail]] = {
            name: {"saved": round(saving.share(block.nodes), 4)} for name, block in forced.items()
        }
        _carry_out(options, graph, ctx, figures, report)
        return report
    nodes = {name: (block.node, set(block.nodes)) for name, block in open_.items()}
    worth = {name: block for name, block in open_.items() if saving.share(block.nodes) >= WORTH}
    order = removal_order(graph, ctx, saving, worth, MOST if options.ratio is None else options.ratio)
    left = (_as_many_as_are_safe if options.ratio is None else _all)(options, graph, ctx, saving, order, report)
    gone = {layer.name for layer in report.layers if layer.outcome is Outcome.DONE}
    for name, (node, _) in nodes.items():
        if name in gone:
            continue
        reason = left if name in worth else f"it saves less than {WORTH:.0%} of the {saving.of}"
        if any(node in nodes[other][1] for other in gone):
            reason = "it went with the block that it lies in"
        report.skipped(name, node.op, reason)
    return report


def names(graph: Graph) -> dict[str, Block]:
    """The blocks of `graph` by their names, each of which is one's alone."""
    named: dict[str, Block] = {}
    for block in blocks(graph):
        name, count = block.node.label, 1
        while name in named:
            count += 1
            name = f"{block.node.label} #{count}"
        named[name] = block
    return named


def _asked(
    options: Prune, named: Mapping[str, Block], ctx: Context, report: Report
) -> tuple[dict[str, Block], dict[str, Block]]:
    """The blocks that must go, and those that may; the others are reported."""
    forced: dict[str, Block] = {}
    open_: dict[str, Block] = {}
    for name, block in named.items():
        try:
            for node in block.nodes:
                ctx.options(options, node)
            wanted = ctx.options(options, block.node).remove
        except Skip as skip:
            report.skipped(name, block.node.op, skip.reason)
            continue
        (forced if wanted else open_)[name] = block
    return forced, open_


# -- which blocks go


@dataclass(slots=True)
class Trial:
    """A graph that loses block after block: `at` are the blocks' nodes with the operand that stays, `loss` is what its
    answers lack of the teacher's."""

    graph: Graph
    at: dict[str, tuple[Node, int]]
    saving: Saving
    loss: float = 0.0

    def block(self, name: str) -> Block | None:
        """The block as it now is; `None` where it went with another."""
        return block_at(*self.at[name]) if name in self.at else None

    def without(self, several: Sequence[str], judge: Judge) -> Trial:
        """A copy without these blocks, their neighbours fitted and its answers judged."""
        copies: dict[Value, Value] = {}
        graph = clone(self.graph, copies)
        at = {}
        for other, (node, index) in self.at.items():
            twin = copies[node.output].producer if node.graph is not None else None
            if twin is not None:
                at[other] = twin, index
        trial = Trial(graph, at, self.saving.carried(copies))
        touched: set[str] = set()
        for name in several:
            block = trial.block(name)
            assert block is not None
            touched |= bypass(graph, block)
            del trial.at[name]
        repair(graph, judge.ctx, touched, FEW, neighbours=True)
        trial.loss = judge.loss(graph)
        return trial


class Judge:
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


def removal_order(graph: Graph, ctx: Context, saving: Saving, open_: Mapping[str, Block], share: float) -> list[Tried]:
    """The blocks to remove, first to go first, until `share` of the cost is gone."""
    if not open_:
        return []
    judge = Judge(graph, ctx)
    trial = start(graph, saving, open_, judge)
    candidates = [*((name,) for name in open_), *_separable(open_)]
    waiting: list[tuple[float, int, int]] = []
    gone: list[Tried] = []
    ready: dict[int, tuple[Trial, Tried]] = {}
    with ctx.progress.task("blocks", len(candidates)) as tick:
        for number, several in enumerate(candidates):
            if (one := tried(trial, several, judge)) is not None:
                heapq.heappush(waiting, (one[1].price, number, 0))
            tick(1)
        total = 0.0
        while waiting and total < share:
            _, number, when = heapq.heappop(waiting)
            if when < len(gone):  # it was tried when more was left
                if (again := tried(trial, candidates[number], judge)) is not None:
                    ready[number] = again
                    heapq.heappush(waiting, (again[1].price, number, len(gone)))
                continue
            best = ready.get(number) or tried(trial, candidates[number], judge)
            if best is None:
                continue
            trial, one_gone = best
            ready.clear()
            gone.append(one_gone)
            total += one_gone.saved
            if total >= share:
                total = 1.0 - saving.left(graph, trial.graph, ctx, _words(gone))
    return gone


def start(graph: Graph, saving: Saving, open_: Mapping[str, Block], judge: Judge) -> Trial:
    """A copy of `graph` that has lost nothing yet."""
    copies: dict[Value, Value] = {}
    twin = clone(graph, copies)
    at = {
        name: (producer, block.index)
        for name, block in open_.items()
        if (producer := copies[block.out].producer) is not None
    }
    return Trial(twin, at, saving.carried(copies), judge.loss(twin))


def tried(trial: Trial, several: Sequence[str], judge: Judge) -> tuple[Trial, Tried] | None:
    """`trial` without these blocks, and what that is worth; `None` where one of them went with another."""
    parts = [trial.block(name) for name in several]
    if None in parts:
        return None
    nodes = {node for block in parts if block is not None for node in block.nodes}
    after = trial.without(several, judge)
    return after, Tried(tuple(several), trial.saving.share(nodes), max(after.loss - trial.loss, 0.0))


def _separable(open_: Mapping[str, Block]) -> list[tuple[str, str]]:
    """The depthwise layers with the layer behind each, which are one convolution in two."""
    by_node = {block.node: name for name, block in open_.items()}
    pairs = []
    for node, name in by_node.items():
        if node.op != "Conv" or node.get_int("group", 1) == 1:
            continue
        readers = node.output.users
        while len(readers) == 1 and readers[0].op not in LAYERS and len(readers[0].outputs) == 1:
            readers = readers[0].output.users
        if len(readers) == 1 and readers[0] in by_node:
            pairs.append((name, by_node[readers[0]]))
    return pairs


def _words(order: Sequence[Tried]) -> str:
    return " and ".join(f"'{name}'" for one in order for name in one.names)


# -- taking them out


def _all(options: Prune, graph: Graph, ctx: Context, saving: Saving, order: Sequence[Tried], report: Report) -> str:
    """Remove all of `order`; returns why no others go."""
    if not order:
        return f"it saves no {saving.of}"
    before = graph.clone()
    _carry_out(options, graph, ctx, _figures(order), report)
    left = saving.left(before, graph, ctx, _words(order))
    assert options.ratio is not None
    most = "no more than " if 1.0 - left < options.ratio else ""
    report.notes.append(f"removed {most}{1.0 - left:.1%} of the {saving.of}")
    return "others lose less for what they save"


def _as_many_as_are_safe(
    options: Prune, graph: Graph, ctx: Context, saving: Saving, order: Sequence[Tried], report: Report
) -> str:
    """Remove the most of `order` that is safe; returns why no others go."""
    if not order:
        return f"it saves no {saving.of}"

    def run(trial: Graph, count: float) -> Report:
        outcome = Report()
        _carry_out(options, trial, ctx, _figures(order[: int(count)]), outcome)
        return outcome

    choice = safest(graph, ctx, range(len(order), 0, -1), run)
    if choice.amount is None:
        return f"without any block the model would leave an agreement of {choice.share:.4f}, below {choice.floor:.4g}"
    report.layers += choice.report.layers
    saved = sum(one.saved for one in order[: int(choice.amount)])
    agreed = "" if choice.share is None else f", at an agreement of {choice.share:.4f}"
    report.notes += [*choice.report.notes, f"removed {saved:.1%} of the {saving.of}{agreed}"]
    return "with it, too, the model would agree less than is safe"


def _figures(order: Sequence[Tried]) -> dict[str, dict[str, Detail]]:
    """What is told of each block; of several that went together the last has the figures."""
    figures: dict[str, dict[str, Detail]] = {}
    for one in order:
        figures |= {name: {"with": one.names[-1]} for name in one.names[:-1]}
        figures[one.names[-1]] = {"saved": round(one.saved, 4), "loss": round(one.loss, 6)}
    return figures


def _carry_out(
    options: Prune, graph: Graph, ctx: Context, gone: Mapping[str, dict[str, Detail]], report: Report
) -> None:
    """Take the blocks `gone`, with what is told of each, out of `graph`, in its order, and repair all layers behind the
    first."""
    taken = {name: block for name, block in names(graph).items() if name in gone}
    touched: set[str] = set()
    for name, planned in taken.items():
        node = planned.node
        block = block_at(node, planned.index)
        if block is not None:  # else it went with one that it lies in
            touched |= bypass(graph, block)
        report.done(name, node.op, layers=len(planned.layers), **gone[name])
    if not touched:
        return
    seen = with_mirror_images(ctx)
    if seen is not ctx:
        report.notes.append(NOTE)
    repair(graph, seen, touched, FINAL, options=options)


def repair(
    graph: Graph, ctx: Context, touched: Collection[str], rows: int = ROWS, *, neighbours: bool = False,
    options: Prune | None = None,
) -> None:  # fmt: skip
    """Fit layers of `graph` to the teacher: those that end in one of the values `touched` or read one, and all behind
    them unless only `neighbours` are asked for. What overrides keep from `options` stays."""
    layers = [layer for layer in linear_layers(graph)[0] if not too_wide(layer)]
    near = _near(graph, layers, touched)
    walked = [layer for layer in layers if layer in near] if neighbours else layers
    begun = False
    for step in walk(graph, ctx, walked, rows=rows, report=Report(), changing=near, eases=not neighbours):
        begun = begun or step.layer in near
        if options is None or not ctx.kept(options, step.layer.node):
            replace(step, disturbed=begun).settle()


def _near(graph: Graph, layers: Sequence[Linear], touched: Collection[str]) -> set[Linear]:
    asks = [ask for group in asks_of(in_order(graph, list(layers))) for ask in group]
    return {ask.layer for ask in asks if ask.answer.name in touched or ask.layer.source.name in touched}
