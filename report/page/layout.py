"""Places for the boxes of a directed acyclic graph, in layers from top to bottom.

The method of Sugiyama, Tagawa and Toda (1981): vertices in layers by longest path; an edge over several layers goes
through a bend in each; the order within layers by barycenters, swept down and up; then coordinates, each layer placed
as near to its neighbours' as the order and the widths allow, which is an isotonic regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 132.0, 46.0
"""Of a box."""

_GAP_X, _GAP_Y = 18.0, 26.0
_BEND = 6.0
"""The width that an edge passing through a layer is given."""
_SWEEPS = 8
_ROUNDS = 12

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """Centres of the boxes, the bends of every edge from box to box, and the size of the whole."""

    boxes: tuple[Point, ...]
    edges: tuple[tuple[Point, ...], ...]
    width: float
    height: float


def layout(count: int, edges: Sequence[tuple[int, int]]) -> Layout:
    """Place `count` boxes, numbered in an order in which every one of `edges` leads to a higher number."""
    if not count:
        return Layout((), (), 0.0, 0.0)
    rank = _ranks(count, edges)
    layers: list[list[int]] = [[] for _ in range(max(rank) + 1)]
    for vertex in range(count):
        layers[rank[vertex]].append(vertex)
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    chains = []
    for start, end in edges:
        chain = [start]
        for level in range(rank[start] + 1, rank[end]):
            layers[level].append(len(above))
            chain.append(len(above))
            above.append([])
            below.append([])
        chain.append(end)
        chains.append(chain)
        for one, other in pairwise(chain):
            below[one].append(other)
            above[other].append(one)
    _order(layers, above, below)
    x = _coordinates(layers, above, below, count)
    x -= min(x[v] - (WIDTH if v < count else _BEND) / 2 for v in range(len(x))) - _GAP_X
    y = np.empty(len(x))
    for level, layer in enumerate(layers):
        y[layer] = _GAP_Y + HEIGHT / 2 + level * (HEIGHT + _GAP_Y)
    width = max(float(x[v]) + (WIDTH if v < count else _BEND) / 2 for v in range(len(x))) + _GAP_X
    return Layout(
        tuple((float(x[v]), float(y[v])) for v in range(count)),
        tuple(tuple((float(x[v]), float(y[v])) for v in chain) for chain in chains),
        width,
        2 * _GAP_Y + len(layers) * (HEIGHT + _GAP_Y) - _GAP_Y,
    )


def _ranks(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Longest path from the top; what nothing leads to stands right above what reads it."""
    rank = [0] * count
    out: list[list[int]] = [[] for _ in range(count)]
    fed = [False] * count
    for start, end in edges:
        out[start].append(end)
        fed[end] = True
    for vertex in range(count):
        for end in out[vertex]:
            rank[end] = max(rank[end], rank[vertex] + 1)
    for vertex in range(count):
        if not fed[vertex] and out[vertex]:
            rank[vertex] = min(rank[end] for end in out[vertex]) - 1
    return rank


def _order(layers: list[list[int]], above: list[list[int]], below: list[list[int]]) -> None:
    """Sort every layer by the mean place of its neighbours, down and up in turn; edges then cross less."""
    place = [0] * len(above)
    for layer in layers:
        for at, vertex in enumerate(layer):
            place[vertex] = at
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        for layer in layers if down else reversed(layers):
            mean = {
                v: sum(place[n] for n in neighbours[v]) / len(neighbours[v]) if neighbours[v] else place[v]
                for v in layer
            }
            layer.sort(key=mean.__getitem__)
            for at, vertex in enumerate(layer):
                place[vertex] = at


def _coordinates(
    layers: list[list[int]], above: list[list[int]], below: list[list[int]], count: int
) -> npt.NDArray[np.float64]:
    x = np.zeros(len(above))
    offsets = []
    for layer in layers:
        widths = np.array([WIDTH if v < count else _BEND for v in layer])
        offset = np.concatenate(([0.0], np.cumsum((widths[1:] + widths[:-1]) / 2 + _GAP_X)))
        offsets.append(offset)
        x[layer] = offset - offset[-1] / 2
    for turn in range(_ROUNDS):
        neighbours = above if turn % 2 == 0 else below
        levels = range(len(layers)) if turn % 2 == 0 else reversed(range(len(layers)))
        for level in levels:
            layer, offset = layers[level], offsets[level]
            wanted = np.array([np.mean(x[neighbours[v]]) if neighbours[v] else x[v] for v in layer])
            x[layer] = _isotonic(wanted - offset) + offset
    return x


def _isotonic(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The nearest sequence, in least squares, that nowhere falls: pools of adjacent violators."""
    pools: list[tuple[float, int]] = []
    for value in values:
        total, size = float(value), 1
        while pools and pools[-1][0] / pools[-1][1] > total / size:
            last, many = pools.pop()
            total, size = total + last, size + many
        pools.append((total, size))
    return np.concatenate([np.full(size, total / size) for total, size in pools])
