"""Depthwise-separable forms: exact at full rank, monotone in sweeps and rank, stationary where they end."""

import itertools

import numpy as np
import pytest

from optc.passes.depthwise import dw_pw, pw_dw


def problem(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4 * d, d)) @ rng.normal(size=(d, d))
    return rng.normal(size=(n, d)), x.T @ x / len(x) + 0.01 * np.eye(d)


def loss(w: np.ndarray, target: np.ndarray, h: np.ndarray) -> float:
    return float(np.sum(((w - target) @ h) * (w - target)))


FORMS = [(dw_pw, dw_pw.dw_pw), (pw_dw, pw_dw.pw_dw)]


@pytest.mark.parametrize(("module", "fit"), FORMS)
def test_rank_of_all_taps_is_exact(module, fit) -> None:
    w, h = problem(9, 4 * 9)
    rank = 9 if module is dw_pw else 4
    found = module.merged(*fit(w, h, 4, rank))
    assert loss(found, w, h) < 1e-5 * loss(0 * w, w, h)


@pytest.mark.parametrize(("module", "fit"), FORMS)
def test_sweeps_never_raise_the_loss(module, fit) -> None:
    w, h = problem(6, 4 * 9)
    losses = [loss(module.merged(*fit(w, h, 4, 2, sweeps=s)), w, h) for s in (0, 1, 2, 5)]
    assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(losses))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("module", "fit"), FORMS)
def test_loss_falls_with_rank(module, fit) -> None:
    w, h = problem(6, 4 * 9)
    losses = [loss(module.merged(*fit(w, h, 4, r)), w, h) for r in (1, 2, 3)]
    assert losses == sorted(losses, reverse=True)


def test_pointwise_factor_is_stationary() -> None:
    w, h = problem(6, 4 * 9)
    p, d = dw_pw.dw_pw(w, h, 4, 2)
    gradient = ((dw_pw.merged(p, d) - w) @ h).reshape(6, 4, 9)
    scale = np.abs((w @ h).reshape(6, 4, 9)).max()
    assert np.abs(np.einsum("nck,ctk->nct", gradient, d)).max() < 1e-5 * scale * np.abs(d).max()


def test_fewer_outputs_than_terms() -> None:
    w, h = problem(1, 3 * 9)
    p, d = dw_pw.dw_pw(w, h, 3, 2)
    assert (p.shape, d.shape) == ((1, 3, 2), (3, 2, 9))
    assert loss(dw_pw.merged(p, d), w, h) < 1e-5 * loss(0 * w, w, h)
