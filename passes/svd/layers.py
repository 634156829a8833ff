"""What `svd` makes of one layer.

A layer is offered the unchanged form and, for every form that fits it, ranks from one upwards; kept are only choices
that save MACs and parameters. Without a ratio each layer takes the cheapest choice whose loss stays within `error` of
its answer's variance and that does not run longer than the layer, as measured (`layer_time`). With one, each layer
keeps that share of its MACs (`scope=layer`), or a first walk over the unchanged student records every choice's error
and the knapsack spreads the share (`scope=global`); it is the user's to know that they pay.

Skipped: grouped and depthwise convolutions (already thin), layers that read the graph's input, layers where no rank
pays, and what a rival does better (`rivals`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..base import Detail, Skip
from ..walk.choice import Choice
from ..walk.layer_time import slower
from ..walk.layerwise import Layerwise, Rewritten, first_in_time
from ..walk.linear import Linear
from ..walk.target import Array, Target
from ..walk.walk import Step
from .channel import channel_split
from .split import Split, Work, forms_of, resplit, spatial_losses, split
from .tucker import tucker_split

if TYPE_CHECKING:
    from .svd import Svd

SplitChoice: TypeAlias = Choice[Split]


class Factorise(Layerwise["Svd", Split]):
    def stays(self, layer: Linear) -> str:
        return "grouped convolution: thin already" if layer.groups > 1 else ""

    def tolerance(self, options: Svd) -> float | None:
        return options.error if options.ratio is None else None

    def share(self, options: Svd) -> float | None:
        return options.ratio if options.scope == "global" else None

    def candidates(self, step: Step, options: Svd) -> Sequence[SplitChoice]:
        """Costs are MACs, errors shares of the answer's variance."""
        try:
            forms = _forms(options, step.layer)
        except Skip:
            forms = ()
        work, align = Work.of(step), options.align or self.ctx.target.channel_alignment
        return [Choice(work.macs("keep", 0), 0.0), *splits(step.target, step.layer, work, forms, align)]

    def choose(self, step: Step, options: Svd, allotted: SplitChoice | None) -> SplitChoice:
        forms = _forms(options, step.layer)
        if allotted is not None:
            return _fitted(step, allotted)
        work, align = Work.of(step), options.align or self.ctx.target.channel_alignment
        choices = list(splits(step.target, step.layer, work, forms, align))
        if options.ratio is not None:
            best = _best_within(step, choices, options.ratio * work.macs("keep", 0))
            if best is None:
                raise Skip(f"no rank in steps of {align} keeps within {options.ratio:g} of its MACs")
            return best
        error = options.error or 0.0

        def fitted(choice: SplitChoice) -> SplitChoice | None:
            if choice.error > 1.5 * error:
                return None  # the curves are not that far from what fitting gives
            fit = _fitted(step, choice)
            return fit if _loss(fit) <= error * step.target.energy else None

        return first_in_time(self, step, sorted(choices, key=lambda c: c.cost), fitted, error)

    def within(self, step: Step, options: Svd, most: float, tolerance: float) -> SplitChoice | None:
        work, align = Work.of(step), options.align or self.ctx.target.channel_alignment
        choices = list(splits(step.target, step.layer, work, _forms(options, step.layer), align))
        share = most if options.ratio is None else min(most, options.ratio)
        best = _best_within(step, choices, share * work.macs("keep", 0))
        if best is None or options.ratio is not None:
            return best
        allowed = tolerance if options.error is None else options.error
        if _loss(best) > allowed * step.target.energy or slower(self.timed(step, best)):
            return None
        return best

    def dense(self, form: Split) -> Array:
        return form.merged

    def refit(self, layer: Linear, target: Target, form: Split) -> Split:
        return resplit(layer, target, form)

    def write(self, layer: Linear, form: Split, bias: Array | None) -> None:
        form.apply(layer, bias)

    def figures(self, done: Rewritten[Split]) -> dict[str, Detail]:
        return {"form": done.form.kind, **done.choice.settings, "macs": round(done.choice.cost, 4)}


def _loss(choice: SplitChoice) -> float:
    assert choice.form is not None
    return choice.form.loss


def _fitted(step: Step, choice: SplitChoice) -> SplitChoice:
    """The choice with its factors, its cost a share of the layer's MACs and its error as `Target.error` counts it."""
    rank, inner = int(choice.settings["rank"]), int(choice.settings.get("rank_in", 0))
    work, form = Work.of(step), split(step.target, step.layer, choice.kind, rank, inner)
    cost = work.macs(choice.kind, rank, inner) / work.macs("keep", 0)
    return replace(choice, cost=cost, error=step.target.error(form.merged), form=form)


def _best_within(step: Step, choices: Sequence[SplitChoice], limit: float) -> SplitChoice | None:
    """The one of least loss, once fitted, among the best of each form within `limit` MACs."""
    best: dict[str, SplitChoice] = {}
    for choice in choices:
        if choice.cost <= limit and (choice.kind not in best or choice.error < best[choice.kind].error):
            best[choice.kind] = choice
    return min((_fitted(step, choice) for choice in best.values()), key=_loss, default=None)


def _forms(options: Svd, layer: Linear) -> tuple[str, ...]:
    forms = forms_of(layer)
    if options.form == "auto":
        return forms
    if options.form not in forms:
        raise Skip(f"the {options.form} form needs a kernel of at least 2 x 2")
    return (options.form,)


def splits(target: Target, layer: Linear, work: Work, forms: tuple[str, ...], align: int) -> Iterator[SplitChoice]:
    """Every split that saves MACs and has fewer parameters than the layer has that are not zero, with its cost in MACs
    and about its error."""
    whole, size = work.macs("keep", 0), int(np.count_nonzero(layer.weights()))
    for form, rank, inner, loss in _losses(target, layer, work, forms, align):
        macs = work.macs(form, rank, inner)
        if macs < whole and work.parameters(form, rank, inner) < size:
            settings = {"rank": rank, "rank_in": inner} if inner else {"rank": rank}
            yield Choice(macs, loss / max(target.energy, 1e-30), form, settings)


def _losses(
    target: Target, layer: Linear, work: Work, forms: tuple[str, ...], align: int
) -> Iterator[tuple[str, int, int, float]]:
    """(form, rank, inner rank, loss) over all ranks in steps of `align`; spatial and Tucker losses are estimates."""
    w, h = target.weight[0], target.hessian[0]
    if "channel" in forms:
        losses = channel_split(w, h).losses
        yield from (("channel", r, 0, float(losses[r])) for r in range(align, len(losses), align))
    if "spatial" in forms:
        losses = spatial_losses(target, layer)
        yield from (("spatial", r, 0, float(losses[r])) for r in range(align, len(losses), align))
    if "tucker" in forms:
        step = max(align, work.c // 8)
        for inner in range(step, work.c, step):
            _, rest, lost = tucker_split(w, h, work.c, inner)
            yield from (
                ("tucker", r, inner, lost + float(rest.losses[r])) for r in range(align, len(rest.losses), align)
            )
