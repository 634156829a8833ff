"""Channel pruning on the walk: whole channels go, tensors shrink, and every layer answers the teacher again.

A *group* (`channels.coupled`) is a set of channels that can only go together. Which of them go is decided by structured
optimal brain surgeon over all layers that read the group (`structured`); how many, by

  scope=layer   the same share of every group;
  scope=global  the knapsack over the groups' error curves, so that the model loses a share of its MACs or parameters.

Errors of different groups are made comparable by trial: each group is pruned alone, a little and much, and what that
does to the model's outputs on samples kept out of the fit (KL, or noise relative to signal) says how much an error e
there weighs: a e^p (docs/algorithms.md, section 8).

How channels then go is in `removal`. Kept counts are multiples of what the target's kernels like: odd counts make a
model slower than the dense one.

Not pruned: residual streams (unless `groups=all`), and what `Coupled.reason` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...ir.channels.coupled import CoupledChannels
from ...ir.cost import cost
from ...runtime.agreement_text import percent
from ..base import Context, Report
from ..walk.allocate import knapsack
from ..walk.choice import Choice
from ..walk.layerwise import FEW
from ..walk.tolerance import safest
from ..walk.walk import Step, walk
from .coupled import Coupled, refit_without
from .damage import Damage
from .removal import RemovalPlan, Scene, carry_out, columns_staying, cut, report_unreached
from .structured import Consumer, Removal, removal_order

if TYPE_CHECKING:
    from ...ir.graph import Graph, Node
    from .prune import Prune

SHARES = (0.35, 0.25, 0.15, 0.08)
"""The shares of the cost that a pass left to its own choice tries to remove."""

TRIAL = 48
"""Samples on which groups are tried alone."""

BUSIEST = 0.25
"""The least share of its channels that a group keeps when the allocator chooses."""


def prune_channels(options: Prune, graph: Graph, ctx: Context) -> Report:
    """Run `prune:kind=channels`."""
    report = Report()
    scene = Scene.of(graph, options.align or ctx.target.channel_alignment)
    open_ = _open_groups(options, scene, ctx, report)
    if not open_:
        report.notes.append("no group of channels can be pruned")
        return report
    ratios = {i: ctx.options(options, scene.groups[i].node).ratio or 0.0 for i in open_}
    own = any(ratio != options.ratio for ratio in ratios.values())
    if options.ratio is not None and (options.scope == "layer" or (options.scope == "auto" and own)):
        counts = _shares(scene, ratios, report)
        several = {i: count for i, count in counts.items() if len(scene.groups[i].readers) > 1}
        curves = damage_curves(scene, ctx, several, weigh=False)
        counts = {i: count for i, count in counts.items() if i not in several or i in curves}
        report_unreached(scene, [i for i in several if i not in curves], report)
        carry_out(options, scene, ctx, RemovalPlan(counts, {i: curve.removal for i, curve in curves.items()}), report)
        return report
    curves = damage_curves(scene, ctx, {i: least(scene.groups[i]) for i in open_})
    report_unreached(scene, [i for i in open_ if i not in curves], report)
    if not curves:
        return report
    if options.ratio is not None:
        plan = _allocate(scene, curves, options, options.ratio)
        carry_out(options, scene, ctx, plan, report)
        most = "no more than " if plan.share < options.ratio else ""
        report.notes.append(f"removed {most}{plan.share:.1%} of the {options.of}")
    else:
        _choose_safely(scene, ctx, curves, options, report)
    return report


def _open_groups(options: Prune, scene: Scene, ctx: Context, report: Report) -> list[int]:
    """The numbers of the groups that may be pruned; the others are reported."""
    groups = []
    for i, one in enumerate(scene.groups):
        reason = one.reason or next((why for node in one.group.nodes if (why := ctx.kept(options, node))), "")
        if not reason and one.stream and options.groups == "inner":
            reason = "a residual stream, which every block behind it reads; groups=all prunes it too"
        if not reason and not one.counts():
            reason = f"its {one.size} channels are no more than the {one.unit} that go at a time"
        if reason:
            report.skipped(one.name, one.node.op, reason, channels=one.size)
        else:
            groups.append(i)
    return groups


def _shares(scene: Scene, ratios: Mapping[int, float], report: Report) -> dict[int, int]:
    """How many channels each group keeps when that share of them should go: the nearest multiple of its unit, and at
    least one unit. Groups that keep all are reported instead."""
    counts = {}
    for i, ratio in ratios.items():
        one = scene.groups[i]
        count = max(round((1.0 - ratio) * one.size / one.unit), 1) * one.unit
        if count < one.size:
            counts[i] = count
        else:
            reason = f"{ratio:g} of its {one.size} channels is nearer to none than to the {one.unit} that go at a time"
            report.skipped(one.name, one.node.op, reason, channels=one.size)
    return counts


# -- what a group's channels are worth


@dataclass(frozen=True, slots=True)
class Curve:
    """A group's removal order, and what an error e in its readers does to the model's outputs: scale * e^power."""

    removal: Removal
    scale: float = 1.0
    power: float = 1.0

    def error(self, count: int) -> float:
        """What keeping `count` channels does to the outputs."""
        return self.scale * math.pow(self.removal.errors[len(self.removal.order) - count], self.power)


def damage_curves(scene: Scene, ctx: Context, floors: Mapping[int, int], *, weigh: bool = True) -> dict[int, Curve]:
    """The curves of the groups in `floors`, down to that many channels, from one walk over the unchanged student."""
    if not floors or ctx.fit is None:
        return {}
    waiting: dict[Node, list[int]] = {}
    consumers: dict[int, list[Consumer]] = {}
    steps: dict[int, list[Step]] = {}
    for i in floors:
        for reader in scene.groups[i].readers:
            waiting.setdefault(reader.layer.node, []).append(i)
    fit, trial = ctx.fit.split(min(TRIAL, ctx.fit.count // 4), ctx.seed)
    curves: dict[int, Curve] = {}
    layers = [layer for layer in scene.layers if layer.node in waiting]
    with Damage(scene.graph, trial, ctx.threads) if weigh else nullcontext() as damage:
        for step in walk(scene.graph, replace(ctx, fit=fit), layers, rows=FEW, eases=False):
            if damage is not None and not steps:  # nothing before this layer waits for its trial
                damage.advance(step.layer.source)
            for i in dict.fromkeys(waiting[step.layer.node]):
                one = scene.groups[i]
                for reader in one.readers:
                    if reader.layer is step.layer:
                        consumers.setdefault(i, []).extend(reader.consumers(step.target))
                steps.setdefault(i, []).append(step)
                if len(steps[i]) == len({r.layer for r in one.readers}):
                    removal = removal_order(consumers.pop(i), stop=floors[i])
                    measured = steps.pop(i)
                    curves[i] = Curve(removal) if damage is None else _weighed(one, measured, removal, damage)
    return curves


def least(one: Coupled) -> int:
    """The fewest channels that a group may keep: a whole unit, and no less than `BUSIEST` of them."""
    return min(one.counts(), key=lambda count: (count < BUSIEST * one.size, count))


def _weighed(one: Coupled, steps: list[Step], removal: Removal, damage: Damage) -> Curve:
    """The curve through the damage of removing about a quarter and half of the channels of this group alone."""
    counts = [c for c in one.counts() if c >= least(one)]
    tried: dict[int, tuple[float, float]] = {}
    for share in (0.75, 0.5):
        count = min(counts, key=lambda k: (abs(k - share * one.size), k))
        if count in tried:
            continue
        trial = {}
        for step in steps:
            weight = refit_without(step.target, columns_staying(step.layer, [(one, removal.keep(count))]))
            trial[step.layer] = weight, step.target.bias(weight)
        tried[count] = max(float(removal.errors[one.size - count]), 1e-12), max(damage.of(trial), 1e-12)
    (e, d), *more = tried.values()
    power = 1.0
    for e2, d2 in more:
        if e2 > e:
            power = min(max(math.log(d2 / d) / math.log(e2 / e), 1.0), 2.0)
            e, d = e2, d2
    return Curve(removal, d / e**power, power)


# -- how many channels of each group


def _allocate(scene: Scene, curves: Mapping[int, Curve], options: Prune, ratio: float) -> RemovalPlan:
    """The plan that removes at least `ratio` of the cost at the least error.

    Costs of groups that share a layer multiply, but the knapsack adds: its budget is found by bisection, so that the
    graph as it would really be meets the wanted cost.
    """
    whole = _cost(scene.graph, options)
    shares = _slopes(scene, curves, options)
    choices = []
    for i, curve in curves.items():
        one = scene.groups[i]
        options_: list[Choice[None]] = [Choice(shares[i] * one.size, 0.0, "keep", {"kept": one.size})]
        for count in one.counts():
            if count >= least(one):
                options_.append(Choice(shares[i] * count, curve.error(count), "channels", {"kept": count}))
        choices.append(options_)
    most = sum(max(c.cost for c in group) for group in choices)
    cheapest = sum(min(c.cost for c in group) for group in choices)
    best = {i: int(min(c.settings["kept"] for c in group)) for i, group in zip(curves, choices, strict=True)}
    low, high = cheapest, most
    costs: dict[tuple[int, ...], float] = {}  # different budgets often come to the same counts

    def cost_with(counts: Mapping[int, int]) -> float:
        key = tuple(counts.values())
        if key not in costs:
            costs[key] = _cost_with(scene.graph, counts, curves, options)
        return costs[key]

    for _ in range(10):
        budget = (low + high) / 2
        picked = knapsack(choices, budget)
        counts = {i: int(choice.settings["kept"]) for i, choice in zip(curves, picked, strict=True)}
        if cost_with(counts) <= (1.0 - ratio) * whole:
            best, low = counts, budget
        else:
            high = budget
    share = 1.0 - cost_with(best) / max(whole, 1.0)
    return RemovalPlan(best, {i: curve.removal for i, curve in curves.items()}, share)


def _cost(graph: Graph, options: Prune) -> float:
    """What `options.of` counts: MACs of the model, or parameters of its layers (embeddings are none)."""
    if options.of == "macs":
        return float(cost(graph).macs)
    values = {
        v for n in graph if n.op in ("Conv", "Gemm", "MatMul", "ConvTranspose") for v in n.inputs if v is not None
    }
    return float(sum(v.constant.size for v in values if v.constant is not None))


def _cost_with(graph: Graph, counts: Mapping[int, int], curves: Mapping[int, Curve], options: Prune) -> float:
    """The cost of `graph` with `counts` channels in the groups."""
    trial = graph.clone()
    channels = CoupledChannels(trial)
    cut(channels, {i: curves[i].removal.keep(count) for i, count in counts.items()})
    return _cost(trial, options)


def _slopes(scene: Scene, curves: Mapping[int, Curve], options: Prune) -> dict[int, float]:
    """The cost of one channel of each group, all others as they are."""
    nodes = cost(scene.graph).nodes
    slopes = {}
    for i in curves:
        one = scene.groups[i]
        total = 0.0
        for member in one.group.members:
            size = 0 if member.value.constant is None else member.value.constant.size
            for node, index, _ in member.uses:
                share = len(member.positions(0)) / len(member.index)
                if options.of == "params":
                    total += share * size / len(member.uses)
                elif index == 1 or (node.op == "MatMul" and index == 0):
                    total += share * nodes[node].macs
        slopes[i] = total
    return slopes


def _choose_safely(scene: Scene, ctx: Context, curves: Mapping[int, Curve], options: Prune, report: Report) -> None:
    """The largest of `SHARES` that is safe (`tolerance`); else nothing is pruned."""
    removed: dict[float, float] = {}

    def run(graph: Graph, share: float) -> Report:
        plan = _allocate(scene, curves, options, share)
        outcome = Report()
        carry_out(options, Scene.of(graph, options.align or ctx.target.channel_alignment), ctx, plan, outcome)
        removed[share] = plan.share
        return outcome

    choice = safest(scene.graph, ctx, SHARES, run)
    if choice.amount is not None:
        agrees = "" if choice.share is None else f", at an agreement of {percent(choice.share)}"
        report.notes.append(f"removed {removed[choice.amount]:.1%} of the {options.of}{agrees}")
        report.layers += choice.report.layers
        report.notes += choice.report.notes
        return
    least_share = min(removed.values())  # which steps of whole units may take beyond what was tried
    for i in curves:
        one = scene.groups[i]
        reason = f"removing {least_share:.1%} of the {options.of} would leave an agreement of {percent(choice.share)}"
        report.skipped(one.name, one.node.op, f"{reason}, below {100 * choice.floor:.4g} %", channels=one.size)
