"""The knapsack of a form: exact where costs add up, and led there by steps where they multiply.

Options of structure, bits and form of one layer multiply, so they are one choice of the knapsack. Channels of a group
that a layer shares with others multiply too, over layers: there costs are taken as they change from a pick to its
neighbours, one option exchanged; the answer is the next such pick, a few times over.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .knapsack import knapsack
from .space import WHOLE, Metric, Pick, Space
from .task import Task

_ROUNDS = 4

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Joint:
    """Sites that are chosen together, and their options together: `at` (options, sites)."""

    sites: tuple[int, ...]
    at: tuple[tuple[int, ...], ...]


def joints(space: Space, form: str) -> list[Joint]:
    """The structure, bits and form of each layer as one; all else alone."""
    together: dict[tuple[str, str], list[int]] = {}
    for number, site in enumerate(space.sites):
        kind = "layer" if site.kind in ("structure", "bits", "activations") else site.kind
        together.setdefault((kind, site.name), []).append(number)
    return [
        Joint(tuple(sites), tuple(itertools.product(*(range(len(space.options(i, form))) for i in sites))))
        for sites in together.values()
    ]


def cheapest_loss(
    task: Task, form: str, caps: Mapping[Metric, float], tilt: Mapping[str, float] | None = None
) -> Pick | None:
    """The pick of `form` within `caps` that is predicted to lose least; `None` where there is none. `tilt` are factors
    on the losses of families."""
    space, weights = task.space, task.surrogate.weights
    each = joints(space, form)
    factor = {family: weights.get(family, 1.0) * (tilt or {}).get(family, 1.0) for family in _families(space)}
    losses = [_losses(space, one, form, factor) for one in each]
    metrics = list(caps)
    goal = np.array([caps[metric] for metric in metrics])
    base, best, least = space.within(space.pick(form)), None, np.inf
    for _ in range(_ROUNDS):
        costs, whole = _changes(task, each, base, metrics)
        answer = knapsack(losses, costs, goal - whole)
        if answer is None:
            break
        pick = _pick(space, form, each, answer.at)
        if (_costs(task, pick, metrics) <= goal * (1 + 1e-9)).all() and answer.loss < least:
            best, least = pick, answer.loss
        if pick == base:
            break
        base = pick
    return best or _shrunk(task, form, each, losses, metrics, goal)


def _shrunk(
    task: Task, form: str, each: list[Joint], losses: list[Array], metrics: list[Metric], goal: Array
) -> Pick | None:
    """The first answer within `goal` as the caps of the knapsack shrink: costs that multiply were taken to add."""
    base = task.space.within(task.space.pick(form))
    for share in (0.95, 0.9, 0.8, 0.7, 0.6, 0.5):
        costs, whole = _changes(task, each, base, metrics)
        answer = knapsack(losses, costs, share * goal - whole)
        if answer is None:
            return None
        base = _pick(task.space, form, each, answer.at)
        if (_costs(task, base, metrics) <= goal * (1 + 1e-9)).all():
            return base
    return None


def _changes(task: Task, each: list[Joint], base: Pick, metrics: list[Metric]) -> tuple[list[Array], Array]:
    """What each option of each joint changes in the costs of `base`, (options, metrics), and the costs of `base`."""
    space = task.space
    reaching = {number for number, site in enumerate(space.sites) if site.kind in (*WHOLE, "activations")}
    bare = not any(base.at[number] for number in reaching)
    picks = [base]
    for one in each:
        for at in one.at:
            places = list(base.at)
            for site, i in zip(one.sites, at, strict=True):
                places[site] = i
            pick = Pick(base.form, tuple(places))
            # What no option reaches beyond its own site is all there.
            alone = bare and not any(i for site, i in zip(one.sites, at, strict=True) if site in reaching)
            picks.append(pick if alone else space.within(pick))
    costs = task.surrogate.careful_of(base.form, np.array([pick.at for pick in picks], np.intp))
    whole, *others = np.stack([costs[metric] for metric in metrics], axis=1)
    ends = np.cumsum([len(one.at) for one in each])[:-1]
    return np.split(np.reshape(others, (-1, len(metrics))) - whole, ends), whole


def _costs(task: Task, pick: Pick, metrics: list[Metric]) -> Array:
    costs = task.surrogate.careful(task.space.within(pick))
    return np.array([costs[metric] for metric in metrics])


def _losses(space: Space, one: Joint, form: str, factor: Mapping[str, float]) -> Array:
    """The predicted loss of each option of a joint."""

    def loss(site: int, i: int) -> float:
        option = space.options(site, form)[i]
        return factor.get(option.family, 0.0) * option.loss

    return np.array([sum(map(loss, one.sites, at)) for at in one.at])


def _pick(space: Space, form: str, each: list[Joint], answer: tuple[int, ...]) -> Pick:
    places = [0] * len(space.sites)
    for one, i in zip(each, answer, strict=True):
        for site, place in zip(one.sites, one.at[i], strict=True):
            places[site] = place
    return space.within(Pick(form, tuple(places)))


def _families(space: Space) -> set[str]:
    return {option.family for site in space.sites for option in site.options if option.family}
