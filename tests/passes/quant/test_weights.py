"""Weights: scales, zeros, and no pair that can overflow 16 bits."""

from __future__ import annotations

import numpy as np
import pytest

from optc.ir.types import DType
from optc.passes.quant.numbers.weights import quantize_paired, quantize_rows, row_importance, weight_error


def error(rows: np.ndarray, codes: np.ndarray, scale: np.ndarray) -> float:
    return float(np.sum((rows - codes * scale[:, None]) ** 2))


def test_the_search_is_never_worse_than_the_full_range() -> None:
    rows = np.random.default_rng(0).standard_t(3, size=(32, 200)).astype(np.float32)
    codes, scale = quantize_rows(rows, DType.INT8)
    full = np.abs(rows).max(axis=1) / 127
    # Scales are kept in 11 bits, which widens the range a little.
    assert error(rows, codes, scale) <= 1.002 * error(rows, np.rint(rows / full[:, None]), full)
    assert np.abs(codes).max() <= 127


def test_zeros_stay_zeros_and_a_row_of_zeros_has_a_scale() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    rows[:, ::3] = 0
    rows[2] = 0
    codes, scale = quantize_rows(rows, DType.INT8, saturating=True)
    assert not codes[:, ::3].any()
    assert not codes[2].any()
    assert (scale > 0).all()


def test_importance_moves_error_to_where_it_matters_less() -> None:
    rows = np.random.default_rng(0).standard_t(2, size=(64, 100)).astype(np.float32)
    importance = np.where(np.arange(100) < 50, 100.0, 0.01)
    plain = quantize_rows(rows, DType.INT8)
    weighted = quantize_rows(rows, DType.INT8, importance=importance)

    def weighed(encoded: tuple[np.ndarray, np.ndarray]) -> float:
        codes, scale = encoded
        return float(np.sum((rows - codes * scale[:, None]) ** 2 * importance))

    assert weighed(weighted) < weighed(plain)


@pytest.mark.parametrize("shape", [(16, 64), (8, 27), (4, 1), (3, 2)])
def test_no_pair_overflows_sixteen_bits(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    rows = np.sign(rng.normal(size=shape)).astype(np.float32) * (1 + 0.01 * rng.random(shape).astype(np.float32))
    codes, scale = quantize_rows(rows, DType.INT8, saturating=True)
    even = shape[1] // 2 * 2
    u, v = codes[:, :even:2].astype(int), codes[:, 1:even:2].astype(int)
    for a in (0, 255):
        for b in (0, 255):
            sums = a * u + b * v
            assert sums.min(initial=0) >= -(2**15)
            assert sums.max(initial=0) < 2**15
    assert np.abs(rows - codes * scale[:, None]).max() < 0.02


def test_pairs_cost_far_less_than_seven_bits() -> None:
    rows = np.random.default_rng(0).normal(size=(64, 576)).astype(np.float32)
    seven = np.abs(rows).max(axis=1) / 63
    loss = error(rows, np.rint(rows / seven[:, None]), seven)
    assert error(rows, *quantize_rows(rows, DType.INT8, saturating=True)) < 0.45 * loss


def test_scales_can_be_bounded_from_below() -> None:
    rows = np.full((2, 4), 1e-3, np.float32)
    _, scale = quantize_rows(rows, DType.INT8, least_scale=np.asarray([0.5, 0.0]))
    assert scale[0] == np.float32(0.5)
    assert scale[1] < 1e-4


def test_one_scale_for_all_rows() -> None:
    _, scale = quantize_rows(np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32), DType.INT8, shared=True)
    assert len(set(scale.tolist())) == 1


def test_a_weight_error_is_a_share_of_the_answers_power() -> None:
    rows = np.ones((2, 4), np.float32)
    decoded = rows.copy()
    decoded[0, 0] = 0.0
    assert weight_error(rows, decoded) == pytest.approx(1 / 8)
    assert weight_error(rows, decoded, np.asarray([5.0, 1.0, 1.0, 1.0])) == pytest.approx(5 / 16)


def test_a_channel_weighs_at_each_of_its_positions() -> None:
    energy = np.asarray([1.0, 2.0, 3.0, 4.0])
    assert np.array_equal(row_importance(energy, (1, 3, 8), 4), [1, 2, 3, 4, 1, 2, 3, 4])
    assert np.array_equal(row_importance(energy, (2, 1, 4), 2), [[1, 2, 1, 2], [3, 4, 3, 4]])
    assert row_importance(energy, (1, 3, 6), 6) is None
    assert row_importance(np.zeros(4), (1, 3, 8), 4) is None


def test_pairs_that_would_cost_too_much_are_stored_unsigned() -> None:
    rows = np.random.default_rng(0).uniform(-1, 1, size=(4, 64)).astype(np.float32)
    rows[0] *= 0.1
    assert quantize_paired(np.repeat(rows, 2, axis=1))[2] == 128
    assert quantize_paired(np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32))[2] == 0
