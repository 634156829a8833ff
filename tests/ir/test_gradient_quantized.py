"""Gradients through quantization: straight through inside the range, learned step sizes for scales and zero points."""

from __future__ import annotations

import numpy as np
import pytest
from gradients import runtime

from optc.ir.gradient.differentiate import differentiate
from optc.ir.graph import Graph, Value
from optc.ir.types import DType, TensorType

X = np.array([[-30.0, -0.4, 0.26, 0.9], [1.24, 3.0, 26.0, 200.0]], np.float32)
SEED = np.array([[1.0, 2.0, -1.0, 0.5], [3.0, -2.0, 1.5, 1.0]], np.float32)


def quantized(
    scale: np.ndarray, zero: np.ndarray, attributes: dict[str, int], shape: tuple[int, ...] = (2, 4)
) -> tuple[Graph, Value, Value, Value, Value]:
    """x, quantized and dequantized by parameters that are inputs."""
    graph = Graph("g", opsets={"": 21})
    x = graph.add_input("x", TensorType(DType.FLOAT, shape))
    s = graph.add_input("s", TensorType(DType.FLOAT, scale.shape))
    z = graph.add_input("z", TensorType(DType.of(zero.dtype), zero.shape))
    codes = graph.add("QuantizeLinear", [x, s, z], attributes).output
    y = graph.add("DequantizeLinear", [codes, s, z], attributes).output
    seed = graph.add_input("seed", TensorType(DType.FLOAT, shape))
    graph.add_output(y, "y", TensorType(DType.FLOAT, shape))
    return graph, x, s, z, seed


def answers(graph: Graph, values: list[Value], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    while graph.outputs:
        graph.remove_output(len(graph.outputs) - 1)
    for i, value in enumerate(values):
        graph.add_output(value, f"out{i}", TensorType(DType.FLOAT))
    return runtime(graph, feeds)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("scale", "zero", "attributes"),
    [
        (np.array(0.2, np.float32), np.array(3, np.int8), {}),
        (np.array(0.2, np.float32), np.array(100, np.uint8), {}),
        (np.array([0.2, 0.5], np.float32), np.array([0, -7], np.int8), {"axis": 0}),
        (np.array([0.1, 0.2, 0.3, 0.4], np.float32), np.array([0, 1, 2, 3], np.int8), {"axis": 1}),
        (np.full((2, 2), 0.3, np.float32), np.array([[0, 1], [2, 3]], np.int8), {"axis": 1, "block_size": 2}),
    ],
)
def test_learned_step_sizes(scale: np.ndarray, zero: np.ndarray, attributes: dict[str, int]) -> None:
    """Against equation 3 of Esser et al. 2020, and its form with a zero point, written out in numpy."""
    graph, x, s, z, seed = quantized(scale, zero, attributes)
    gradients = differentiate(graph, {graph.outputs[0].value: seed}, [x, s, z])
    feeds = {"x": X, "s": scale, "z": zero, "seed": SEED}
    by_x, by_s, by_z = answers(graph, [gradients[v] for v in (x, s, z)], feeds)
    axis = attributes.get("axis", 0)
    if "block_size" in attributes:
        spread = [np.repeat(p.astype(np.float64), attributes["block_size"], axis) for p in (scale, zero)]
    elif scale.ndim:
        spread = [np.broadcast_to(np.expand_dims(p.astype(np.float64), 1 - axis), X.shape) for p in (scale, zero)]
    else:
        spread = [np.broadcast_to(p.astype(np.float64), X.shape) for p in (scale, zero)]
    steps, offset = X / spread[0], spread[1]
    info = np.iinfo(zero.dtype)
    inside = (steps + offset >= info.min) & (steps + offset <= info.max)
    codes = np.clip(np.round(steps) + offset, info.min, info.max)
    assert 0 < inside.sum() < X.size
    np.testing.assert_allclose(by_x, SEED * inside, rtol=1e-5)

    def summed(each: np.ndarray) -> np.ndarray:
        if "block_size" in attributes:
            return each.reshape(2, 2, 2).sum(axis=2)
        return each.sum(axis=1 - axis) if scale.ndim else each.sum()

    np.testing.assert_allclose(by_s, summed(SEED * (codes - offset - np.where(inside, steps, 0))), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(by_z, summed(np.where(inside, 0, -SEED * spread[0])), rtol=1e-3, atol=1e-4)


def test_stored_integers_have_gradients_per_unit() -> None:
    graph = Graph("g", opsets={"": 17})
    codes = graph.constant(np.array([[1, -3], [4, 5]], np.int8), "codes")
    scale = graph.constant(np.array([0.5, 0.25], np.float32), "scale")
    weight = graph.add("DequantizeLinear", [codes, scale], {"axis": 1}).output
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 2)))
    y = graph.add("MatMul", [x, weight]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("N", 2)))
    gradients = differentiate(graph, {y: None}, [codes, scale])
    data = np.array([[1.0, 2.0], [0.5, -1.0]], np.float32)
    by_codes, by_scale = answers(graph, [gradients[codes], gradients[scale]], {"x": data})
    by_weight = data.sum(axis=0)[:, None] * np.ones((1, 2))
    np.testing.assert_allclose(by_codes, by_weight * [0.5, 0.25], rtol=1e-6)
    np.testing.assert_allclose(by_scale, (by_weight * [[1, -3], [4, 5]]).sum(axis=0), rtol=1e-6)


def test_dynamic_quantization_passes_straight_through() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (2, 4)))
    codes = graph.add("DynamicQuantizeLinear", [x], outputs=3).outputs
    y = graph.add("DequantizeLinear", list(codes)).output
    seed = graph.add_input("seed", TensorType(DType.FLOAT, (2, 4)))
    gradients = differentiate(graph, {y: seed}, [x])
    (by_x,) = answers(graph, [gradients[x]], {"x": X, "seed": SEED})
    np.testing.assert_allclose(by_x, SEED, rtol=1e-5)
