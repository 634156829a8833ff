"""A control: picks drawn at random, such that they are predicted to keep the budget."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..space import Pick, Space
from ..task import Task

_DRAWS = 400


def propose(task: Task) -> Iterator[Pick]:
    while True:
        yield drawn_within(task)


def drawn_within(task: Task) -> Pick:
    """A random pick that is predicted to keep the caps; the nearest to it of many where none does."""
    picks = []
    for _ in range(_DRAWS):
        pick = drawn(task.space, task.random)
        excess, _ = task.predicted(pick)
        if excess == 0.0:
            return pick
        picks.append((excess, pick))
    return min(picks, key=lambda one: one[0])[1]


def drawn(space: Space, random: np.random.Generator) -> Pick:
    """A random pick: how much is changed at all is drawn first, then what."""
    form = space.forms[int(random.integers(len(space.forms)))]
    much = random.random()
    at = []
    for site in range(len(space.sites)):
        count = len(space.options(site, form))
        at.append(int(random.integers(count)) if random.random() < much else 0)
    return Pick(form, tuple(at))
