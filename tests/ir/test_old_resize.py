"""Resize and Upsample of old opsets answer in later ones as they did."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from optc.errors import ModelError
from optc.ir.graph import Graph
from optc.ir.onnx.opset import convert
from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import to_bytes

X = np.random.default_rng(0).standard_normal((1, 2, 6, 10)).astype(np.float32)


def model(opset: int, op: str, mode: str, scales: str) -> Graph:
    body = f'y = {op} <mode = "{mode}"> (x, s)'
    text = f'<ir_version: 7, opset_import: ["" : {opset}]> g (float[1, 2, 6, 10] x) => (float[a, b, c, d] y)'
    return from_proto(onnx.parser.parse_model(f"{text} <float[4] s = {{{scales}}}> {{ {body} }}"))


def answer(graph: Graph, **feeds: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(to_bytes(graph), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": X, **feeds})[0])


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("version", [11, 13, 18, 21])
@pytest.mark.parametrize(
    ("opset", "op", "scales"),
    [
        (9, "Upsample", "1, 1, 2, 2"),
        (9, "Upsample", "1, 1, 1.3, 2.7"),
        (10, "Resize", "1, 1, 2, 2"),
        (10, "Resize", "1, 1, 0.5, 0.5"),
        (10, "Resize", "1, 1, 1.3, 0.7"),
        (10, "Resize", "1, 1, 1, 1"),
    ],
)
def test_it_answers_as_before(opset: int, op: str, scales: str, version: int, mode: str) -> None:
    graph = model(opset, op, mode, scales)
    before = answer(graph)
    convert(graph, version)
    after = answer(graph)
    assert after.shape == before.shape
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("op", "mode", "kept"), [("Upsample", "nearest", True), ("Resize", "linear", True),
                                                  ("Resize", "nearest", False)])  # fmt: skip
def test_scales_that_the_model_computes(op: str, mode: str, kept: bool) -> None:
    """An Upsample only enlarges, and lines do not round; what a Resize does to the nearest pixel is not known."""
    graph = model(9 if op == "Upsample" else 10, op, mode, "1, 1, 2, 3")
    (scales,) = graph.constants
    free = graph.add_input("s2", scales.type)
    numbers = scales.constant
    assert numbers is not None
    scales.replace_uses(free)
    graph.sweep()
    feed = {"s2": np.asarray(numbers.numpy())}
    before = answer(graph, **feed)
    if not kept:
        with pytest.raises(ModelError, match="takes the nearest pixel by scales that are computed"):
            convert(graph, 13)
        return
    convert(graph, 13)
    np.testing.assert_allclose(answer(graph, **feed), before, rtol=0, atol=1e-6)
