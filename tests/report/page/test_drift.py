"""How far values inside the result are from the original's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from optc.ir.graph import Graph
from optc.ir.origin import Origin
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.report.page.drift import _Pair, drift
from optc.report.page.rows import rows
from optc.runtime.samples import Samples
from optc.runtime.sources import load_samples

PLAIN = np.ones(4, np.float32)


def net(scale: np.ndarray = PLAIN, noise: float = 0.0) -> Graph:
    """Two convolutions; the channels between them are scaled, which the second takes back."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=(2, 4, 3, 3))
    first += noise * rng.normal(size=first.shape)
    graph = Graph("net", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 8, 8)))
    weights = (first * scale[:, None, None, None], second / scale[:, None, None])
    for name, weight in zip(("a", "b"), weights, strict=True):
        constant = graph.constant(weight.astype(np.float32))
        value = graph.add("Relu", [graph.add("Conv", [value, constant], name=name, outputs=[name]).output]).output
    graph.add_output(value, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    return graph


def snr(other: Graph) -> dict[str, float]:
    samples = np.random.default_rng(1).normal(size=(8, 3, 8, 8)).astype(np.float32)
    original = net()
    table = rows(original, other, SimpleNamespace(steps=[]), {})  # type: ignore[arg-type]
    samples_of = load_samples({"x": samples}, original)
    assert isinstance(samples_of, Samples)
    drift(original, other, table, samples_of, {}, 1)
    return {row.name: row.snr_db for row in table.all if row.name in ("a", "b") and row.snr_db is not None}


def test_a_scale_that_the_next_layer_takes_back_is_no_drift() -> None:
    assert all(value > 100 for value in snr(net(np.float32([1, 8, 0.1, 3]))).values())
    noisy = snr(net(np.float32([1, 8, 0.1, 3]), noise=0.1))
    assert set(noisy) == {"a", "b"}
    assert all(10 < value < 30 for value in noisy.values())


def test_a_shift_that_the_next_layer_takes_back_is_no_drift() -> None:
    """As where a normalisation was folded into the next layer: what the first puts out lies elsewhere."""
    rng = np.random.default_rng(2)
    t = rng.normal(size=(3, 4, 5, 5)) + np.asarray([3, 0, -8, 1.0])[:, None, None]
    factor, shift = np.asarray([2, 0.1, 5, 1.0]), np.asarray([1, -4, 0, 7.0])
    pair = _Pair(None, None, SimpleNamespace(is_output=False, producer=None), 0)  # type: ignore[arg-type]
    for sample in t:
        pair.add(sample[None], sample[None] * factor[:, None, None] + shift[:, None, None])
    assert pair.snr_db > 100
    back = pair.scaled((t[:1] * factor[:, None, None] + shift[:, None, None]).astype(np.float32))
    np.testing.assert_allclose(np.sort(back.reshape(-1)), np.sort(t[0].reshape(-1)), atol=1e-4)
    noisy = _Pair(None, None, SimpleNamespace(is_output=False, producer=None), 0)  # type: ignore[arg-type]
    for sample in t:
        noisy.add(
            sample[None],
            sample[None] * factor[:, None, None] + 0.5 * factor[:, None, None] * rng.normal(size=(1, 4, 5, 5)),
        )
    assert 5 < noisy.snr_db < 30


def test_histograms_of_weights_lie_on_each_other_whatever_scale_channels_have() -> None:
    """As of a layer that took up a normalisation: else either would be one spike at 0."""
    original, other = net(), net(np.asarray([1, 800, 0.01, 30], np.float32))
    for node in other:
        node.origin = Origin.merge([node.origin], "clean")
    table = rows(original, other, SimpleNamespace(steps=[]), {})  # type: ignore[arg-type]
    samples = np.random.default_rng(1).normal(size=(8, 3, 8, 8)).astype(np.float32)
    spreads = {
        one.row.name: one for one in drift(original, other, table, load_samples({"x": samples}, original), {}, 1)
    }
    weights = spreads["a"].weights
    assert weights is not None
    assert weights.before is not None
    assert weights.after is not None
    assert np.abs(weights.before - weights.after).sum() < 0.05
    assert weights.after.max() < 0.3
