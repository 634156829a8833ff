"""Masks, refits and removal orders against brute force."""

import itertools

import numpy as np
import pytest
from least_squares import loss, problem

from optc.passes.prune.exchange import exchange
from optc.passes.prune.masks import Grouped, Unstructured, keep_largest, sparsegpt_mask
from optc.passes.prune.structured import Consumer, removal_order
from optc.passes.walk.refit import fit_masked, refit_columns, refit_masked
from optc.passes.walk.target import inverse_factor


def test_unstructured_drops_exactly_the_share_even_with_ties() -> None:
    mask = keep_largest(np.ones((4, 10)), Unstructured(0.3))
    assert mask.sum() == 28
    kept = keep_largest(np.arange(10.0)[None], Unstructured(0.4))
    assert kept[0].tolist() == [False] * 4 + [True] * 6


def test_groups_keep_n_of_every_m() -> None:
    rng = np.random.default_rng(0)
    w, h = problem(5, 14)
    for mask in (
        keep_largest(rng.random((5, 14)), Grouped(2, 4)),
        sparsegpt_mask(w, inverse_factor(h), Grouped(2, 4), block=8),
    ):
        assert (mask[:, :12].reshape(5, 3, 4).sum(axis=2) == 2).all()
        assert mask[:, 12:].all()


def test_sparsegpt_keeps_the_share_and_with_one_column_left_to_choose_is_optimal() -> None:
    w, h = problem(6, 20)
    mask = sparsegpt_mask(w, inverse_factor(h), Unstructured(0.5), block=8)
    assert mask.sum() == 60
    # a diagonal metric has no compensation: the mask is by w^2 h_jj
    diagonal = np.diag(np.linspace(1.0, 3.0, 20))
    pruned = sparsegpt_mask(w, inverse_factor(diagonal), Unstructured(0.5), block=20)
    np.testing.assert_array_equal(pruned, keep_largest(w**2 * np.diagonal(diagonal), Unstructured(0.5)))


def test_refit_solves_every_row_exactly() -> None:
    w, h = problem(5, 12)
    mask = np.random.default_rng(1).random((5, 12)) < 0.5
    refitted = refit_masked(w, h, mask, steps=200)
    for row, target, keep in zip(refitted, w, mask, strict=True):
        k = np.flatnonzero(keep)
        exact = np.linalg.solve(h[np.ix_(k, k)], h[k] @ target)
        np.testing.assert_allclose(row[k], exact, rtol=1e-5, atol=1e-7)
        assert not row[~keep].any()


def test_refit_never_raises_the_loss_and_keeps_the_zeros() -> None:
    w, h = problem(8, 30)
    mask = keep_largest(w**2, Unstructured(0.7))
    fits = [fit_masked(w, h, mask, steps=s) for s in (0, 2, 5, 20)]
    losses = [loss(fit.weight, w, h) for fit in fits]
    for fit, lost in zip(fits, losses, strict=True):
        np.testing.assert_allclose(fit.lacks, (w - fit.weight) @ h, rtol=1e-9, atol=1e-9)
        assert fit.loss.sum() == pytest.approx(lost)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


def test_refit_of_columns_is_the_masked_one() -> None:
    w, h = problem(4, 9)
    columns = np.array([0, 3, 4, 8])
    mask = np.zeros((4, 9), dtype=bool)
    mask[:, columns] = True
    np.testing.assert_allclose(refit_columns(w, h, columns), refit_masked(w, h, mask, steps=200)[:, columns], rtol=1e-6)


def exact_error(consumers: list[Consumer], kept: np.ndarray, width: int) -> float:
    total = 0.0
    for c in consumers:
        columns = (kept[:, None] * width + np.arange(width)).reshape(-1)
        w = np.zeros_like(c.weight)
        w[:, columns] = refit_columns(c.weight, c.hessian, columns)
        total += loss(w, c.weight, c.hessian) / c.energy
    return total


@pytest.mark.parametrize("width", [1, 3])
def test_removal_errors_are_those_of_the_refit_on_what_is_kept(width: int) -> None:
    at = np.arange(6 * width).reshape(6, width)
    consumers = [Consumer(*problem(n, 6 * width, seed), energy=float(n), columns=at) for seed, n in enumerate((4, 7))]
    removal = removal_order(consumers)
    assert sorted(removal.order.tolist()) == list(range(6))
    for count in range(1, 6):
        kept = np.flatnonzero(removal.keep(count))
        assert removal.errors[6 - count] == pytest.approx(exact_error(consumers, kept, width), rel=1e-6)


def test_the_first_removal_is_the_best_one() -> None:
    consumers = [Consumer(*problem(5, 16), energy=1.0, columns=np.arange(16).reshape(8, 2))]
    removal = removal_order(consumers)
    best = min(itertools.combinations(range(8), 7), key=lambda k: exact_error(consumers, np.array(k), 2))
    assert tuple(np.flatnonzero(removal.keep(7))) == best


@pytest.mark.parametrize("pattern", [Unstructured(0.7), Grouped(2, 4)])
def test_exchanging_weights_lowers_the_loss_and_keeps_the_pattern(pattern: Unstructured | Grouped) -> None:
    w, h = problem(12, 32)
    start = refit_masked(w, h, keep_largest(w**2, pattern))
    exchanged = exchange(w, h, pattern, start)
    kept = (exchanged != 0).reshape(12, 8, 4).sum(axis=2)
    assert (kept == 2).all() if isinstance(pattern, Grouped) else kept.sum() == round(0.3 * 12 * 32)
    assert loss(exchanged, w, h) < 0.93 * loss(start, w, h)


def test_exchanging_finds_the_best_groups_of_a_small_row() -> None:
    w, h = problem(1, 8)
    pairs = list(itertools.combinations(range(4), 2))
    masks = [np.isin(np.arange(8), (*a, *(4 + i for i in b)))[None] for a in pairs for b in pairs]
    exact = min(loss(refit_masked(w, h, mask, steps=200), w, h) for mask in masks)
    exchanged = exchange(w, h, Grouped(2, 4), refit_masked(w, h, keep_largest(w**2, Grouped(2, 4))))
    assert loss(exchanged, w, h) <= 1.1 * exact
