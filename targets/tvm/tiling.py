"""How a contraction is cut so that its running sums stay in registers.

The innermost kernel holds `points` x `chunks` x (block / lanes) sums. For every term of the sum it loads `chunks`
blocks of weights and `points` values that are spread over a register, and does one multiply-add a sum. With two
multiply-adds and two loads a cycle and a latency of four, a term costs max(sums / 2, loads / 2, 4) cycles; the tile
with the fewest cycles a sum is taken (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008,
section 6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .machine import Machine

_LATENCY = 4
_MOST_POINTS = 14
_MOST_CHUNKS = 4
_RAGGED_GAIN = 0.8
"""A tile that does not divide the points must cost less than this share of the best that does."""


@dataclass(frozen=True, slots=True)
class Tile:
    """`points` of the output (pixels, rows) by `chunks` blocks of channels."""

    points: int
    chunks: int


def cycles(points: int, chunks: int, machine: Machine) -> float:
    """Cycles a running sum for one term, or infinity where the registers do not suffice."""
    sums = points * chunks * machine.vectors
    weights = chunks * machine.vectors
    if sums + min(weights, points) + 1 > machine.registers:
        return math.inf
    return max(sums / 2, (weights + points) / 2, _LATENCY) / sums


def choose(chunks: int, points: int | None, machine: Machine, row: int | None = None) -> Tile:
    """The best tile for so many blocks of output channels and points (`None`: a number known only when it runs).

    A tile that divides `row`, the points of one row (all of them unless given), needs no bounds; another is taken only
    where it is clearly faster all the same.
    """
    best, least = Tile(1, 1), math.inf
    ragged, least_ragged = best, math.inf
    for c in range(1, _MOST_CHUNKS + 1):
        if chunks % c:
            continue
        for p in range(1, _MOST_POINTS + 1):
            cost = cycles(p, c, machine)
            if points is None or (row or points) % p == 0:
                if cost < least:
                    best, least = Tile(p, c), cost
            elif (cost := cost * math.ceil(points / p) * p / points) < least_ragged:
                ragged, least_ragged = Tile(p, c), cost
    return ragged if least_ragged < _RAGGED_GAIN * least else best
