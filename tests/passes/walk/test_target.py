"""Target weights against brute-force least squares."""

import numpy as np
import pytest

from optc.errors import DataError
from optc.passes.walk.moments import Moments
from optc.passes.walk.target import choose_ridges, damped, fit_target, inverse_factor, residual, solve_spd


def layer(groups: int, n: int, d: int, count: int, noise: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d))
    x = (rng.normal(size=(count, groups, d)) @ mix + 2.0).astype(np.float32)
    truth = rng.normal(size=(groups, n, d))
    t = np.einsum("rgd,gnd->rgn", x, truth) + 1.5 + noise * rng.normal(size=(count, groups, n))
    return x, t.astype(np.float32), truth, rng


def moments(x: np.ndarray, t: np.ndarray) -> Moments:
    moments = Moments(x.shape[1], x.shape[2], t.shape[2])
    moments.add(x, t)
    return moments


@pytest.mark.parametrize("groups", [1, 3])
def test_target_is_the_ridge_regression_towards_the_old_weights(groups: int) -> None:
    x, t, truth, rng = layer(groups, 4, 6, 5000, 0.1)
    old = truth + rng.normal(size=truth.shape)
    target = fit_target(old, moments(x, t).statistics())
    h = moments(x, t).statistics().covariance
    lam = target.ridge * np.mean(np.diagonal(h, axis1=1, axis2=2))
    for g in range(groups):
        xc, tc = x[:, g] - x[:, g].mean(0, dtype=float), t[:, g] - t[:, g].mean(0, dtype=float)
        a = np.concatenate([xc / np.sqrt(5000), np.sqrt(lam) * np.eye(6)])
        b = np.concatenate([tc / np.sqrt(5000), np.sqrt(lam) * old[g].T])
        np.testing.assert_allclose(target.weight[g], np.linalg.lstsq(a, b, rcond=None)[0].T, rtol=1e-3, atol=1e-3)


def test_loss_is_the_excess_of_the_ridge_objective() -> None:
    x, t, truth, rng = layer(1, 3, 5, 4000, 0.5)
    old = truth + 0.3 * rng.normal(size=truth.shape)
    stats = moments(x, t).statistics()
    target = fit_target(old, stats)
    lam = target.ridge * np.mean(np.diagonal(stats.covariance[0]))

    def objective(w: np.ndarray) -> float:
        return residual(stats, w) + lam * float(np.sum((w - old) ** 2))

    other = truth + rng.normal(size=truth.shape)
    assert objective(other) - objective(target.weight) == pytest.approx(target.loss(other), rel=1e-6)


def test_bias_makes_the_mean_right() -> None:
    x, t, truth, _ = layer(1, 3, 5, 4000, 0.5)
    target = fit_target(truth, moments(x, t).statistics())
    off = truth * 0.7
    answer = x[:, 0].astype(float) @ off[0].T + target.bias(off)
    np.testing.assert_allclose(answer.mean(0), t[:, 0].mean(0, dtype=float), atol=1e-3)


def test_held_out_rows_choose_a_large_ridge_for_few_rows_and_a_small_one_for_many() -> None:
    ridges = []
    for count in (60, 20000):
        x, t, truth, rng = layer(1, 4, 40, count, 30.0)
        old = truth + 0.1 * rng.normal(size=truth.shape)
        cut = count * 4 // 5
        fit, held_out = moments(x[:cut], t[:cut]), moments(x[cut:], t[cut:])
        target = fit_target(
            old, fit.merged(held_out).statistics(), choose_ridges(old, fit.statistics(), held_out.statistics())
        )
        ridges.append(target.ridge)
    assert ridges[0] > ridges[1]


def test_unchanged_weights_stay_where_nothing_is_better() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(50, 1, 40)).astype(np.float32)
    old = rng.normal(size=(1, 2, 40))
    t = np.einsum("rgd,gnd->rgn", x, old) + 5.0 * rng.normal(size=(50, 1, 2))
    fit, held_out = moments(x[:40], t[:40].astype(np.float32)), moments(x[40:], t[40:].astype(np.float32))
    target = fit_target(
        old, fit.merged(held_out).statistics(), choose_ridges(old, fit.statistics(), held_out.statistics())
    )
    if np.isinf(target.ridge):
        np.testing.assert_array_equal(target.weight, old)
    else:
        assert target.ridge >= 1e-1


def test_constant_inputs_and_singular_covariances_are_survived() -> None:
    x = np.ones((100, 1, 4), dtype=np.float32)
    old = np.arange(8.0).reshape(1, 2, 4)
    t = np.einsum("rgd,gnd->rgn", x, old).astype(np.float32)
    target = fit_target(old, moments(x, t).statistics())
    np.testing.assert_allclose(target.weight, old)
    np.testing.assert_allclose(target.bias(target.weight), 0.0, atol=1e-5)


def test_no_rows_is_a_data_error() -> None:
    with pytest.raises(DataError, match="no sample reaches"):
        fit_target(np.ones((1, 2, 3)), Moments(1, 3, 2).statistics())


def test_inverse_factor_is_the_upper_factor_of_the_inverse() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, 12))
    h = a.T @ a
    r = inverse_factor(h)
    np.testing.assert_allclose(r.T @ r, np.linalg.inv(h), rtol=1e-9)
    np.testing.assert_array_equal(r, np.triu(r))
    for j in range(12):
        assert r[j, j] ** 2 == pytest.approx(np.linalg.inv(h[j:, j:])[0, 0])


def test_solving_falls_back_to_the_pseudo_inverse() -> None:
    h = np.diag([2.0, 0.0])[None]
    np.testing.assert_allclose(solve_spd(h, np.array([[[4.0, 0.0]]])), [[[2.0, 0.0]]])
    assert damped(np.zeros((1, 2, 2)), 0.1)[0, 0, 0] > 0


def test_inputs_stand_in_for_others_as_far_as_other_samples_bear_it_out() -> None:
    """Many rows of few samples depend on each other: the metric gets the larger ridge."""
    ridges = []
    for samples in (20, 2000):
        rng = np.random.default_rng(0)
        places = rng.normal(size=(samples, 1, 40)) + 0.1 * rng.normal(size=(samples, 4000 // samples, 40))
        x = places.reshape(-1, 1, 40).astype(np.float32)
        old = rng.normal(size=(1, 3, 40))
        t = np.einsum("rgd,gnd->rgn", x, old).astype(np.float32)
        cut = 3200
        fit, held_out = moments(x[:cut], t[:cut]), moments(x[cut:], t[cut:])
        everything = fit.merged(held_out).statistics()
        target = fit_target(old, everything, choose_ridges(old, fit.statistics(), held_out.statistics()))
        scale = np.mean(np.diagonal(everything.covariance[0]))
        ridges.append(float(target.hessian[0, 0, 0] - everything.covariance[0, 0, 0]) / scale)
    assert ridges[0] == pytest.approx(1.0)
    assert ridges[1] <= 0.3
