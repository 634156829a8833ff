"""Sixteen levels where the weights are: the best ones, nearer than a grid, zero kept, no lookup left at run time."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from quantized import quantized, runtime_ops

from optc.errors import SpecError
from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.quant import Quant
from optc.passes.quant.numbers import codebook
from optc.passes.quant.numbers.codebook import LEVELS, TOP, best_levels, fit_book, nearest

RANDOM = np.random.default_rng(0)


def off(values: np.ndarray, weight: np.ndarray, book: np.ndarray) -> float:
    return float(np.sum(weight * (values - nearest(values, book)) ** 2))


def test_levels_are_the_best_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codebook, "LEVELS", 4)
    monkeypatch.setattr(codebook, "TOP", 6)
    for _ in range(5):
        values = np.rint(RANDOM.normal(size=40) * 3).clip(-6, 6)
        weight = RANDOM.random(40)
        best = min(
            off(values, weight, np.asarray(sorted(tried)))
            for tried in itertools.combinations(range(-6, 7), 4)
            if 0 in tried
        )
        levels = best_levels(values, weight)
        assert len(levels) == 4
        assert off(values, weight, levels) == pytest.approx(best, rel=0.02)


@pytest.mark.parametrize("values", [np.zeros(9), np.full(9, 5.0), np.asarray([-64.0, 64.0, 0.5])])
def test_few_different_weights_are_hit_exactly(values: np.ndarray) -> None:
    book = best_levels(values, np.ones_like(values))
    assert len(set(book.tolist())) == LEVELS
    assert 0.0 in book
    assert np.abs(book).max() <= TOP
    assert off(np.rint(values), np.ones_like(values), book) == 0.0


def test_a_book_is_nearer_than_a_grid_of_as_many_steps() -> None:
    goal = RANDOM.laplace(size=(1, 8, 256))
    book, scale = fit_book(goal, np.ones((1, 256)), np.ones(goal.shape, bool), np.zeros((1, 8)))
    lost = np.square(goal - nearest(goal / scale[..., None], book) * scale[..., None]).sum()
    grids = []
    for shrink in np.linspace(0.3, 1, 29):
        step = np.abs(goal).max(axis=2, keepdims=True) / 7 * shrink
        grids.append(np.square(goal - np.clip(np.rint(goal / step), -8, 7) * step).sum(axis=2))
    assert lost < 0.7 * np.min(grids, axis=0).sum()


def network(channels: int = 48) -> Graph:
    graph = Graph("network", opsets={"": 21})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 32, 6, 6)))
    weight = RANDOM.laplace(size=(channels, 32, 3, 3)).astype(np.float32) / 16
    weight[:, ::2] = 0
    y = graph.add("Conv", [x, graph.constant(weight, "w")], {"pads": [1] * 4}, name="c").output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("N", channels, 6, 6)))
    infer(graph)
    return graph


FEEDS = {"x": RANDOM.normal(size=(24, 32, 6, 6)).astype(np.float32)}


def test_books_run_in_integer_kernels_and_zeros_stay(tmp_path: Path) -> None:
    graph, uniform = network(), network()
    report = quantized(graph, FEEDS, Quant(weights="codebook", slower="int8"))
    other = quantized(uniform, FEEDS, Quant(weights="int4", slower="int8"))
    ops = runtime_ops(graph, tmp_path)
    assert ops["QLinearConv"] == 1
    assert not {"Gather", "Cast", "Conv", "FusedConv"} & set(ops)
    places = next(v for v in graph.constants if v.dtype is DType.UINT4)
    book = next(v for v in graph.constants if v.shape == (16,) and v.dtype is DType.INT8)
    codes = np.asarray(book.numpy())[np.asarray(places.numpy(), np.int64)]
    assert not codes[:, ::2].any()
    assert codes[:, 1::2].any()
    assert len(to_bytes(graph)) < len(to_bytes(uniform)) + 400
    plain = quantized(network(), FEEDS, Quant(weights="int4", per_channel=False, slower="int8"))
    errors = [float(str(r.layers[0].detail["error"])) for r in (report, other, plain)]
    assert errors[0] < 1.1 * errors[1], "blocks of weights with a scale each"
    assert errors[0] < 0.85 * errors[2], "one scale"


def test_small_layers_take_a_grid_and_stored_weights_no_book() -> None:
    graph = network(channels=2)
    quantized(graph, FEEDS, Quant(weights="codebook", slower="int8"))
    assert not any(node.op == "Gather" for node in graph)
    with pytest.raises(SpecError, match="weights=codebook needs integer or dynamic activations"):
        quantized(network(), FEEDS, Quant(weights="codebook", activations="none"))
