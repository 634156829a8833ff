"""Ranges: the least squared error against brute force on the samples themselves."""

from __future__ import annotations

import numpy as np
import pytest

from optc.ir.types import DType
from optc.passes.quant.grid import activation_grid
from optc.passes.quant.histogram import Histogram
from optc.passes.quant.ranges import find_range


def measured(x: np.ndarray, low: float, high: float) -> float:
    grid = activation_grid(low, high, DType.UINT8)
    return float(np.mean((grid.decode(grid.encode(x)) - x) ** 2))


def of(x: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(x.astype(np.float32))
    return histogram


@pytest.mark.parametrize("kind", ["normal", "heavy", "relu", "negative", "uniform"])
def test_mse_is_close_to_the_best_of_many(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = {
        "normal": rng.normal(size=60000),
        "heavy": rng.standard_t(2.5, size=60000),
        "relu": np.maximum(rng.standard_t(4, size=60000), 0),
        "negative": -np.abs(rng.normal(size=60000)) * 0.01,
        "uniform": rng.random(60000) * 7,
    }[kind].astype(np.float32)
    found = measured(x, *find_range(of(x), "mse", 256))
    shrinks = np.linspace(0.02, 1, 50)
    lows = min(x.min(), 0) * shrinks if x.min() < 0 else np.zeros(1)
    highs = max(x.max(), 0) * shrinks if x.max() > 0 else np.zeros(1)
    best = min(measured(x, float(a), float(b)) for a in lows for b in highs)
    assert found <= best * 1.05


def test_minmax_keeps_the_extremes_and_zero() -> None:
    assert find_range(of(np.asarray([2.0, 3.0])), "minmax", 256) == (0.0, 3.0)
    assert find_range(of(np.asarray([-2.0, -3.0])), "minmax", 256) == (-3.0, 0.0)


def test_percentile_cuts_both_tails() -> None:
    x = np.random.default_rng(0).normal(size=100000)
    low, high = find_range(of(x), "percentile", 256, 99.0)
    assert np.mean(x < low) == pytest.approx(0.01, abs=2e-3)
    assert np.mean(x > high) == pytest.approx(0.01, abs=2e-3)


@pytest.mark.parametrize("how", ["mse", "minmax", "percentile"])
def test_constants_zeros_and_nothing_at_all(how: str) -> None:
    assert find_range(of(np.zeros(10)), how, 256) == (0.0, 0.0)
    assert find_range(Histogram(), how, 256) == (0.0, 0.0)
    low, high = find_range(of(np.full(10, 4.0)), how, 256)
    grid = activation_grid(low, high, DType.UINT8)
    assert grid.decode(grid.encode(np.full(3, 4.0, np.float32))) == pytest.approx(4.0, rel=1e-2)


@pytest.mark.parametrize(("dtype", "symmetric"), [(DType.UINT8, False), (DType.INT8, False), (DType.INT8, True)])
def test_a_grid_holds_zero_exactly(dtype: DType, symmetric: bool) -> None:
    for low, high in ((0.0, 6.0), (-1.3, 2.9), (-4.0, 0.0), (0.0, 0.0)):
        grid = activation_grid(low, high, dtype, symmetric=symmetric)
        assert grid.decode(grid.encode(np.zeros(1, np.float32))) == 0.0
        assert grid.scale > 0
        x = np.linspace(low, high, 100, dtype=np.float32)
        assert np.abs(grid.decode(grid.encode(x)) - x).max() <= 1.01 * float(grid.scale)


@pytest.mark.parametrize(("kind", "shortest", "longest"), [("uniform", 0.97, 1.0), ("heavy", 0.02, 0.6)])
def test_entropy_keeps_flat_ranges_and_cuts_heavy_tails(kind: str, shortest: float, longest: float) -> None:
    rng = np.random.default_rng(0)
    x = (rng.random(60000) * 7 if kind == "uniform" else rng.standard_t(2.5, size=60000)).astype(np.float32)
    low, high = find_range(of(x), "entropy", 256)
    assert shortest <= high / x.max() <= longest
    assert low == 0.0 if kind == "uniform" else low < 0.0


def test_entropy_of_a_constant() -> None:
    assert find_range(of(np.full(100, 3.0)), "entropy", 256) == (0.0, 3.0)
