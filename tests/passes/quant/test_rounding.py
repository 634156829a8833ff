"""Rounding: each step lowers the loss of the answer, and keeps to the box."""

from __future__ import annotations

import itertools

import numpy as np

from optc.passes.quant.numbers.encoding import _pair_box, code_range
from optc.passes.quant.numbers.rounding import descend, exhaustive, gptq, losses, round_to_grid


def problem(groups: int, n: int, d: int) -> tuple[np.ndarray, ...]:
    """Target, metric with strongly correlated inputs, scales, and a box of four bits."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(groups, d, d)) * 0.3 + np.ones((groups, d, 1)) * rng.normal(size=(groups, 1, d))
    hessian = mixing @ mixing.transpose(0, 2, 1) + 0.05 * np.eye(d)
    target = rng.normal(size=(groups, n, d))
    scale = np.abs(target).max(axis=2) / 7
    return target, hessian, scale, np.full(target.shape, -8.0), np.full(target.shape, 7.0)


def test_each_step_lowers_the_loss() -> None:
    target, hessian, scale, low, high = problem(1, 24, 40)
    operands = target[0], hessian[0], scale[0], low[0], high[0]
    nearest = np.clip(np.rint(target / scale[..., None]), low, high)
    ordered = gptq(*operands)
    descended = descend(ordered, *operands)
    first, second, third = (
        losses(q.reshape(target.shape), target, hessian, scale).sum() for q in (nearest, ordered, descended)
    )
    assert third <= second < 0.5 * first
    assert np.array_equal(descended, np.rint(descended))
    # No single code can be moved for the better.
    for j in range(40):
        for step in (-1, 1):
            moved = descended.copy()
            moved[:, j] = np.clip(moved[:, j] + step, -8, 7)
            now = losses(moved[None], target, hessian, scale)
            assert (now >= losses(descended[None], target, hessian, scale) - 1e-9).all()


def test_rounding_is_never_worse_than_to_the_nearest() -> None:
    for groups, n, d in ((1, 8, 12), (4, 3, 6), (16, 1, 9)):
        target, hessian, scale, low, high = problem(groups, n, d)
        codes = round_to_grid(target, hessian, scale, low, high)
        nearest = np.clip(np.rint(target / scale[..., None]), low, high)
        assert (losses(codes, target, hessian, scale) <= losses(nearest, target, hessian, scale) + 1e-12).all()
        assert (codes >= low).all()
        assert (codes <= high).all()


def test_exhaustive_finds_the_best_of_all_ways_to_round() -> None:
    target, hessian, scale, low, high = problem(5, 1, 4)
    codes = exhaustive(target[:, 0], hessian, scale[:, 0], low[:, 0], high[:, 0])
    errors = losses(codes[:, None], target, hessian, scale)[:, 0]
    floor = np.floor(target[:, 0] / scale)
    for pattern in itertools.product((0, 1), repeat=4):
        other = np.clip(floor + np.asarray(pattern), -8, 7)
        assert (errors <= losses(other[:, None], target, hessian, scale)[:, 0] + 1e-12).all()


def test_the_box_pins_codes() -> None:
    target, hessian, scale, low, high = problem(1, 6, 10)
    low[..., ::2] = high[..., ::2] = 0.0
    assert not round_to_grid(target, hessian, scale, low, high)[..., ::2].any()


def test_no_pair_in_the_box_overflows() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-64, 65, size=(200, 7)).astype(float)
    codes[:, ::2] = np.where(rng.random(codes[:, ::2].shape) < 0.3, np.sign(codes[:, ::2]) * 60, codes[:, ::2])
    low, high = _pair_box(codes)
    assert (low <= codes).all()
    assert (high >= codes).all()
    for pick in itertools.product((0, 1), repeat=2):
        u = np.where(pick[0], high, low)[:, 0:6:2]
        v = np.where(pick[1], high, low)[:, 1:6:2]
        assert (np.maximum(u, 0) + np.maximum(v, 0)).max() <= 128
        assert (np.maximum(-u, 0) + np.maximum(-v, 0)).max() <= 128


def test_code_ranges() -> None:
    assert [code_range(b) for b in (8, 4, 3, 2)] == [(-127, 127), (-8, 7), (-4, 3), (-1, 1)]
