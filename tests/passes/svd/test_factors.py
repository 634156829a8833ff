"""Factorisations against optimality, exactness at full rank, and monotone losses."""

import numpy as np
import pytest
from least_squares import loss, problem

from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.passes.svd.channel import channel_losses, channel_split
from optc.passes.svd.layers import splits
from optc.passes.svd.spatial import (
    Metric,
    Problem,
    best_order,
    factors,
    merged,
    of_factors,
    short_fit,
    spatial_curve,
    spatial_split,
)
from optc.passes.svd.split import FORMS, BegunSplit, SplitWork, resplit, split
from optc.passes.svd.tucker import InputBases, tucker_fit, tucker_split
from optc.passes.walk.moments import Moments
from optc.passes.walk.readers import linear_layer
from optc.passes.walk.target import fit_target
from optc.runtime.session import Session


def spatial(n: int, c: int, seed: int = 0, *, turned: bool = False) -> Problem:
    """The spatial problem of a 3 x 3 layer with the weights and the metric of `problem`."""
    w, h = problem(n, 9 * c, seed)
    kernel = c, 3, 3
    return Problem.of(w, Metric.of(h, kernel, turned=turned), kernel, turned=turned)


@pytest.mark.parametrize(("n", "d"), [(6, 18), (18, 6), (8, 8)])
def test_channel_split_is_optimal_at_every_rank(n: int, d: int) -> None:
    w, h = problem(n, d)
    split = channel_split(w, h)
    np.testing.assert_allclose(channel_losses(w, h), split.losses, atol=1e-9 * split.losses[0])
    singular = np.linalg.svd(w @ np.linalg.cholesky(h), compute_uv=False)  # Eckart-Young in the whitened space
    for rank in range(min(n, d) + 1):
        a, b = split.factors(rank)
        assert split.losses[rank] == pytest.approx(np.sum(singular[rank:] ** 2), abs=1e-8 * np.sum(singular**2))
        assert loss(a @ b, w, h) == pytest.approx(split.losses[rank], abs=1e-8 * np.sum(singular**2))


def test_channel_factors_are_equally_large() -> None:
    a, b = channel_split(*problem(6, 18)).factors(4)
    np.testing.assert_allclose(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=1))


def test_channel_split_of_a_singular_metric() -> None:
    w, h = problem(4, 10)
    h[:, 5:] = 0.0
    h[5:, :] = 0.0
    split = channel_split(w, h)
    a, b = split.factors(4)
    assert loss(a @ b, w, h) < 1e-9 * loss(0 * w, w, h)


@pytest.mark.parametrize("turned", [False, True])
def test_spatial_split_is_exact_at_full_rank_and_falls_with_rank(turned: bool) -> None:
    w, h = problem(6, 36)
    losses = []
    for rank in (2, 4, 8, 12):
        p, v = spatial_split(spatial(6, 4, turned=turned), rank)
        assert (p.shape, v.shape) == ((6, 3, rank), (rank, 12))
        losses.append(loss(merged(p, v, 4, turned=turned), w, h))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-8 * loss(0 * w, w, h)


def test_spatial_sweeps_never_raise_the_loss() -> None:
    w, h = problem(6, 36)
    losses = [loss(merged(*spatial_split(spatial(6, 4), 5, sweeps=s), 4), w, h) for s in (0, 1, 3, 8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    assert spatial(6, 4).loss(*spatial_split(spatial(6, 4), 5, sweeps=8)) == pytest.approx(losses[-1])


@pytest.mark.parametrize("turned", [False, True])
def test_spatial_split_means_two_convolutions(turned: bool) -> None:
    p, v = spatial_split(spatial(3, 2, turned=turned), 4)
    first, second = factors(p, v, 2, turned=turned)
    assert first.shape == ((4, 2, 1, 3) if turned else (4, 2, 3, 1))
    dense = np.einsum("orxy,rcuv->ocuy" if not turned else "orxy,rcuv->ocxv", second, first)
    np.testing.assert_allclose(merged(p, v, 2, turned=turned).reshape(3, 2, 3, 3), dense, atol=1e-12)
    for one, other in zip(of_factors(first, second), (p, v), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_spatial_split_that_will_lose_too_much_is_not_fitted_to_the_end() -> None:
    one = spatial(6, 4)
    best = one.loss(*spatial_split(one, 4, sweeps=2))
    for share in (0.01, 0.4, 0.9):
        assert short_fit([one], 4, share * best) > share * best
    assert short_fit([one], 4, 1.1 * best) == pytest.approx(best, rel=1e-3)
    assert short_fit([one], 4, 0.01 * best) == pytest.approx(one.loss(*spatial_split(one, 4, sweeps=0)))


def test_only_the_better_order_of_a_spatial_split_is_fitted_to_the_end() -> None:
    orders = [spatial(6, 4, turned=turned) for turned in (False, True)]
    whole = [one.loss(*spatial_split(one, 4)) for one in orders]
    lost, number, pair = best_order(orders, 4)
    assert number == int(np.argmin(whole))
    assert lost == orders[number].loss(*pair) == pytest.approx(min(whole), rel=1e-3)
    assert short_fit(orders, 4, 2.0 * min(whole)) == pytest.approx(best_order(orders, 4, sweeps=2)[0], rel=1e-3)


@pytest.mark.parametrize("inner", [2, 4, 5])
def test_tucker_loss_is_projection_plus_split(inner: int) -> None:
    w, h = problem(6, 45)
    basis, rest, lost = tucker_split(w, h, InputBases(w, h, 5).of(inner))
    total = loss(0 * w, w, h)
    for rank in (2, 6):
        a, b = rest.factors(rank)
        core = b.reshape(rank, inner, 9)
        whole = a @ np.einsum("rit,ic->rct", core, basis).reshape(rank, -1)
        assert loss(whole, w, h) == pytest.approx(lost + rest.losses[rank], abs=1e-6 * total)
    if inner == 5:
        assert lost + rest.losses[6] < 1e-7 * total


def test_fitting_the_tucker_basis_never_raises_the_loss() -> None:
    w, h = problem(6, 45)
    losses = []
    for sweeps in (0, 1, 4):
        basis, core, a = tucker_fit(w, h, 5, 3, 4, sweeps=sweeps)
        whole = a @ np.einsum("rit,ic->rct", core.reshape(4, 3, 9), basis).reshape(4, -1)
        losses.append(loss(whole, w, h))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    _, rest, lost = tucker_split(w, h, InputBases(w, h, 5).of(3))
    assert losses[0] == pytest.approx(lost + rest.losses[4], rel=1e-5)


def test_the_spatial_curve_is_near_the_fitted_losses() -> None:
    w, h = problem(6, 36)
    curve = spatial_curve([spatial(6, 4)])
    for rank in (2, 4, 6):
        fitted = loss(merged(*spatial_split(spatial(6, 4), rank), 4), w, h)
        assert fitted < 1.5 * curve[rank]
        assert curve[rank] < 2.0 * fitted


@pytest.mark.parametrize("first", [(1, 3), (3, 1)])
def test_a_spatial_split_takes_the_order_that_fits(first: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(2, 4, *first)), rng.normal(size=(6, 2, *first[::-1]))
    weight = np.einsum("rcuv,nrxy->ncuxvy", *factors).reshape(6, 4, 3, 3).astype(np.float32)
    graph = Graph("one", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (2, 4, 7, 7)))
    pads = {"pads": [1, 1, 1, 1], "strides": [2, 2], "kernel_shape": [3, 3]}
    conv = graph.add("Conv", [x, graph.constant(weight), graph.constant(np.zeros(6, np.float32))], pads, outputs=["y"])
    graph.add_output(conv.output, "y")
    layer = linear_layer(conv)
    moments, rows = Moments(1, 36, 6), rng.normal(size=(400, 36)).astype(np.float32)
    moments.add(rows, rows @ weight.reshape(6, -1).T)
    target = fit_target(layer.weights(), moments.statistics())
    both = BegunSplit()
    form = resplit(layer, target, split(target, layer, "spatial", 2, begun=both), begun=both)
    assert form.factors[0].shape == (2, 4, *first)
    assert form.loss < 1e-6 * target.energy
    feeds = {"x": rng.normal(size=(2, 4, 7, 7)).astype(np.float32)}
    before = Session(graph).run(feeds)[0]
    form.apply(layer, target.bias(form.merged))
    np.testing.assert_allclose(Session(graph).run(feeds)[0], before, atol=0.02 * np.abs(before).max())


def test_bounds_leave_out_choices_and_change_none() -> None:
    rng = np.random.default_rng(1)
    smooth = np.einsum("nr,rck->nck", rng.normal(size=(16, 4)), rng.normal(size=(4, 12, 9))).reshape(16, 108)
    weight = (smooth + 0.05 * rng.normal(size=(16, 108))).astype(np.float32)
    graph = Graph("one", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (2, 12, 7, 7)))
    conv = graph.add("Conv", [x, graph.constant(weight.reshape(16, 12, 3, 3))], {"pads": [1] * 4}, outputs=["y"])
    graph.add_output(conv.output, "y")
    layer = linear_layer(conv)
    moments, rows = Moments(1, 108, 16), rng.normal(size=(600, 108)).astype(np.float32)
    moments.add(rows, rows @ weight.T)
    target, work = fit_target(layer.weights(), moments.statistics()), SplitWork(16, 12, (3, 3), 49, 49, 49)
    everything = list(splits(target, layer, work, FORMS, 2, BegunSplit()))
    for share in (0.001, 0.02, 0.3):
        few = list(splits(target, layer, work, FORMS, 2, BegunSplit(), loss=share * target.energy))
        assert sorted(few, key=str) == sorted((c for c in everything if c.error <= share), key=str)
    whole = work.macs("keep", 0)
    for choice in splits(target, layer, work, FORMS, 2, BegunSplit(), macs=0.6 * whole):
        alike = [c for c in everything if c.kind == choice.kind and c.cost <= 0.6 * whole]
        alike = [c for c in alike if c.settings.get("rank_in") == choice.settings.get("rank_in")]
        assert choice.settings == min(alike, key=lambda c: c.error).settings
