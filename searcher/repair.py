"""Bringing a pick within the caps by exchanging one option at a time: what loses least for what it saves goes first."""

from __future__ import annotations

from collections.abc import Iterator

from .space import Pick
from .task import Task


def neighbours(task: Task, pick: Pick) -> Iterator[Pick]:
    """The picks that differ in one option."""
    for site, place in enumerate(pick.at):
        for other in range(len(task.space.options(site, pick.form))):
            if other != place:
                yield Pick(pick.form, (*pick.at[:site], other, *pick.at[site + 1 :]))


def repaired(task: Task, pick: Pick) -> Pick:
    """The pick, or one near it that is predicted to keep the caps; the nearest to that where none is on the way."""
    excess, loss = task.predicted(pick)
    while excess > 0.0:
        best: tuple[float, Pick, float, float] | None = None
        for other in neighbours(task, pick):
            less, lost = task.predicted(other)
            if less < excess - 1e-12:
                price = max(lost - loss, 0.0) / (excess - less)
                if best is None or price < best[0]:
                    best = price, other, less, lost
        if best is None:
            break
        _, pick, excess, loss = best
    return pick
