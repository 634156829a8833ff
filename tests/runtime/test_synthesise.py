"""Made-up samples: the same for the same seed, of what the model says about its inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from optc.errors import DataError
from optc.ir.graph import Graph
from optc.ir.onnx.reader import load
from optc.ir.types import DType, TensorType
from optc.runtime.first_layer import input_statistics
from optc.runtime.noise import dead_leaves, power_law
from optc.runtime.session import Session
from optc.runtime.synthesise import synthesise


def stem(mean: np.ndarray, covariance: np.ndarray) -> Graph:
    """A convolution of single pixels whose BatchNormalization has seen inputs of `mean` and `covariance`."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((16, 3, 1, 1)).astype(np.float32)
    flat = weight[:, :, 0, 0].astype(np.float64)
    graph = Graph("stem", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 24, 20)))
    conv = graph.add("Conv", [x, graph.constant(weight)])
    ones = np.ones(16, np.float32)
    norm = graph.add(
        "BatchNormalization",
        [
            conv.output,
            graph.constant(ones),
            graph.constant(0 * ones),
            graph.constant((flat @ mean).astype(np.float32)),
            graph.constant(np.einsum("oc,cd,od->o", flat, covariance, flat).astype(np.float32)),
        ],
    )
    graph.add_output(norm.output, "y", TensorType(DType.FLOAT, None))
    return graph


def test_input_statistics_are_those_that_batch_normalization_saw() -> None:
    mean = np.array([0.5, -1.0, 0.2])
    root = np.array([[1.0, 0, 0], [0.8, 0.3, 0], [0.7, 0.1, 0.4]])
    statistics = input_statistics(stem(mean, root @ root.T).inputs[0])
    assert statistics is not None
    np.testing.assert_allclose(statistics.mean, mean, atol=0.02)
    np.testing.assert_allclose(statistics.covariance, root @ root.T, atol=0.05)


def test_pictures_have_those_statistics() -> None:
    mean = np.array([0.5, -1.0, 0.2])
    root = np.array([[1.0, 0, 0], [0.8, 0.3, 0], [0.7, 0.1, 0.4]])
    x = next(synthesise(stem(mean, root @ root.T), 64).batches(64))["x"]
    pixels = x.swapaxes(0, 1).reshape(3, -1)
    np.testing.assert_allclose(pixels.mean(1), mean, atol=0.3)
    np.testing.assert_allclose(np.cov(pixels), root @ root.T, atol=0.3)


def test_statistics_are_asked_for_pictures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A covariance of 80 channels would take 80^4 numbers."""
    monkeypatch.setattr("optc.runtime.synthesise.input_statistics", pytest.fail)
    graph = Graph("sound", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 80, 64)))
    graph.add_output(x, "y")
    assert next(synthesise(graph, 2).batches(2))["x"].shape == (2, 80, 64)


def test_the_seed_decides() -> None:
    graph = stem(np.zeros(3), np.eye(3))
    first, again, other = (next(synthesise(graph, 3, seed).batches(3))["x"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert synthesise(graph, 3).synthetic


def test_small_samples_are_many() -> None:
    counts = []
    for size in (8, 1 << 15, 1 << 18):
        graph = Graph("g", opsets={"": 17})
        graph.add_output(graph.add_input("x", TensorType(DType.FLOAT, ("N", size))), "y")
        counts.append(synthesise(graph).count)
    assert counts == [512, 256, 64]


def test_a_sample_that_is_a_batch_of_pictures_counts_as_many() -> None:
    counts = []
    for batch in (1, 4, 32):
        graph = Graph("g", opsets={"": 17})
        x = graph.add_input("x", TensorType(DType.FLOAT, (batch, 3, 4, 4)))
        graph.add_output(graph.add("Relu", [x]).output, "y", TensorType(DType.FLOAT))
        counts.append(synthesise(graph).count)
    assert counts == [512, 128, 64]


def test_inputs_of_a_transformer_and_of_a_cell() -> None:
    graph = Graph("g", opsets={"": 17})
    ids = graph.add_input("ids", TensorType(DType.INT64, ("N", 7)))
    mask = graph.add_input("attention_mask", TensorType(DType.INT64, ("N", 7)))
    kinds = graph.add_input("token_type_ids", TensorType(DType.INT64, ("N", 7)))
    state = graph.add_input("state", TensorType(DType.FLOAT, (2, "N", 3)))
    rows = graph.add("Gather", [graph.constant(np.zeros((11, 4), np.float32)), ids])
    for value in (rows.output, mask, kinds, state):
        graph.add_output(value, f"out.{value.name}{len(graph.outputs)}")
    feeds = next(synthesise(graph, 50).batches(50))
    assert feeds["ids"].min() == 0
    assert feeds["ids"].max() == 10
    assert feeds["ids"].dtype == np.int64
    assert (feeds["attention_mask"] == 1).all()
    assert (feeds["token_type_ids"] == 0).all()
    assert feeds["state"].shape == (2, 50, 3)
    assert not feeds["state"].any()


def test_inputs_that_only_sound_like_a_state_are_noise() -> None:
    """The main input of a sequence-first network, what an encoder answered, features that happen to be called so."""
    for name, shape in (
        ("x", ("T", "batch", 64)),
        ("encoder_hidden_states", ("batch", "T", 64)),
        ("real_estate_features", ("batch", 64)),
        ("state", ("batch", 64)),
        ("x", (50, "batch", 64)),
    ):
        graph = Graph("g", opsets={"": 17})
        value = graph.add_input(name, TensorType(DType.FLOAT, shape))
        graph.add_output(value, "y")
        graph.add_output(graph.add_input("mask", TensorType(DType.INT64, ())), "z")
        row = next(synthesise(graph, 2).batches(2))[name]
        assert row.std() == pytest.approx(1, abs=0.3), (name, shape)


def test_states_are_what_returns_beside_data() -> None:
    """By name, or by a batch behind the layers; `past_values` has no output of its shape, so it is no state."""
    graph = Graph("g", opsets={"": 17})
    inputs = {
        "x": ("T", "N", 8),
        "hn": (2, "N", 16),
        "h0": ("N", 24),
        "past_key_values.0.key": ("N", 4, "past", 8),
        "past_values": ("N", 40),
        "encoder_hidden_states": ("N", "T", 8),
    }
    values = {name: graph.add_input(name, TensorType(DType.FLOAT, shape)) for name, shape in inputs.items()}
    for name, value in values.items():
        if name != "past_values":
            graph.add_output(value, f"next.{name}")
    feeds = next(synthesise(graph, 2).batches(2))
    assert {name for name, array in feeds.items() if not array.any()} == {"hn", "h0", "past_key_values.0.key"}


def test_open_sizes_are_tried_until_the_model_runs() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", "T")))
    out = graph.add("MatMul", [x, graph.constant(np.ones((48, 2), np.float32))])
    graph.add_output(out.output, "y", TensorType(DType.FLOAT, ("N", 2)))
    assert next(synthesise(graph, 2).batches(2))["x"].shape == (2, 48)
    out.set_input(1, graph.constant(np.ones((47, 2), np.float32)))
    with pytest.raises(DataError, match=r"found no sizes for the open dimensions \(T\)"):
        synthesise(graph, 2)


def test_sizes_that_are_sums_follow_their_parts() -> None:
    graph = Graph("decoder", opsets={"": 17})
    ids = graph.add_input("ids", TensorType(DType.INT64, ("batch", "sequence")))
    past = graph.add_input("past", TensorType(DType.FLOAT, ("batch", 2, "past", 4)))
    mask = graph.add_input("attention_mask", TensorType(DType.INT64, ("batch", "past + sequence")))
    for value in (ids, past, mask):
        graph.add_output(value, f"out.{value.name}")
    feeds = next(synthesise(graph, 3).batches(3))
    assert feeds["attention_mask"].shape[1] == feeds["ids"].shape[1] + feeds["past"].shape[2]
    assert not feeds["past"].any()


def test_statistics_are_nearer_to_real_ones_than_those_of_noise(kit: Path) -> None:
    """Every BatchNormalization of a real model sees about the mean that it remembers."""
    graph = load(kit / "models" / "cifar_resnet32_bn.onnx")
    norms = [node for node in graph if node.op == "BatchNormalization"]
    session = Session(graph, outputs=[v for node in norms if (v := node.input(0)) is not None], threads=1)

    def error(feeds: dict[str, np.ndarray]) -> float:
        moments = []
        for node, x in zip(norms, session.run(feeds), strict=True):
            mean, variance = (np.asarray(v.numpy(), np.float64) for v in node.inputs[3:5] if v is not None)
            moments.append(np.mean(abs(x.mean((0, 2, 3)) - mean) / np.sqrt(variance + 1e-5)))
        return float(np.mean(moments))

    drawn = next(synthesise(graph, 64).batches(64))
    noise = np.random.default_rng(0).standard_normal(drawn["input"].shape).astype(np.float32)
    assert error(drawn) < 0.6 * error({"input": noise})


def test_what_cannot_be_made_up_is_said() -> None:
    graph = Graph("g", opsets={"": 17})
    text = graph.add_input("text", TensorType(DType.STRING, ("N",)))
    graph.add_output(text, "y")
    with pytest.raises(DataError, match="input 'text' holds string"):
        synthesise(graph, 2)


def test_noise_has_the_spectrum_and_the_leaves_have_edges() -> None:
    rng = np.random.default_rng(0)
    noise = power_law(rng, (64, 128), (1,))
    assert noise.std() == pytest.approx(1, abs=1e-3)
    power = (abs(np.fft.rfft(noise.astype(np.float64), axis=1)) ** 2).mean(0)
    assert np.log2(power[4:8].mean() / power[16:32].mean()) == pytest.approx(4, abs=0.8)
    leaves = np.stack([dead_leaves(rng, 3, 32, 40) for _ in range(64)])
    assert leaves.mean() == pytest.approx(0, abs=0.15)
    assert leaves.std() == pytest.approx(1, abs=0.15)
    steps = np.diff(leaves, axis=-1)
    kurtosis = (steps**4).mean() / (steps**2).mean() ** 2
    assert kurtosis > 6  # Gaussian noise has 3: edges are rare and large


@pytest.mark.parametrize("shape", [(0, 3, 24, 20), (0, 4), (2, 0)])
def test_inputs_of_nothing(shape: tuple[int, ...]) -> None:
    graph = Graph("none", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, shape))
    graph.add_output(graph.add("Relu", [value]).output, "y", TensorType(DType.FLOAT, shape))
    feeds = next(synthesise(graph, 2).batches(1))
    assert feeds["x"].shape == shape
