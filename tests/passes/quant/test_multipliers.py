"""Four-bit weights with a scale a block: in the file, in the runtime's graph, and against one scale a channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from quantized import quantized, runtime_ops

from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.passes.quant import Quant
from optc.passes.quant.numbers.multipliers import MOST, round_multipliers
from optc.passes.quant.numbers.rounding import Elimination, losses, round_to_grid
from optc.passes.quant.qdq.packing import store_codes
from optc.runtime.session import Session

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "few"),
    [((8, 64, 3, 3), (8, 2, 3, 3)), ((8, 64), (8, 4)), ((64, 8), (4, 8))],
    ids=["Conv", "Gemm", "MatMul"],
)
def test_the_runtime_multiplies_as_it_loads(shape: tuple[int, ...], few: tuple[int, ...]) -> None:
    codes = RANDOM.integers(-8, 8, shape).astype(np.int8)
    multipliers = RANDOM.integers(1, MOST + 1, few).astype(np.uint8)
    graph = Graph("g", opsets={"": 21})
    x = graph.add_input("x", TensorType(DType.INT32, ()))
    first = graph.add("Identity", [x])
    stored = store_codes(graph, codes, "w", bits=4, before=first, multipliers=multipliers)
    wide = graph.add("Cast", [stored], {"to": int(DType.INT32)}).output
    graph.add_output(graph.add("Mul", [wide, first.output]).output, "y", TensorType(DType.INT32, shape))
    axis = next(i for i in range(len(shape)) if shape[i] != few[i])
    expected = codes * np.repeat(multipliers, shape[axis] // few[axis], axis).astype(np.int32)
    assert np.array_equal(Session(graph).run({"x": np.asarray(1, np.int32)})[0], expected)


def test_blocks_of_unlike_size_lose_less_than_on_one_scale() -> None:
    n, d = 16, 128
    goal = RANDOM.standard_normal((1, n, d)) * np.repeat([1.0, 0.3, 0.5, 0.15], 32)
    inputs = RANDOM.standard_normal((500, d))
    metric = (inputs.T @ inputs / 500)[None]
    box = np.full_like(goal, -8.0), np.full_like(goal, 7.0)
    eliminations = [Elimination.of(h) for h in metric]
    weigh = np.stack([np.diagonal(h) for h in metric])
    codes, scale, multipliers = round_multipliers(goal, metric, weigh, eliminations, box, np.zeros((1, n)), 32)
    assert np.abs(codes * np.repeat(multipliers, 32, axis=2)).max() <= 64
    blocks = losses(codes, goal, metric, scale[..., None] * multipliers).sum()
    plain = np.inf
    for share in np.linspace(0.5, 1.0, 11):
        one = np.abs(goal).max(axis=2) / 7.5 * share
        plain = min(plain, losses(round_to_grid(goal, metric, one, *box), goal, metric, one).sum())
    assert blocks < 0.5 * plain


def test_convolutions_with_blocks_run_in_integer_kernels(tmp_path: Path) -> None:
    graph = Graph("g", opsets={"": 21})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 32, 8, 8)))
    y = x
    for _ in range(2):
        weight = (RANDOM.standard_normal((32, 32, 3, 3)) / 17).astype(np.float32)
        bias = RANDOM.standard_normal(32).astype(np.float32)
        y = graph.add("Conv", [y, graph.constant(weight), graph.constant(bias)], {"pads": [1, 1, 1, 1]}).output
        y.type = x.type
        y = graph.add("Relu", [y], types=[x.type]).output
    graph.add_output(y, "y", x.type)
    before = graph.clone()
    samples = {"x": RANDOM.standard_normal((64, 32, 8, 8)).astype(np.float32)}
    quantized(graph, samples, Quant(slower="int8", weights="int4"))
    assert sum(v.name.startswith("multiples") for v in graph.constants) == 2
    assert runtime_ops(graph, tmp_path)["QLinearConv"] == 2
    one, other = (np.asarray(Session(g).run(samples)[0], np.float64) for g in (before, graph))
    assert 10 * np.log10((one**2).mean() / ((one - other) ** 2).mean()) > 20
