"""Factoring every layer of a graph on the walk.

A layer is offered the unchanged form and, for every form that fits it, ranks from one upwards; kept are only choices
that save MACs and parameters. Without a ratio each layer takes the cheapest choice whose loss stays within `error` of
its answer's variance and that does not run longer than the layer, as measured (`layer_time`). With one, each layer
keeps that share of its MACs (`scope=layer`), or a first walk over the unchanged student records every choice's error
and the knapsack spreads the share (`scope=global`); it is the user's to know that they pay.

Skipped: grouped and depthwise convolutions (already thin), layers that read the graph's input, layers where no rank
pays, and what a rival does better (`rivals`). Layers that the user keeps are not even refitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..base import Context, Detail, Report, Skip
from ..walk.allocate import knapsack
from ..walk.choice import Choice
from ..walk.layer_time import slower, time_ratio
from ..walk.linear import Linear, too_small
from ..walk.rivals import made_by_rivals, outdo
from ..walk.saturation import eased
from ..walk.target import Array, Target
from ..walk.walk import Step, thin_note, walk, walkable
from .channel import channel_split
from .split import Split, Work, forms_of, resplit, spatial_losses, split
from .tucker import tucker_split

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from .svd import Svd


def factorise(options: Svd, graph: Graph, ctx: Context) -> Report:
    """Run the pass `svd`."""
    report = Report()
    layers = walkable(graph, report)
    whole = _kept_whole(layers) | made_by_rivals(layers, ctx)
    kept = {layer: reason for layer in layers if (reason := ctx.kept(options, layer.node))}
    whole |= kept
    own = {layer: ctx.options(options, layer.node) for layer in layers if layer not in kept}
    chosen = (
        _allocated(options, graph, ctx, [x for x in layers if x not in whole and own[x].ratio == options.ratio])
        if options.ratio is not None and options.scope == "global"
        else {}
    )
    for layer, reason in whole.items():
        report.skipped(layer.name, layer.op, reason)
    thin = 0
    for step in walk(graph, ctx, layers, report=report, changing=[layer for layer in layers if layer not in whole]):
        thin += step.thin
        layer = step.layer
        if layer in whole:
            if layer not in kept:
                step.settle()
            continue
        try:
            work = Work.of(step)
            mine = own[layer]
            made, times = _choose(step, mine, ctx, work, chosen.get(layer))
            choice = _choice(step, work, made)
            over = outdo(step, ctx, choice, mine.error if mine.ratio is None else None)
            made, target = eased(step.saturation, step.target, made, _merged, partial(resplit, layer))
        except Skip as skip:
            step.settle()
            report.skipped(layer.name, layer.op, skip.reason)
            continue
        error = step.target.error(made.merged[None])
        made.apply(layer, target)
        more: dict[str, Detail] = {**({} if times is None else {"time": times}), **layer.shared, **over}
        report.done(layer.name, layer.op, form=made.form, **choice.settings, macs=round(choice.cost, 4),
                    error=round(error, 6), **more)  # fmt: skip
    if thin:
        report.notes.append(thin_note(thin))
    return report


def _kept_whole(layers: list[Linear]) -> dict[Linear, str]:
    """The layers that stay whole, with the reason."""
    reasons = too_small(layers)
    for layer in layers:
        if layer.groups > 1:
            reasons[layer] = "grouped convolution: thin already"
        elif layer.source.is_input:
            reasons[layer] = "it reads the model's input: few weights, and every one of them matters"
    return reasons


def _merged(made: Split) -> Array:
    return made.merged


def _choice(step: Step, work: Work, made: Split) -> Choice:
    """A split as it is, its cost a share of the layer's MACs."""
    ranks = (len(made.factors[0]),) if len(made.factors) == 2 else (len(made.factors[1]), len(made.factors[0]))
    cost = work.macs(made.form, *ranks) / work.macs("keep", 0)
    error = step.target.error(made.merged[None])
    return Choice(cost, error, made.form, dict(zip(("rank", "rank_in"), ranks, strict=False)))


def _choose(step: Step, options: Svd, ctx: Context, work: Work, fixed: Choice | None) -> tuple[Split, float | None]:
    """The split that the options ask for, with how many times as long it takes where that was asked.

    Raises `Skip` where leaving the layer whole is best.
    """
    forms = _forms(options, step.layer)
    align = options.align or ctx.target.channel_alignment
    target = step.target
    if fixed is not None:
        if fixed.form == "keep":
            raise Skip("the share it could give is cheaper elsewhere")
        return _build(target, step.layer, fixed), None
    choices = [c for c in choices_of(target, step.layer, work, forms, align) if c.form != "keep"]
    if options.ratio is not None:
        made = _best_within(step, choices, options.ratio * work.macs("keep", 0))
        if made is None:
            raise Skip(f"no rank in steps of {align} keeps within {options.ratio:g} of its MACs")
        return made, None
    error = options.error or 0.0
    slow: dict[str, str] = {}
    for choice in sorted(choices, key=lambda c: c.cost):
        if choice.error > 1.5 * error or choice.form in slow:
            continue  # the curves are not that far from what fitting gives; more ranks are slower still
        made = _build(target, step.layer, choice)
        if made.loss <= error * target.energy:
            ratio = _time(step, ctx, made)
            if not slower(ratio):
                return made, ratio
            slow[choice.form] = f"{ratio:.2f} times as long as {choice}"
    if slow:
        raise Skip(f"within an error of {error:g} it would run {' and '.join(slow.values())}")
    raise Skip(f"no rank saves MACs and parameters within an error of {error:g}")


def _time(step: Step, ctx: Context, made: Split) -> float | None:
    ranks = "x".join(str(len(factor)) for factor in made.factors[:-1])
    return time_ratio(step, ctx, f"svd {made.form} {ranks}", lambda layer: made.apply(layer, step.target))


def _best_within(step: Step, choices: list[Choice], limit: float) -> Split | None:
    """The split of least loss among the best of each form within `limit` MACs."""
    best: dict[str, Choice] = {}
    for choice in choices:
        if choice.cost <= limit and (choice.form not in best or choice.error < best[choice.form].error):
            best[choice.form] = choice
    built = (_build(step.target, step.layer, c) for c in best.values())
    return min(built, key=lambda made: made.loss, default=None)


def offer(options: Svd, step: Step, ctx: Context, most: float, tolerance: float) -> Choice | None:
    """See `Pass.offer`."""
    try:
        forms = _forms(options, step.layer)
    except Skip:
        return None
    work = Work.of(step)
    choices = choices_of(step.target, step.layer, work, forms, options.align or ctx.target.channel_alignment)
    share = most if options.ratio is None else min(most, options.ratio)
    made = _best_within(step, [c for c in choices if c.form != "keep"], share * work.macs("keep", 0))
    allowed = tolerance if options.error is None else options.error
    if made is None:
        return None
    if options.ratio is None and (made.loss > allowed * step.target.energy or slower(_time(step, ctx, made))):
        return None
    return _choice(step, work, made)


def _forms(options: Svd, layer: Linear) -> tuple[str, ...]:
    forms = forms_of(layer)
    if options.form == "auto":
        return forms
    if options.form not in forms:
        raise Skip(f"the {options.form} form needs a kernel of at least 2 x 2")
    return (options.form,)


def _build(target: Target, layer: Linear, choice: Choice) -> Split:
    return split(target, layer, choice.form, int(choice.settings["rank"]), int(choice.settings.get("rank_in", 0)))


def choices_of(target: Target, layer: Linear, work: Work, forms: tuple[str, ...], align: int) -> list[Choice]:
    """The unchanged layer, and every split that saves MACs and has fewer parameters than the layer has that are not
    zero, with its cost in MACs and its error."""
    whole, size = work.macs("keep", 0), int(np.count_nonzero(layer.weights()))
    choices = [Choice(whole, 0.0)]
    for form, rank, inner, loss in _losses(target, layer, work, forms, align):
        macs = work.macs(form, rank, inner)
        if macs < whole and work.parameters(form, rank, inner) < size:
            settings = {"rank": rank, "rank_in": inner} if inner else {"rank": rank}
            choices.append(Choice(macs, loss / max(target.energy, 1e-30), form, settings))
    return choices


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


def _allocated(options: Svd, graph: Graph, ctx: Context, layers: list[Linear]) -> dict[Linear, Choice]:
    """One choice a layer under the budget of MACs, from the errors of the unchanged student.

    Errors are shares of each layer's own answer, summed as they are. Weighing them by what each layer alone does to the
    outputs looks better founded and is worse: layers whose loss the others make up for when nothing else is lost are
    then given almost nothing (ResNet-20 at half the MACs: 84.1 % so weighed, 90.2 % plain).
    """
    align = options.align or ctx.target.channel_alignment
    found: dict[Linear, list[Choice]] = {}
    for step in walk(graph, ctx, layers):
        try:
            forms = _forms(ctx.options(options, step.layer.node), step.layer)
        except Skip:
            forms = ()
        found[step.layer] = choices_of(step.target, step.layer, Work.of(step), forms, align)
    budget = float(np.sum([max(c.cost for c in choices) for choices in found.values()])) * (options.ratio or 1.0)
    return dict(zip(found, knapsack(list(found.values()), budget), strict=True))
