"""What is left to the runtime gives the same numbers in the same kernels, out of a smaller file."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes
from optc.ir.origin import Origin
from optc.ir.types import DType, TensorType
from optc.ir.verify.verify import verify
from optc.passes.base import Context, Report, TargetFacts
from optc.passes.clean.clean import clean
from optc.runtime.islands import optimised
from optc.runtime.session import Session
from optc.targets.load_time import LoadTime, _rows

RANDOM = np.random.default_rng(0)


def quantized(*, shift: float = 1.0) -> Graph:
    """Codes -> Conv of 64 channels -> codes -> sum with large constants of few rows; `shift` spoils the bias' scale."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 16, 16)))
    step, zero = graph.constant(np.float32(0.05)), graph.constant(np.uint8(128))
    weight_scale = RANDOM.uniform(0.01, 0.02, 64).astype(np.float32)
    codes = graph.add("QuantizeLinear", [x, step, zero]).output
    decoded = graph.add("DequantizeLinear", [codes, step, zero]).output
    weight = RANDOM.integers(-60, 60, (64, 8, 3, 3)).astype(np.int8)
    inputs = [graph.constant(weight), graph.constant(weight_scale), graph.constant(np.zeros(64, np.int8))]
    kernel = graph.add("DequantizeLinear", inputs, {"axis": 0}).output
    bias = RANDOM.integers(-999, 999, 64).astype(np.int32)
    scale = graph.constant(np.float32(0.05) * weight_scale * np.float32(shift))
    inputs = [graph.constant(bias), scale, graph.constant(np.zeros(64, np.int32))]
    added = graph.add("DequantizeLinear", inputs, {"axis": 0}).output
    y = graph.add("Conv", [decoded, kernel, added], {"pads": [1, 1, 1, 1]}).output
    wide = graph.constant(np.float32(0.4))
    y = graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [y, wide, zero]).output, wide, zero]).output
    rows = RANDOM.standard_normal((7, 16)).astype(np.float32)
    y = graph.add("Add", [y, graph.constant(rows[RANDOM.integers(0, 7, (64, 16))])]).output
    y = graph.add("Mul", [y, graph.constant(RANDOM.standard_normal((64, 16, 16)).astype(np.float32))]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("N", 64, 16, 16)))
    return graph


def kernels(graph: Graph) -> Counter[str]:
    return Counter(node.op_type for node in optimised(graph).node)


def test_the_same_numbers_and_kernels_out_of_fewer_bytes() -> None:
    before = quantized()
    after = before.clone()
    report = LoadTime().run(after, Context(TargetFacts("onnx")))
    verify(after)
    assert report.rewrites == {"bias-scale": 1, "zero-point": 2, "rows": 1}
    assert len(to_bytes(after)) < len(to_bytes(before)) - 4000
    assert kernels(after) == kernels(before)
    assert kernels(after)["QLinearConv"] == 1
    feeds = {"x": RANDOM.standard_normal((2, 8, 16, 16)).astype(np.float32)}
    one, other = (Session(graph).run(feeds)[0] for graph in (before, after))
    assert np.array_equal(one, other)
    assert not LoadTime().run(after, Context(TargetFacts("onnx"))).rewrites
    clean(after, Report(), {})
    assert [node.op for node in after if node.op == "Mul"] == ["Mul"], "a scale is a constant again once it is read"


def test_what_the_runtime_computes_counts_at_the_layer_that_reads_it() -> None:
    graph = quantized()
    for node in graph:
        node.origin = Origin((node.op,))
    LoadTime().run(graph, Context(TargetFacts("onnx")))
    assert [node.op for node in graph if not node.origin.nodes] == []


def test_a_scale_that_is_no_product_stays() -> None:
    graph = quantized(shift=1.001)
    assert "bias-scale" not in LoadTime().run(graph, Context(TargetFacts("onnx"))).rewrites


@pytest.mark.parametrize(("count", "width", "kinds"), [(60_000, 64, 1), (60_000, 64, 200), (6_000_000, 1, 250)])
def test_rows_of_large_tables_are_told_apart_soon(count: int, width: int, kinds: int) -> None:
    """In the order of their bytes, as sorting them would give, which took half a minute here."""
    table = RANDOM.standard_normal((kinds, width)).astype(np.float32)
    numbers = table[RANDOM.integers(0, kinds, count)]
    start = time.perf_counter()
    distinct = _rows(numbers if width > 1 else numbers[:, 0], width)
    assert time.perf_counter() - start < 5
    assert distinct is not None
    rows, which = distinct
    assert np.array_equal(rows[which].reshape(numbers.shape), numbers)
    texts = [row.tobytes() for row in rows]
    assert texts == sorted({row.tobytes() for row in table})


def test_tables_of_many_rows_are_left() -> None:
    assert _rows(np.arange(70_000, dtype=np.float32) % 257, 1) is None
    assert _rows(np.append(np.zeros(60_000, np.float32), np.arange(400, dtype=np.float32)), 1) is None
