"""Depthwise-separable forms: exact at full rank, monotone in sweeps and rank, stationary where they end."""

import itertools

import numpy as np
import pytest
from least_squares import loss, problem

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, TargetFacts
from optc.passes.depthwise import Depthwise, dw_pw, pw_dw
from optc.runtime.session import Session
from optc.runtime.sources import load_samples

FORMS = [(dw_pw, dw_pw.dw_pw), (pw_dw, pw_dw.pw_dw)]


@pytest.mark.parametrize(("module", "fit"), FORMS)
def test_rank_of_all_taps_is_exact(module, fit) -> None:
    w, h = problem(9, 4 * 9)
    rank = 9 if module is dw_pw else 4
    merged = module.merged(*fit(w, h, 4, rank))
    assert loss(merged, w, h) < 1e-5 * loss(0 * w, w, h)


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


@pytest.mark.parametrize(("module", "fit"), FORMS)
def test_a_form_that_cannot_reach_what_is_allowed_is_not_fitted_to_the_end(module, fit) -> None:
    w, h = problem(12, 4 * 9)
    best = loss(module.merged(*fit(w, h, 4, 2)), w, h)
    for share in (0.01, 0.5, 0.9):
        assert loss(module.merged(*fit(w, h, 4, 2, allowed=share * best)), w, h) > share * best
    np.testing.assert_array_equal(fit(w, h, 4, 2, allowed=1.5 * best)[0], fit(w, h, 4, 2)[0])


def test_what_is_hopeless_stops_early(monkeypatch: pytest.MonkeyPatch) -> None:
    w, h = problem(12, 4 * 9)
    np.testing.assert_array_equal(pw_dw.pw_dw(w, h, 4, 1, allowed=1e-6)[0], pw_dw.pw_dw(w, h, 4, 1, sweeps=0)[0])
    whole = pw_dw.pw_dw(w, h, 4, 1)[0]
    monkeypatch.setattr(pw_dw, "STACK", 1)  # one output at a time
    np.testing.assert_allclose(pw_dw.pw_dw(w, h, 4, 1)[0], whole, rtol=1e-9)
    p, _ = pw_dw.pw_dw(w, h, 4, 1, allowed=1e-6)
    assert np.any(p[0])
    assert not np.any(p[1:])
    np.testing.assert_array_equal(dw_pw.dw_pw(w, h, 4, 1, allowed=1e-6)[0], dw_pw.dw_pw(w, h, 4, 1, sweeps=0)[0])


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


@pytest.mark.parametrize("form", ["dw-pw", "pw-dw"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_graph_answers_as_a_layer_of_that_rank(form: str, rank: int) -> None:
    rng = np.random.default_rng(0)
    graph = Graph("net", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4, 7, 7)))
    if form == "dw-pw":
        exact = dw_pw.merged(rng.normal(size=(5, 4, rank)), rng.normal(size=(4, rank, 9)))
    else:
        exact = pw_dw.merged(rng.normal(size=(5, rank, 4)), rng.normal(size=(5, rank, 9)))
    for name, weight in (("stem", rng.normal(size=(4, 4, 3, 3)) / 6.0), ("layer", exact.reshape(5, 4, 3, 3) / 6.0)):
        inputs = [graph.constant(one.astype(np.float32)) for one in (weight, rng.normal(size=len(weight)))]
        value = graph.add("Conv", [value, *inputs], {"pads": [1, 0, 0, 1]}, outputs=[name], name=name).output
    graph.add_output(value, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    data = {"x": rng.normal(size=(200, 4, 7, 7)).astype(np.float32)}
    before = Session(graph, threads=1).run(data)[0]
    report = Depthwise(rank=rank, form=form).run(  # type: ignore[arg-type]
        graph, Context(TargetFacts("onnx"), fit=load_samples(data, graph), threads=1)
    )
    assert report.layers[-1].detail["rank"] == rank
    infer(graph, fresh=True)
    after = Session(graph, threads=1).run(data)[0]
    assert np.mean((after - before) ** 2) < 1e-4 * np.var(before)
    kernels = [node for node in graph if node.op == "Conv" and node.name.startswith("layer.0") and form == "dw-pw"]
    assert [node.get_int("group", 1) for node in kernels] == [4] * len(kernels)
    assert len(kernels) == (rank if form == "dw-pw" else 0)
    assert all(node.inputs[1].shape == (4, 1, 3, 3) for node in kernels)
