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
    """How a kernel is cut: `points` of the output (pixels, rows) by `chunks` blocks of channels are one tile.

    `unroll` bounds the multiply-adds of the innermost kernel that are written out one after the other. `strip` is how
    many bytes of padded input one strip of rows may take, less than the first cache holds (depthwise convolutions).
    Tiles that follow each other share their weights, or with `across` their input.
    """

    points: int
    chunks: int
    unroll: int = 128
    strip: int = 24 << 10
    across: bool = False

    @property
    def cut(self) -> tuple[int, int]:
        """Points and blocks of channels."""
        return self.points, self.chunks

    def notes(self, reduction: int) -> dict[str, int]:
        """What a stage of sums over so many loops tells the rule that schedules it."""
        return {
            "optc.points": self.points,
            "optc.chunks": self.chunks,
            "optc.reduction": reduction,
            "optc.unroll": self.unroll,
            "optc.across": int(self.across),
        }


def cycles(points: int, chunks: int, machine: Machine, spare: int = 0) -> float:
    """Cycles a running sum for one term, or infinity where the registers, but for `spare` ones, do not suffice."""
    sums = points * chunks * machine.vectors
    weights = chunks * machine.vectors
    if sums + weights + 1 + spare > machine.registers:
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
    return ranked(chunks, points, machine, row, exact, spare)[0]


def ranked(
    chunks: int,
    points: int | None,
    machine: Machine,
    row: int | None = None,
    exact: bool = False,
    spare: int = 0,
    reread: float = 0.0,
) -> tuple[Tile, ...]:
    """Every tile that fits the registers, the best first; see `choose`. `reread` are the cycles that a register of
    weights costs beyond a load, where they come from a farther cache for each tile anew."""
    gain = _RAGGED_GAIN if row is None else _RAGGED_ROW_GAIN
    tiles: list[tuple[float, Tile]] = []
    for c in range(1, _MOST_CHUNKS + 1):
        if chunks % c and (exact or -(-chunks // c) * c > _WASTE * chunks):
            continue
        for p in range(1, _MOST_POINTS + 1):
            cost = cycles(p, c, machine, spare) + reread / p
            if points is not None and (row or points) % p:
                cost *= math.ceil(points / p) * p / points / gain
            if cost < math.inf:
                tiles.append((cost, Tile(p, c)))
    return tuple(tile for _, tile in sorted(tiles, key=lambda one: one[0])) or (Tile(1, 1),)
