"""The search: workloads by their share of the time, and for each one property of its tile after the other.

A tile that looks faster than the default by the margin is timed again, longer, and the worse of the two counts: the
best of many noisy measurements would otherwise be a lucky one. Whatever is measured is recorded at once, so a search
that stops early has lost nothing, and the next goes on behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..compute.workload import Workload
from ..cpu.machine import Machine
from ..cpu.tiling import Tile
from .kernel import alone
from .records import MARGIN, Records
from .runner import Runner, Timed, ratio, seconds

_LONGER = 15


@dataclass(frozen=True, slots=True)
class Ended:
    """`left` workloads have tiles that were not tried; `interrupted` tells that the user did not wait for the end."""

    trials: int
    left: int
    interrupted: bool


def search(
    counts: Mapping[Workload, int],
    machine: Machine,
    records: Records,
    open_runner: Callable[[], Runner],
    limit: float,
    *,
    advance: Callable[[float], None] = lambda seconds: None,
    clock: Callable[[], float] = time.monotonic,
) -> Ended:
    """Try tiles of the workloads, each met so often, for `limit` seconds. Raises `TargetError` where a device fails."""
    todo = [work for work in counts if work.fixed and _next(work, machine, records) is not None]
    if not todo or limit <= 0:
        return Ended(0, len(todo), False)
    trials, start = 0, clock()
    last = start

    def late() -> bool:
        nonlocal last
        now = clock()
        advance(now - last)
        last = now
        return now - start >= limit

    try:
        runner = open_runner()
        try:
            for work, taken, default in _by_share(todo, counts, machine, runner, late):
                while not late() and (tile := _next(work, machine, records)) is not None:
                    records.add(work, tile, taken, _tried(work, tile, machine, runner, default))
                    trials += 1
        finally:
            runner.close()
    except KeyboardInterrupt:
        return Ended(trials, _left(todo, machine, records), True)
    return Ended(trials, _left(todo, machine, records), False)


def _left(todo: list[Workload], machine: Machine, records: Records) -> int:
    return sum(_next(work, machine, records) is not None for work in todo)


def _by_share(
    todo: list[Workload], counts: Mapping[Workload, int], machine: Machine, runner: Runner, late: Callable[[], bool]
) -> Iterator[tuple[Workload, float, Timed]]:
    """The workloads, those that take most of the time first, each with the seconds of its default, and that itself."""
    timed: list[tuple[float, Workload, Timed]] = []
    for work in todo:
        if late():
            break
        default = _load(work, work.default(machine), machine, runner)
        if default is not None:
            timed.append((seconds(default), work, default))
    for taken, work, default in sorted(timed, key=lambda one: -one[0] * counts[one[1]]):
        yield work, taken, default


def _load(work: Workload, tile: Tile, machine: Machine, runner: Runner) -> Timed | None:
    kernel = alone(work, tile, machine)
    return None if kernel is None else runner.load(kernel)


def _tried(work: Workload, tile: Tile, machine: Machine, runner: Runner, default: Timed) -> float | None:
    other = _load(work, tile, machine, runner)
    if other is None:
        return None
    measured = ratio(default, other)
    return measured if measured >= 1 - MARGIN else max(measured, ratio(default, other, _LONGER))


def _next(work: Workload, machine: Machine, records: Records) -> Tile | None:
    """The tile to try next; none where all were."""
    default = best = work.default(machine)
    for name, tiles in work.candidates(machine):
        if name == "tile":
            options = [replace(best, points=one.points, chunks=one.chunks) for one in tiles]
        else:
            options = [replace(best, **{name: getattr(one, name)}) for one in tiles]
        for tile in options:
            if tile != default and not records.tried(work, tile):
                return tile
        best = records.best(work, default)
    return None
