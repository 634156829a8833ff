"""Latency of several sessions, interleaved in one process.

Runnables take turns, in an order that is reversed every round, so that a machine that grows warm or busy slows all of
them alike; what is compared is the ratio within a round. A measurement is the fastest of a few runs: what a busy
machine adds to a run is never negative. Rounds go on until the ratio is known well enough or the time is up; where the
caller only asks on which side of a border the ratio lies, until that is known.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .columns import Array
from .session import Runnable

_STRETCH = 10e-3
"""Seconds of runs that one measurement takes the fastest of by default, where that is more than `_REPEATS` runs."""
_REPEATS = 3
_FEWEST, _MOST = 5, 1000
_ENOUGH = 0.005
"""The standard error of the median ratio at which measuring stops."""
_SURE = 4.0
"""Standard errors, and `_ENOUGH` besides, that a ratio must be away from a border to be surely on its side of it."""


@dataclass(frozen=True, slots=True)
class Latency:
    """One session. `seconds` is the median over rounds of one run, `fast` and `slow` its quartiles; `ratio` the median
    over rounds of its time to the first session's, with the quartiles `low` and `high`; below 1 is faster."""

    seconds: float
    ratio: float
    low: float
    high: float
    rounds: int
    fast: float
    slow: float


def latency(
    sessions: Sequence[Runnable],
    feeds: Mapping[str, Array] | Sequence[Mapping[str, Array]],
    *,
    limit: float = 3.0,
    stretch: float = _STRETCH,
    border: float | None = None,
) -> tuple[Latency, ...]:
    """Time `sessions` on `feeds` (the same for all, or one for each) in about `limit` seconds, at least five rounds.

    One measurement is the fastest run of about `stretch` seconds. With a `border`, the last session's ratio is measured
    no longer than it takes to tell on which side it lies. Threads are the sessions' own. Raises `TargetError` where a
    run fails.
    """
    each = [feeds] * len(sessions) if isinstance(feeds, Mapping) else list(feeds)
    repeats = [_warm(session, feed, stretch) for session, feed in zip(sessions, each, strict=True)]
    rows: list[list[float]] = []
    end = time.perf_counter() + limit
    while len(rows) < _FEWEST or (
        len(rows) < _MOST and time.perf_counter() < end and not _settled(rows) and not _decided(rows, border)
    ):
        row = [0.0] * len(sessions)
        order = range(len(sessions)) if len(rows) % 2 == 0 else reversed(range(len(sessions)))
        for i in order:
            row[i] = _time(sessions[i], each[i], repeats[i])
        rows.append(row)
    times = np.asarray(rows)
    ratios = times / times[:, :1]
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75), axis=0).tolist()
    fast, median, slow = np.quantile(times, (0.25, 0.5, 0.75), axis=0).tolist()
    return tuple(
        Latency(median[i], middle[i], low[i], high[i], len(rows), fast[i], slow[i]) for i in range(len(sessions))
    )


def _warm(session: Runnable, feed: Mapping[str, Array], stretch: float) -> int:
    """Run a few times unmeasured; returns how many runs one measurement is the fastest of."""
    session.run(feed)
    session.run(feed)
    return max(_REPEATS, round(stretch / max(_time(session, feed, 1), 1e-6)))


def _time(session: Runnable, feed: Mapping[str, Array], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        session.run(feed)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _settled(rows: list[list[float]]) -> bool:
    """Whether the median ratios are known to `_ENOUGH`: 1.25 standard deviations, from the quartiles, over root n."""
    if len(rows) < 4 * _FEWEST or len(rows) % _FEWEST:
        return False
    times = np.asarray(rows)
    low, high = np.quantile(times[:, 1:] / times[:, :1], (0.25, 0.75), axis=0)
    spread = (high - low).max(initial=0.0) / 1.35
    return bool(1.25 * spread / np.sqrt(len(rows)) < _ENOUGH)


def _decided(rows: list[list[float]], border: float | None) -> bool:
    """Whether the last session's ratio is surely on one side of `border`: in all rounds but a tenth, and its median."""
    if border is None:
        return False
    times = np.asarray(rows)
    ratios = times[:, -1] / times[:, 0]
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    above = np.count_nonzero(ratios > border)
    error = 1.25 * (high - low) / 1.35 / np.sqrt(len(ratios))
    return bool(
        10 * min(above, len(ratios) - above) <= len(ratios) and abs(middle - border) > _SURE * error + _ENOUGH * border
    )
