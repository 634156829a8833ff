"""The minimum cut against every way to part the nodes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from optc.passes.quant.numbers.minimum_cut import sink_side


def price(
    side: set[int], left: Mapping[int, float], right: Mapping[int, float], apart: Mapping[tuple[int, int], float]
) -> float:
    """What the cut costs that puts `side` on the sink's side."""
    total = sum(left[node] if node in side else right[node] for node in left)
    return total + sum(cost for (a, b), cost in apart.items() if (a in side) != (b in side))


@pytest.mark.parametrize("seed", range(40))
def test_no_other_side_is_cheaper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    nodes = range(count)
    left, right = (dict(zip(nodes, rng.integers(0, 8, count).astype(float), strict=True)) for _ in range(2))
    pairs = [pair for pair in itertools.combinations(nodes, 2) if rng.random() < 0.4]
    apart = {pair: float(rng.integers(0, 6)) for pair in pairs}
    side = sink_side(left, right, apart)
    every = [set(some) for size in range(count + 1) for some in itertools.combinations(nodes, size)]
    least = min(price(some, left, right, apart) for some in every)
    assert price(side, left, right, apart) == least
    assert len(side) == min(len(some) for some in every if price(some, left, right, apart) == least)


def test_a_network_of_nothing_has_no_side() -> None:
    assert sink_side({}, {}, {}) == set()
