"""One view of all linear layers: the order in which kernels read weights, and how weights and biases are written."""

from __future__ import annotations

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.passes.walk.linear import Linear, layer_view


def layer(op: str, shape: tuple[int, ...], *, bias: bool = False, **attributes: float) -> Linear:
    graph = Graph("layer", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, None))
    weight = graph.constant(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), "w")
    inputs = [x, weight, *([graph.constant(np.ones(5, np.float32), "b")] if bias else [])]
    return layer_view(graph.add(op, inputs, attributes, name=op).output.producer)


@pytest.mark.parametrize(
    ("op", "shape", "attributes"),
    [
        ("Conv", (4, 3, 3, 5), {}),
        ("Conv", (4, 2, 7), {"group": 2}),
        ("MatMul", (6, 5), {}),
        ("Gemm", (6, 5), {}),
        ("Gemm", (5, 6), {"transB": 1}),
    ],
)
def test_the_rows_of_kernels_and_back(op: str, shape: tuple[int, ...], attributes: dict[str, int]) -> None:
    one = layer(op, shape, **attributes)
    weight, rows = one.weight.numpy(), one.kernel_rows()
    assert rows.shape == (one.outputs, one.shape[2])
    assert np.array_equal(one.of_kernel_rows(rows.astype(np.int8)), weight.astype(np.int8))
    assert np.array_equal(one.laid_out(one.weights()), weight)
    if op == "Conv":  # neighbours in a row are input channels at one kernel position
        assert rows[0, 1] - rows[0, 0] == np.prod(shape[2:])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_a_shifted_bias_is_what_is_added(bias: bool, beta: float) -> None:
    one = layer("Gemm", (6, 5), bias=bias, beta=beta)
    before = one.bias()
    one.shift_bias(np.arange(5.0))
    assert np.array_equal(one.bias(), np.arange(5.0) + (0.0 if before is None else beta))


def test_a_weight_and_a_bias_that_nobody_else_reads() -> None:
    one = layer("Gemm", (6, 5), bias=True)
    assert one.unshared
    graph = one.node.graph
    assert graph is not None
    graph.add("Neg", [one.node.input(2)])
    assert not one.unshared


def test_outputs_are_counted_over_groups() -> None:
    assert layer("ConvTranspose", (4, 3, 2, 2), group=2).outputs == 6
    assert layer("Conv", (4, 2, 7), group=2).outputs == 4
