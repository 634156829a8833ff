"""Histograms: exact extremes and counts, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest

from optc.passes.quant.numbers.histogram import BINS, Histogram


def filled(*batches: np.ndarray) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


def test_counts_and_extremes_do_not_depend_on_the_batches() -> None:
    x = np.random.default_rng(0).normal(size=20000).astype(np.float32) * 3 + 1
    x[::7] = 0
    whole, parts = filled(x), filled(x[:10], x[10:5000], x[5000:])
    assert (whole.low, whole.high) == (parts.low, parts.high) == (x.min(), x.max())
    assert whole.zeros == parts.zeros == np.count_nonzero(x == 0)
    assert whole.counts.sum() == parts.counts.sum() == np.count_nonzero(x)
    assert len(parts.counts) == BINS
    centres, counts = parts.points()
    assert np.average(centres, weights=counts) == pytest.approx(x[x != 0].mean(), abs=1e-2)
    width = 2.0**parts.exponent
    assert (x.max() - x.min()) / width > BINS / 4  # the bins are not wasted


def test_a_range_that_grows_a_million_times_keeps_every_count() -> None:
    histogram = filled(*(np.full(10, 10.0**k, np.float32) for k in range(-3, 4)), np.asarray([-5.0], np.float32))
    assert histogram.counts.sum() == 71
    assert (histogram.low, histogram.high) == (-5.0, 1000.0)


def test_merging_equals_adding_to_one() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=5000).astype(np.float32), (rng.random(3000) * 100 + 50).astype(np.float32)
    merged, both = filled(a), filled(a, b)
    merged.merge(filled(b))
    assert merged.counts.sum() == both.counts.sum()
    assert (merged.low, merged.high) == (both.low, both.high)
    x, p = merged.points()
    y, q = both.points()
    assert np.average(x, weights=p) == pytest.approx(np.average(y, weights=q), rel=1e-3)


def test_what_is_not_finite_is_left_out() -> None:
    histogram = filled(np.asarray([1.0, np.nan, np.inf, -2.0], np.float32))
    assert (histogram.low, histogram.high, histogram.counts.sum()) == (-2.0, 1.0, 2.0)
    assert filled(np.asarray([np.nan], np.float32)).empty


def test_memory_stays_the_same() -> None:
    histogram = Histogram()
    for seed in range(20):
        histogram.add(np.random.default_rng(seed).normal(size=300000).astype(np.float32))
    assert len(histogram.counts) == BINS
    assert histogram.counts.sum() == pytest.approx(20 * 300000, rel=1e-3)
