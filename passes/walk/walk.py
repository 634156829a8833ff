"""The walk: visit linear layers in topological order, each with the target weights that repair everything before it.

    for step in walk(graph, ctx, layers):
        ...                      # replace step.layer, judged by step.target; or leave it
        step.settle()            # or keep its form and only take the repairing weights

The teacher runs once over the samples (`teacher`); rows of its outputs are kept at sampled positions. The student runs
once too: between two layers the frontier is kept, the values that later nodes read, so each node is executed a single
time, after the layers before it were changed, but for what is cheaper to make again than to keep (`again`). Both live
in a `Spill`, so memory does not grow with the samples.

A layer whose output is only added to a known value (`order`) has as target what the sum lacks: the teacher's sum less
the student's other summand.

Where the network selects rows by what it computes and the student selects others than the teacher (`pairing`), a layer
is fitted to the output of its original weights on the rows that the student reads.

Edits between two steps may touch only the current layer and what follows it: what came before has been executed.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import DataError
from ...ir.graph import Graph, Node, Value
from ...storage.spill import Spill
from ..base import Context, Report
from .collect import Collector, drop
from .frontier import Frontier
from .linear import Linear
from .moments import Moments, Statistics
from .order import Goal, goals_of, in_order, visited_early
from .pairing import Selections, selections
from .readers import holds_weights, linear_layers
from .refit import refit_masked
from .saturation import Saturation, eased
from .target import Array, LayerTarget, choose_ridges, fit_target
from .teacher import teach

ROWS, BATCH = 32768, 16
"""The least number of sampled rows a layer, and the most samples that run at a time."""

WIDEST = 6144
"""Inputs a row beyond which the covariance of a layer (8 d^2 bytes) is not worth its memory."""

MADE_UP = 0.5
"""Noise that samples made up from the model are taken to have besides, as a share of the mean variance of an input:
they are not the real ones, and rows held out of them cannot tell. Half of the weights of a keyword spotter gone, 61 %
of its answers are right without it, 76 % with 0.3, 75 % with 1; ResNet-20 for CIFAR-10 at 70 %: 86.2 and 86.9 %. Few
rows that no other sample judges are taken so, too: a thousandth lost of one sample was a third of the answers to
others."""

THIN = 4
"""Rows an input below which they are few."""


@dataclass(frozen=True, slots=True)
class Step:
    """One layer on the walk, with what it should become.

    `output` is the shape of its output in the first batch; `disturbed` tells whether a layer before it was changed on
    this walk, so that there is something to repair; `saturation` is what the activation after it forgives, where one
    does; `input` is the shape of what it reads for one sample; `twins` are the shapes of its twins' outputs.
    """

    layer: Linear
    target: LayerTarget
    output: tuple[int, ...]
    disturbed: bool
    saturation: Saturation | None = None
    input: tuple[int, ...] = ()
    twins: tuple[tuple[int, ...], ...] = ()

    @property
    def positions(self) -> int:
        """Output positions a sample, of the layer and its twins: MACs are weights times this."""
        own = self._positions(self.output)  # who reads it the other way round is taken to have as many
        others = sum(own for other in self.layer.others if other.layer is not None)
        return own + others + sum(self._positions(output) for output in self.twins)

    def _positions(self, output: tuple[int, ...]) -> int:
        if self.layer.is_conv:
            return int(np.prod(output[2:]))
        rest = output[1:-2] + output[-1:] if self.layer.left else output[1:-1]
        return int(np.prod(rest)) if len(output) > 2 else 1

    @property
    def thin(self) -> bool:
        """Whether there are fewer than four rows an input, so that the ridge, not the samples, decides much."""
        return self.target.rows < THIN * self.layer.shape[2]

    def settle(self, weight: Array | None = None, target: LayerTarget | None = None) -> None:
        """Write `weight` (groups, n, d) with the bias that goes with it, by the `target` that it was fitted to.

        By default the target's own weights where the layer is `disturbed`, and no change where it is not; zeros that
        the layer has (an earlier pass pruned it) stay zeros.
        """
        if weight is None and not self.disturbed:
            return
        if weight is None:
            chosen, target = eased(self.saturation, self.target, self._repaired(self.target), lambda w: w,
                                   lambda target, _: self._repaired(target))  # fmt: skip
        else:
            chosen = weight.reshape(self.target.weight.shape)
        self.layer.write(chosen, None if self.layer.bias_place is None else (target or self.target).bias(chosen))

    def _repaired(self, target: LayerTarget) -> Array:
        mask = self.layer.weights() != 0.0
        if mask.all():
            return target.weight
        parts = zip(target.weight, target.hessian, mask, strict=True)
        return np.stack([refit_masked(w, h, keep) for w, h, keep in parts])


def walk(
    graph: Graph,
    ctx: Context,
    layers: Sequence[Linear] | None = None,
    *,
    rows: int = ROWS,
    batch: int = BATCH,
    report: Report | None = None,
    changing: Container[Linear] | None = None,
    eases: bool = True,
) -> Iterator[Step]:
    """Steps over `layers` (all of the graph's by default), each computed after the edits made at the ones before.

    `rows` is the number of sampled rows a layer, about (`teacher.positions`); at most `batch` samples run at a time. A
    layer that what is not finite reaches has no step; it is skipped in `report`. `changing`
    are the layers that the caller may change (all by default): the others have a step only where there is something to
    repair, so that a walk begins at the first layer that may change, and ends with the last where none did. Steps know
    what a saturating activation forgives only where the caller `eases`. Raises DataError where there are no samples.
    """
    if ctx.fit is None or ctx.fit.count == 0:
        raise DataError("this pass needs calibration samples; give some with --data")
    if layers is None:
        layers = linear_layers(graph)[0]
    groups = in_order(graph, [layer for layer in layers if not too_wide(layer)])
    if changing is not None:
        every = [number for number, group in enumerate(groups) if any(layer in changing for layer in group)]
        groups = groups[every[0] :] if every else []
        due = [number - every[0] for number in every]
    else:
        due = list(range(len(groups)))
    if not groups:
        return
    early = visited_early(groups, graph)
    size = _batch_size(graph, ctx, [layer for group in groups for layer in group], batch)
    together = min(size, ctx.fit.count) if ctx.fit.batched else 1
    with Spill() as kept:
        goals = goals_of(groups)
        ahead: dict[int, list[int]] = {}  # by group: the numbers of the goals of its twins
        for number, (goal, *_) in enumerate(list(goals)):
            ahead[number] = list(range(len(goals), len(goals) + len(goal.layer.twins)))
            goals += [[Goal(twin, twin.output)] for twin in goal.layer.twins]
        selected = Selections(selections(graph, [goal.layer.node for group in goals for goal in group]))
        shapes = teach(graph, ctx, goals, selected, kept, size, rows)
        frontier = Frontier(graph, ctx.fit, size, kept, ctx.threads, exact=ctx.exact)
        disturbed = False
        with ctx.progress.task("walk", len(groups)) as tick:
            for number, group in enumerate(goals[: len(groups)]):
                if number > due[-1] and not disturbed:
                    break
                if number not in due and not disturbed:  # it stays, and has nothing to repair
                    for one in (number, *ahead[number]):
                        drop(kept, one, goals[one])
                    tick(1)
                    continue
                common = frontier, selected, kept, rows, ctx.seed
                eases = eases and ctx.repairs
                collector = Collector(number, group, *common, ahead=group[0].layer in early, eases=eases)
                *moments, shape = collector.moments()
                for other in ahead[number]:
                    later = Collector(other, goals[other], *common, ahead=True, eases=False)
                    *more, _ = later.moments()
                    moments = [one.merged(two) for one, two in zip(moments, more, strict=True)]
                    later.drop()
                start = 0
                for goal in group:
                    part = slice(start, start + goal.layer.shape[1])
                    start = part.stop
                    try:
                        target = _target(goal.layer, moments, part, ctx)
                    except DataError as error:
                        if report is not None:
                            report.skipped(goal.layer.name, goal.layer.op, str(error))
                        continue
                    finally:
                        if goal is group[-1]:  # hundreds of megabytes where the layer is wide
                            moments.clear()
                    before = _reads(goal.layer)
                    first, *rest = shape
                    each = (max(1, first // together), *rest)
                    twins = tuple(shapes[twin] for twin in goal.layer.twins)
                    yield Step(
                        goal.layer, target, shapes[goal.layer], disturbed, collector.saturation(goal), each, twins
                    )
                    disturbed = disturbed or _reads(goal.layer) != before
                collector.drop()
                tick(1)


def thin_note(layers: int) -> str:
    """What to tell the user of so many layers whose step was `thin`."""
    which = "one layer has" if layers == 1 else f"{layers} layers have"
    return f"{which} too few rows for the width, so the fit stays nearer to the old weights; give more samples"


def walkable(graph: Graph, report: Report, apart: Container[Node] = ()) -> list[Linear]:
    """The layers of `graph` in its order; of those that no walk takes, all but those `apart` are told in `report`."""
    layers, refused = linear_layers(graph)
    for node, reason in refused:
        if node not in apart:
            report.skipped(node.name, node.op, reason)
    for node in graph:
        if holds_weights(node) and node not in apart:
            report.skipped(node.label, node.op, f"its weights are inside of what {node.op} computes as a whole")
    for layer in layers:
        if too_wide(layer):
            report.skipped(layer.name, layer.op, too_wide(layer))
    return [layer for layer in layers if not too_wide(layer)]


def too_wide(layer: Linear) -> str:
    """Why a layer is not walked, or "": its covariance would take more memory than it is worth."""
    d = layer.shape[2]
    return f"{d} inputs a row, more than the {WIDEST} whose covariance is kept" if d > WIDEST else ""


def _target(layer: Linear, moments: Sequence[Moments], outputs: slice, ctx: Context) -> LayerTarget:
    """What `layer` should become, by `moments` to fit on and held out, of which the `outputs` are its own."""
    assert ctx.fit is not None
    weight = layer.weights()
    judged = ctx.held_out is not None and ctx.held_out is not ctx.fit  # of one sample both are the whole
    few = sum(one.count for one in moments) < THIN * layer.shape[2]
    unlike = ctx.fit.synthetic or (few and not judged)

    def statistics(one: Moments) -> Statistics:
        statistics = one.statistics(outputs, centred=layer.bias_place is not None)
        statistics = statistics if ctx.repairs else statistics.answered_by(weight, layer.bias())
        statistics = statistics.broadened(weight, MADE_UP) if unlike else statistics
        return statistics.joined(weight, len(layer.others)) if layer.others else statistics

    fit, held_out = moments
    ridges = choose_ridges(weight, statistics(fit), statistics(held_out))
    return fit_target(weight, statistics(fit.merged(held_out)), ridges)


LIGHT = 24 << 20
"""Bytes of the teacher's answers that a batch may have whatever the number of its samples."""


def _batch_size(graph: Graph, ctx: Context, layers: list[Linear], most: int, *, memory: int = 192 << 20) -> int:
    """Samples a batch: at least five batches (one is held out), and the teacher's answers within `memory` bytes; `most`
    of them, or as many as are `LIGHT`: what a batch costs besides its samples is then paid less often."""
    assert ctx.fit is not None
    if not ctx.fit.batched:
        return 1
    each = 1
    for layer in layers:
        sizes = (layer.output.shape or (None, None))[1:]
        fixed = [d for d in sizes if isinstance(d, int)]
        if len(fixed) < len(sizes):
            each = 1 + _measured(graph, layers, ctx)
            break
        each += 4 * math.prod(fixed)
    count = ctx.fit.count
    fifth = math.ceil(count / 5)
    fifth = fifth if math.ceil(count / fifth) >= 5 else count // 5
    return max(1, min(max(most, LIGHT // each), memory // each, fifth))


def _measured(graph: Graph, layers: list[Linear], ctx: Context) -> int:
    """The bytes that the answers of `layers` take for one sample, by running it: an open size may be any."""
    from ...runtime.session import Session

    assert ctx.fit is not None
    session = Session(graph, outputs=[layer.output for layer in layers], threads=ctx.threads)
    return sum(array.nbytes for array in session.run(next(ctx.fit.batches(1))))


def _reads(layer: Linear) -> tuple[tuple[Value | None, ...], ...]:
    """What the nodes of a layer read: what changes where the layer is changed."""
    return layer.node.inputs, () if layer.turn is None else layer.turn.inputs
