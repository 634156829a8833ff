"""How far a budget is from what the options of a model can do."""

from __future__ import annotations

from .additive import joints
from .space import Metric, Pick
from .task import Task


def cheapest(task: Task, metric: Metric) -> Pick:
    """The pick that is predicted to cost least."""
    space = task.space
    picks = []
    for form in space.forms:
        pick = space.within(space.pick(form))
        for one in joints(space, form):
            places = []
            for at in one.at:
                changed = list(pick.at)
                for site, i in zip(one.sites, at, strict=True):
                    changed[site] = i
                places.append(Pick(form, tuple(changed)))
            pick = min(places, key=lambda p: task.surrogate.costs(p)[metric])
        picks.append(pick)
    return min(picks, key=lambda p: task.surrogate.costs(p)[metric])


def least_reachable(task: Task) -> list[str]:
    """A sentence for each cap that no candidate kept, and no pick is predicted to keep."""
    notes = []
    surveyed = bool(task.space.layers)
    for metric, cap in task.aim.limited.items():
        reached = [one.figures.costs[metric] for one in task.judged if metric in one.figures.costs]
        if surveyed:
            reached.append(task.surrogate.costs(cheapest(task, metric))[metric])
        if reached and (least := min(reached)) > cap:
            any_plan = "the least any plan reaches" if surveyed else "the least of what was tried"
            notes.append(f"{metric}: at most {cap:.3g}x is wanted, and {any_plan} is {least:.3g}x")
    return notes
