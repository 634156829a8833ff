"""What `svd` makes of one layer.

A layer is offered the unchanged form and, for every form that fits it, ranks from one upwards; kept are only choices
that save MACs and parameters. Without a ratio each layer takes the cheapest choice whose loss stays within `error` of
its answer's variance and that does not run longer than the layer, as measured (`layer_time`). With one, a first walk
over the unchanged student records every choice's error and the knapsack spreads the share (`scope=global`), or each
layer keeps that share of its MACs (`scope=layer`, and where a layer has a ratio of its own); it is the user's to know
that they pay.

Skipped: grouped and depthwise convolutions (already thin), layers that read the graph's input, layers where no rank
pays, and what a rival does better (`rivals`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..base import Context, Detail, Skip
from ..walk.choice import Choice
from ..walk.layer_time import slower
from ..walk.layerwise import Layerwise, Rewritten, first_in_time
from ..walk.linear import Linear
from ..walk.target import Array, LayerTarget
from ..walk.walk import Step
from .channel import channel_losses
from .split import BegunSplit, Split, SplitWork, forms_of, resplit, split
from .tucker import InputBases, tucker_split

if TYPE_CHECKING:
    from .svd import Svd

SplitChoice: TypeAlias = Choice[Split]

ABOUT = 1.5
"""How many times the loss that is allowed a split is expected to have that is fitted all the same: the curves are not
farther from what fitting gives."""
NEARLY = 1.05
"""The same once a rank of the form was fitted, which tells how far its curve is off."""


class Factorise(Layerwise["Svd", Split]):
    glances = True

    def __init__(self, options: Svd, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._begun = BegunSplit()
        self._looked_at: dict[Linear, Sequence[SplitChoice]] = {}
        """The choices of a layer as a glance told them, whose errors are about those that a walk would tell."""

    def stays(self, layer: Linear) -> str:
        return "grouped convolution: thin already" if layer.groups > 1 else layer.otherwise if layer.is_conv else ""

    def tolerance(self, options: Svd) -> float | None:
        return options.error if options.ratio is None else None

    def share(self, options: Svd) -> float | None:
        return options.ratio if options.scope == "global" else None

    def candidates(self, step: Step, options: Svd) -> Sequence[SplitChoice]:
        """Costs are MACs, errors shares of the answer's variance."""
        keep: SplitChoice = Choice(SplitWork.of(step).macs("keep", 0), 0.0)
        try:
            return [keep, *self._splits(step, options)]
        except Skip:
            return [keep]

    def choose(self, step: Step, options: Svd, allotted: SplitChoice | None) -> SplitChoice:
        if allotted is not None:
            return self._fitted(step, allotted)
        if options.ratio is not None:
            if options.ratio == 1.0:
                raise Skip("it keeps all of its MACs")
            best = self._best(step, options, options.ratio)
            if best is None:
                raise Skip(f"no rank in steps of {self._align(options)} keeps within {options.ratio:g} of its MACs")
            return best
        error = options.error or 0.0
        allowed = error * step.target.energy
        off: dict[str, float] = {}
        """By form, how many times the loss that its curve tells the last one had that was fitted."""

        def fitted(choice: SplitChoice) -> SplitChoice | None:
            if choice.error * off.get(choice.kind, 0.0) > NEARLY * error:
                return None
            fit = self._fitted(step, choice)
            off[choice.kind] = _loss(fit) / max(choice.error * step.target.energy, 1e-30)
            return fit if _loss(fit) <= allowed else None

        choices = self._looked_at.get(step.layer)
        if choices is None:
            choices = sorted(self._splits(step, options, loss=ABOUT * allowed), key=lambda c: c.cost)
            self._looked_at[step.layer] = choices
        return first_in_time(self, step, [c for c in choices if c.error <= ABOUT * error], fitted, error)

    def within(self, step: Step, options: Svd, most: float, tolerance: float) -> SplitChoice | None:
        best = self._best(step, options, most if options.ratio is None else min(most, options.ratio))
        if best is None or options.ratio is not None:
            return best
        allowed = tolerance if options.error is None else options.error
        if _loss(best) > allowed * step.target.energy or slower(self.timed(step, best)):
            return None
        return best

    def _align(self, options: Svd) -> int:
        return options.align or self.ctx.target.channel_alignment

    def _splits(
        self, step: Step, options: Svd, *, macs: float = math.inf, loss: float = math.inf
    ) -> Sequence[SplitChoice]:
        forms = _forms(options, step.layer)
        each = splits(
            step.target, step.layer, SplitWork.of(step), forms, self._align(options), self._begun, macs=macs, loss=loss
        )
        return list(each)

    def _best(self, step: Step, options: Svd, share: float) -> SplitChoice | None:
        """The one of least loss, once fitted, among the best of each form within `share` of the layer's MACs."""
        best: dict[str, SplitChoice] = {}
        for choice in self._splits(step, options, macs=share * SplitWork.of(step).macs("keep", 0)):
            if choice.kind not in best or choice.error < best[choice.kind].error:
                best[choice.kind] = choice
        return min((self._fitted(step, choice) for choice in best.values()), key=_loss, default=None)

    def _fitted(self, step: Step, choice: SplitChoice) -> SplitChoice:
        """The choice with its factors, its cost a share of the layer's MACs and its error as `Target.error` counts
        it."""
        rank, inner = int(choice.settings["rank"]), int(choice.settings.get("rank_in", 0))
        work = SplitWork.of(step)
        form = split(step.target, step.layer, choice.kind, rank, inner, begun=self._begun)
        cost = work.macs(choice.kind, rank, inner) / work.macs("keep", 0)
        return replace(choice, cost=cost, error=step.target.error(form.merged), form=form)

    def dense(self, form: Split) -> Array:
        return form.merged

    def refit(self, layer: Linear, target: LayerTarget, form: Split) -> Split:
        return resplit(layer, target, form, begun=self._begun)

    def write(self, layer: Linear, form: Split, bias: Array | None) -> None:
        form.apply(layer, bias)

    def figures(self, done: Rewritten[Split]) -> dict[str, Detail]:
        return {"form": done.form.kind, **done.choice.settings, "macs": round(done.choice.cost, 4)}


def _loss(choice: SplitChoice) -> float:
    assert choice.form is not None
    return choice.form.loss


def _forms(options: Svd, layer: Linear) -> tuple[str, ...]:
    forms = forms_of(layer)
    if options.form == "auto":
        return forms
    if options.form not in forms:
        raise Skip(f"the {options.form} form needs a kernel of at least 2 x 2")
    return (options.form,)


def splits(
    target: LayerTarget,
    layer: Linear,
    work: SplitWork,
    forms: tuple[str, ...],
    align: int,
    begun: BegunSplit,
    *,
    macs: float = math.inf,
    loss: float = math.inf,
) -> Iterator[SplitChoice]:
    """Splits at ranks in steps of `align` that save MACs and have fewer parameters than the layer has that are not
    zero, with their costs in MACs and about their errors.

    Left out is what costs more than `macs` or loses more than about `loss`. Losses fall with the rank. So with a bound
    on MACs only the highest rank of each form (of each inner rank) is given, and with one on the loss nothing is fitted
    of a form whose highest rank loses more.
    """
    whole, size = work.macs("keep", 0), int(np.count_nonzero(layer.weights()))
    w, h = target.weight[0], target.hessian[0]

    def ranks(form: str, count: int, inner: int = 0) -> list[int]:
        """The ranks up to `count` that pay."""
        paying = [
            rank
            for rank in range(align, count + 1, align)
            if work.macs(form, rank, inner) < whole
            and work.macs(form, rank, inner) <= macs
            and work.parameters(form, rank, inner) < size
        ]
        return paying if macs == math.inf else paying[-1:]

    def choices(
        form: str, paying: list[int], losses: Array, inner: int = 0, lost: float = 0.0
    ) -> Iterator[SplitChoice]:
        for rank in paying:
            if (total := lost + float(losses[rank])) <= loss:
                settings = {"rank": rank, "rank_in": inner} if inner else {"rank": rank}
                yield Choice(work.macs(form, rank, inner), total / max(target.energy, 1e-30), form, settings)

    if "channel" in forms and (paying := ranks("channel", min(w.shape))):
        yield from choices("channel", paying, channel_losses(w, h))
    if "spatial" in forms and (paying := ranks("spatial", min(work.c * work.kernel[0], work.n * work.kernel[1]))):
        if macs < math.inf:  # the only rank there is
            yield from choices("spatial", paying, np.zeros(paying[-1] + 1))
        elif loss == math.inf or begun.loss(target, layer, paying[-1], loss) <= loss:
            yield from choices("spatial", paying, begun.losses(target, layer))
    if "tucker" in forms:
        step = max(align, work.c // 8)
        bases = InputBases(w, h, work.c)
        for inner in reversed(range(step, work.c, step)):
            paying = ranks("tucker", min(work.n, inner * work.taps), inner)
            if not paying:
                continue
            _, rest, lost = tucker_split(w, h, bases.of(inner))
            if lost > loss:
                break  # fewer inputs lose more
            yield from choices("tucker", paying, rest.losses, inner, lost)
