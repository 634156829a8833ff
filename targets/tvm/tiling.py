"""How a contraction is cut so that its running sums stay in registers.

The innermost kernel holds `points` x `chunks` x (block / lanes) sums. For every term of the sum it loads `chunks`
blocks of weights and `points` values that are spread over a register, and does one multiply-add a sum. With two
multiply-adds and two loads a cycle and a latency of four, a term costs max(sums / 2, loads / 2, 4) cycles and a little
for each load; the tile with the fewest cycles a sum is taken (Goto and van de Geijn, "Anatomy of High-Performance
Matrix Multiplication", 2008, section 6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .machine import Machine

_LATENCY = 4
_TRAFFIC = 0.15
"""Cycles that a load costs beyond its issue, for those that come from further away than the nearest cache."""
_MOST_POINTS = 14
_MOST_CHUNKS = 4
_WASTE = 1.05
"""So many times the channels that are wanted may be computed."""
_RAGGED_GAIN, _RAGGED_ROW_GAIN = 0.9, 0.8
"""A tile that does not divide the points must cost less than this share of the best that does; where rows end inside
tiles, less than the second."""


@dataclass(frozen=True, slots=True)
class Tile:
    """`points` of the output (pixels, rows) by `chunks` blocks of channels."""

    points: int
    chunks: int


def cycles(points: int, chunks: int, machine: Machine, spare: int = 0) -> float:
    """Cycles a running sum for one term, or infinity where the registers, but for `spare` ones, do not suffice."""
    sums = points * chunks * machine.vectors
    weights = chunks * machine.vectors
    if sums + min(weights, points) + 1 + spare > machine.registers:
        return math.inf
    return (max(sums / 2, (weights + points) / 2, _LATENCY) + _TRAFFIC * (weights + points)) / sums


def choose(
    chunks: int, points: int | None, machine: Machine, row: int | None = None, exact: bool = False, spare: int = 0
) -> Tile:
    """The best tile for so many blocks of output channels and points (`None`: a number known only when it runs).

    A tile that divides `row`, the points of one row (all of them unless given), needs no bounds; another is taken only
    where it is clearly faster all the same. `exact` asks for a whole number of tiles of channels, which a few channels
    more make otherwise.
    """
    best, least = Tile(1, 1), math.inf
    ragged, least_ragged = best, math.inf
    for c in range(1, _MOST_CHUNKS + 1):
        if chunks % c and (exact or -(-chunks // c) * c > _WASTE * chunks):
            continue
        for p in range(1, _MOST_POINTS + 1):
            cost = cycles(p, c, machine, spare)
            if points is None or (row or points) % p == 0:
                if cost < least:
                    best, least = Tile(p, c), cost
            elif (cost := cost * math.ceil(points / p) * p / points) < least_ragged:
                ragged, least_ragged = Tile(p, c), cost
    gain = _RAGGED_GAIN if row is None else _RAGGED_ROW_GAIN
    return ragged if least_ragged < gain * least else best
