"""Factorisations against optimality, exactness at full rank, and monotone losses."""

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.passes.svd.channel import channel_split
from optc.passes.svd.layers import splits
from optc.passes.svd.spatial import merged, spatial_curve, spatial_split
from optc.passes.svd.split import FORMS, Work, resplit, split
from optc.passes.svd.tucker import tucker_fit, tucker_split
from optc.passes.walk.moments import Moments
from optc.passes.walk.readers import linear_layer
from optc.passes.walk.target import fit_target
from optc.runtime.session import Session


def problem(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4 * d, d)) @ rng.normal(size=(d, d))
    return rng.normal(size=(n, d)), x.T @ x / len(x) + 0.01 * np.eye(d)


def loss(w: np.ndarray, target: np.ndarray, h: np.ndarray) -> float:
    return float(np.sum(((w - target) @ h) * (w - target)))


@pytest.mark.parametrize(("n", "d"), [(6, 18), (18, 6), (8, 8)])
def test_channel_split_is_optimal_at_every_rank(n: int, d: int) -> None:
    w, h = problem(n, d)
    found = channel_split(w, h)
    singular = np.linalg.svd(w @ np.linalg.cholesky(h), compute_uv=False)  # Eckart-Young in the whitened space
    for rank in range(min(n, d) + 1):
        a, b = found.factors(rank)
        assert found.losses[rank] == pytest.approx(np.sum(singular[rank:] ** 2), abs=1e-8 * np.sum(singular**2))
        assert loss(a @ b, w, h) == pytest.approx(found.losses[rank], abs=1e-8 * np.sum(singular**2))


def test_channel_factors_are_equally_large() -> None:
    a, b = channel_split(*problem(6, 18)).factors(4)
    np.testing.assert_allclose(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=1))


def test_channel_split_of_a_singular_metric() -> None:
    w, h = problem(4, 10)
    h[:, 5:] = 0.0
    h[5:, :] = 0.0
    found = channel_split(w, h)
    a, b = found.factors(4)
    assert loss(a @ b, w, h) < 1e-9 * loss(0 * w, w, h)


def test_spatial_split_is_exact_at_full_rank_and_falls_with_rank() -> None:
    shape = (6, 4, 3, 3)
    w, h = problem(6, 36)
    losses = []
    for rank in (2, 4, 8, 12):
        p, v = spatial_split(w, h, shape, rank)
        assert (p.shape, v.shape) == ((6, rank, 3), (rank, 4, 3))
        losses.append(loss(merged(p, v), w, h))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-8 * loss(0 * w, w, h)


def test_spatial_sweeps_never_raise_the_loss() -> None:
    shape = (6, 4, 3, 3)
    w, h = problem(6, 36)
    losses = [loss(merged(*spatial_split(w, h, shape, 5, sweeps=s)), w, h) for s in (0, 1, 3, 8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_spatial_split_means_two_convolutions() -> None:
    shape = (3, 2, 3, 3)
    p, v = spatial_split(*problem(3, 18), shape, 4)
    dense = np.einsum("orv,rcu->ocuv", p, v)
    np.testing.assert_allclose(merged(p, v).reshape(shape), dense, atol=1e-12)


@pytest.mark.parametrize("inner", [2, 4, 5])
def test_tucker_loss_is_projection_plus_split(inner: int) -> None:
    w, h = problem(6, 45)
    basis, rest, lost = tucker_split(w, h, 5, inner)
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
    _, rest, lost = tucker_split(w, h, 5, 3)
    assert losses[0] == pytest.approx(lost + rest.losses[4], rel=1e-5)


def test_the_spatial_curve_is_near_the_fitted_losses() -> None:
    shape = (6, 4, 3, 3)
    w, h = problem(6, 36)
    curve = spatial_curve(w, h, shape)
    for rank in (2, 4, 6):
        fitted = loss(merged(*spatial_split(w, h, shape, rank)), w, h)
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
    made = resplit(layer, target, split(target, layer, "spatial", 2))
    assert made.factors[0].shape == (2, 4, *first)
    assert made.loss < 1e-6 * target.energy
    feeds = {"x": rng.normal(size=(2, 4, 7, 7)).astype(np.float32)}
    before = Session(graph).run(feeds)[0]
    made.apply(layer, target.bias(made.merged))
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
    target, work = fit_target(layer.weights(), moments.statistics()), Work(16, 12, (3, 3), 49, 49, 49)
    everything = list(splits(target, layer, work, FORMS, 2))
    for share in (0.001, 0.02, 0.3):
        few = list(splits(target, layer, work, FORMS, 2, loss=share * target.energy))
        assert sorted(few, key=str) == sorted((c for c in everything if c.error <= share), key=str)
    whole = work.macs("keep", 0)
    for choice in splits(target, layer, work, FORMS, 2, macs=0.6 * whole):
        alike = [c for c in everything if c.kind == choice.kind and c.cost <= 0.6 * whole]
        alike = [c for c in alike if c.settings.get("rank_in") == choice.settings.get("rank_in")]
        assert choice.settings == min(alike, key=lambda c: c.error).settings
