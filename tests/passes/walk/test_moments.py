"""Streamed moments and sampled patches against their definitions."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from optc.passes.walk.moments import Moments, _flatten
from optc.passes.walk.patches import PatchWindow, sample_positions, take_outputs, take_patches


def rows(groups: int, d: int, n: int, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(3.0, 1.0, (count, groups, d)).astype(np.float32)
    t = (rng.normal(-5.0, 2.0, (count, groups, n)) + x[:, :, :1]).astype(np.float32)
    return x, t


@pytest.mark.parametrize(("groups", "d", "n"), [(1, 5, 3), (4, 3, 1), (2, 3, 2)])
def test_statistics_equal_their_definitions(groups: int, d: int, n: int) -> None:
    x, t = rows(groups, d, n, 20000)
    moments = Moments(groups, d, n)
    for start in range(0, 20000, 3000):
        moments.add(x[start : start + 3000], t[start : start + 3000])
    statistics = moments.statistics()
    x, t = x.astype(float), t.astype(float)
    dx, dt = x - x.mean(0), t - t.mean(0)
    assert statistics.count == 20000
    np.testing.assert_allclose(statistics.mean, x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.target_mean, t.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.covariance, np.einsum("ngi,ngj->gij", dx, dx) / 20000, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics.cross, np.einsum("ngi,ngj->gij", dt, dx) / 20000, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(statistics.variance, t.var(0), rtol=1e-5)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("rows", "scale"), [(1, 1.0), (3, 1e-42), (40, 1e-42)])
def test_inputs_that_do_not_vary_have_no_variance(rows: int, scale: float, centred: bool) -> None:
    """The shift is that of other rows: what is left of a difference of sums is rounding, of either sign."""
    rng = np.random.default_rng(0)
    moments = Moments(1, 48, 6)
    first = rng.normal(0.5, 0.3, (16, 48)).astype(np.float32)
    moments.shift(first if scale == 1 else (scale * first).astype(np.float32), np.ones((16, 6), np.float32))
    x = (scale * rng.normal(0.5, 0.3, (rows, 48))).astype(np.float32)
    moments.add(x, rng.normal(size=(rows, 6)).astype(np.float32))
    statistics = moments.statistics(centred=centred)
    spread = np.linalg.eigvalsh(statistics.covariance[0])
    assert spread[0] >= -1e-7 * spread[-1]
    if centred or scale != 1:
        assert not statistics.covariance.any()
        assert not statistics.cross.any()


def test_broadened_is_as_if_noise_had_been_added_that_the_layer_answers() -> None:
    rng = np.random.default_rng(0)
    x, t = rows(2, 3, 2, 40000)
    weight = rng.normal(size=(2, 2, 3))
    plain, noisy = Moments(2, 3, 2), Moments(2, 3, 2)
    plain.add(x, t)
    statistics = plain.statistics().broadened(weight, 0.5)
    lam = 0.5 * float(np.mean(np.einsum("gii->gi", plain.statistics().covariance)))
    noise = rng.normal(0.0, np.sqrt(lam), x.shape)
    answer = np.einsum("gnd,rgd->rgn", weight, noise)
    noisy.add((x + noise).astype(np.float32), (t + answer).astype(np.float32))
    for name in ("mean", "target_mean", "covariance", "cross", "variance"):
        np.testing.assert_allclose(getattr(statistics, name), getattr(noisy.statistics(), name), rtol=0.03, atol=0.06)


def test_about_zero_where_there_is_no_bias() -> None:
    x, t = rows(1, 4, 2, 5000)
    moments = Moments(1, 4, 2)
    moments.add(x, t)
    statistics = moments.statistics(slice(1, 2), centred=False)
    x, t = x[:, 0].astype(float), t[:, 0, 1:].astype(float)
    assert not statistics.mean.any()
    np.testing.assert_allclose(statistics.covariance[0], x.T @ x / 5000, rtol=1e-5)
    np.testing.assert_allclose(statistics.cross[0], t.T @ x / 5000, rtol=1e-5)
    np.testing.assert_allclose(statistics.variance[0], (t**2).mean(0), rtol=1e-5)


def test_merging_is_the_moments_of_all_rows() -> None:
    x, t = rows(2, 3, 2, 4000)
    x[2500:] += 7.0  # the parts differ in their means
    whole, a, b = (Moments(2, 3, 2) for _ in range(3))
    whole.add(x, t)
    a.add(x[:2500], t[:2500])
    b.add(x[2500:], t[2500:])
    one, two = whole.statistics(), a.merged(b).statistics()
    for name in ("mean", "target_mean", "covariance", "cross", "variance"):
        np.testing.assert_allclose(getattr(two, name), getattr(one, name), rtol=1e-4, atol=1e-4)
    assert a.merged(Moments(2, 3, 2)).statistics().count == 2500
    assert Moments(2, 3, 2).merged(b).statistics().count == 1500


def test_a_large_mean_costs_no_digits() -> None:
    rng = np.random.default_rng(1)
    x = (1000.0 + rng.normal(size=(30000, 1, 3))).astype(np.float32)
    moments = Moments(1, 3, 1)
    moments.add(x, x[:, :, :1])
    np.testing.assert_allclose(moments.statistics().covariance[0], np.cov(x[:, 0].T.astype(float)), atol=1e-3)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(
    ("size", "kernel", "strides", "pads", "dilations"),
    [
        ((7, 9), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
        ((8, 6), (3, 2), (2, 1), (0, 1, 2, 0), (1, 2)),
        ((5, 5), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
        ((11,), (4,), (3,), (2, 1), (2,)),
        ((4, 5, 3), (2, 3, 2), (1, 2, 1), (1, 0, 0, 0, 2, 1), (1, 1, 1)),
    ],
)
def test_patches_times_weights_are_the_convolution(
    groups: int, size: tuple[int, ...], kernel: tuple[int, ...], strides: tuple, pads: tuple, dilations: tuple
) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 6, *size)).astype(np.float32)
    w = rng.normal(size=(9, 6 // groups, *kernel)).astype(np.float32)
    node = onnx.helper.make_node(
        "Conv", ["x", "w"], ["y"], strides=strides, pads=pads, dilations=dilations, group=groups
    )
    y = ReferenceEvaluator(node).run(None, {"x": x, "w": w})[0]
    sites = int(np.prod(y.shape[2:]))
    at = sample_positions(sites, max(sites - 2, 1), rng)
    window = PatchWindow(kernel, strides, pads[: len(kernel)], dilations)
    taken = take_patches(x, at, y.shape[2:], window).reshape(2 * len(at), groups, -1)
    answer = np.einsum("rgd,gnd->rgn", taken, w.reshape(groups, 9 // groups, -1)).reshape(-1, 9)
    np.testing.assert_allclose(answer, take_outputs(y, at), rtol=1e-4, atol=1e-4)


def test_positions_are_distinct_and_sorted() -> None:
    at = sample_positions(50, 20, np.random.default_rng(0))
    assert len(set(at.tolist())) == 20
    assert (np.diff(at) > 0).all()
    assert sample_positions(5, 9, np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 4]


def test_a_flat_input_has_no_covariance_even_where_others_overflow() -> None:
    """Zero times infinity is no number."""
    h, c = np.full((1, 3, 3), np.inf), np.full((1, 2, 3), np.inf)
    with np.errstate(all="raise"):
        _flatten(h, c, np.asarray([[False, True, False]]))
    assert not h[:, 1].any()
    assert not h[:, :, 1].any()
    assert not c[:, :, 1].any()
    assert np.isinf(h[0, 0, 2])
