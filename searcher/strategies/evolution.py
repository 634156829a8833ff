"""NSGA-II over picks (Deb et al. 2002): what they cost against what they lose, seeded by the knapsack.

The first generation are the exact answers at ten budgets around the one that is wanted. Generations go by on the
prediction, which each candidate that was built corrects; proposed is, of what has not been built, the pick that is
predicted to lose least within the caps, and in every third turn one from elsewhere on the front near them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..additive import cheapest_loss
from ..space import Pick
from ..task import Task
from .random import drawn

POPULATION, GENERATIONS = 40, 8
BUDGETS = np.geomspace(0.6, 1.4, 10)
_NEAR = 1.1
"""How far above its caps a pick of the front may be that is proposed to learn from it."""

Points = NDArray[np.float64]


def propose(task: Task) -> Iterator[Pick]:
    population = _seeds(task)
    seen = {one.pick for one in task.judged}
    turn = 0
    while True:
        population = list(dict.fromkeys([*population, *_seeds(task, wide=False)]))
        for _ in range(GENERATIONS):
            population = _next(task, population)
        fresh = sorted((pick for pick in population if pick not in seen), key=task.predicted)
        if turn % 3 == 2:
            near = [pick for pick in fresh if task.predicted(pick)[0] <= _NEAR - 1.0]
            fresh = [near[int(task.random.integers(len(near)))]] if near else fresh
        pick = fresh[0] if fresh else drawn(task.space, task.random)
        seen.add(pick)
        turn += 1
        yield pick


def _seeds(task: Task, *, wide: bool = True) -> list[Pick]:
    picks = []
    for share in BUDGETS if wide else (1.0,):
        caps = {metric: float(share) * cap for metric, cap in task.aim.caps.items()}
        picks += [pick for form in task.space.forms if (pick := cheapest_loss(task, form, caps)) is not None]
    while wide and len(picks) < POPULATION:
        picks.append(drawn(task.space, task.random))
    return picks


def _next(task: Task, population: Sequence[Pick]) -> list[Pick]:
    """The best of a generation and its children."""
    whole = list(dict.fromkeys([*population, *(_child(task, population) for _ in range(POPULATION))]))
    points = np.array([task.predicted(pick) for pick in whole])
    chosen: list[Pick] = []
    for front in fronts(points):
        room = POPULATION - len(chosen)
        if len(front) > room:
            front = sorted(front, key=dict(zip(front, -crowding(points[front]), strict=True)).__getitem__)[:room]
        chosen += [whole[i] for i in front]
        if len(chosen) == POPULATION:
            break
    return chosen


def _child(task: Task, population: Sequence[Pick]) -> Pick:
    random, space = task.random, task.space
    one, other = (population[int(i)] for i in random.integers(len(population), size=2))
    form = one.form
    if random.random() < 0.05:
        form = space.forms[int(random.integers(len(space.forms)))]
    at = []
    for site in range(len(space.sites)):
        place = one.at[site] if random.random() < 0.5 else other.at[site]
        if random.random() < 1.5 / len(space.sites):
            place = int(random.integers(len(space.options(site, form))))
        at.append(place)
    return space.within(Pick(form, tuple(at)))


def fronts(points: Points) -> list[list[int]]:
    """The places of points by rank: those that none dominates, then those that only these dominate, and so on."""
    gaps = points[:, None, :] - points[None, :, :]
    better: NDArray[np.bool_] = np.asarray((gaps <= 0).all(axis=2) & (gaps < 0).any(axis=2), dtype=bool)
    left, ranks = np.ones(len(points), dtype=bool), []
    while left.any():
        front = np.flatnonzero(left & ~better[left].any(axis=0))
        ranks.append([int(i) for i in front])
        left[front] = False
    return ranks


def crowding(points: Points) -> Points:
    """How far the neighbours of each point of a front are from it; infinite at its ends."""
    distance = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        span = max(float(values[order[-1]] - values[order[0]]), 1e-30)
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
    return distance
