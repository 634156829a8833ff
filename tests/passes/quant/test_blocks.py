"""Weights of one layer with a scale for each block along the reduction."""

from __future__ import annotations

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Skip
from optc.passes.quant.layers import find_layers
from optc.passes.quant.stored.blocks import encode_blocks, fits_half, fuses, has_blocks, write_blocks
from optc.passes.walk.linear import Linear
from optc.runtime.session import Session


def product(op: str) -> tuple[Graph, Linear]:
    graph = Graph("product", opsets={"": 21})
    shape, size = (("N", 8, 5, 5), (6, 8, 3, 3)) if op == "Conv" else (("N", 64), (64, 6))
    x = graph.add_input("x", TensorType(DType.FLOAT, shape))
    sizes = np.repeat([1.0, 30.0], 32) if op == "MatMul" else np.ones(8)
    weight = np.random.default_rng(0).normal(size=size) * sizes.reshape((-1, 1) if op == "MatMul" else (1, -1, 1, 1))
    node = graph.add(op, [x, graph.constant(weight.astype(np.float32), "w")], name="m")
    graph.add_output(node.output, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    return graph, find_layers(graph)[0][node]


def test_blocks_follow_the_size_of_their_weights() -> None:
    _, layer = product("MatMul")
    values, scale = encode_blocks(layer, None, DType.INT4, 32)
    assert values.shape == (6, 64)
    assert scale.shape == (6, 2)
    assert (scale[:, 1] > 10 * scale[:, 0]).all()
    off = layer.kernel_rows() - values * np.repeat(scale, 32, axis=1)
    assert (np.abs(off) <= 1.5 * np.repeat(scale, 32, axis=1)).all()


@pytest.mark.parametrize("op", ["MatMul", "Conv"])
@pytest.mark.parametrize("few", [False, True])
def test_what_is_written_computes_with_the_decoded_weights(op: str, few: bool) -> None:
    graph, layer = product(op)
    block = 8 if op == "Conv" else 32
    values, scale = encode_blocks(layer, None, DType.INT4, block)
    decoded = layer.of_kernel_rows(values * np.repeat(scale.astype(np.float16).astype(np.float32), block, axis=1))
    teacher = graph.clone()
    next(iter(teacher)).set_input(1, teacher.constant(decoded.astype(np.float32)))
    assert fuses(graph, layer, DType.INT4, block, few) == (few and op == "MatMul")
    write_blocks(graph, layer, values, scale, DType.INT4, block, few)
    x = np.random.default_rng(1).normal(size=(3, 8, 5, 5) if op == "Conv" else (3, 64)).astype(np.float32)
    want, got = (Session(g, threads=1).run({"x": x})[0] for g in (teacher, graph))
    # The runtime's kernel for four bits may round activations, too.
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=(0.02 if few else 1e-4) * np.abs(want).max())


def test_a_reduction_that_is_not_made_of_blocks_is_skipped() -> None:
    assert has_blocks(64, 32)
    assert not has_blocks(32, 32)
    with pytest.raises(Skip, match="not made of blocks of 48"):
        encode_blocks(product("MatMul")[1], None, DType.INT4, 48)


def test_scales_that_float16_does_not_hold() -> None:
    assert fits_half(np.asarray([0.5, 100.0]))
    assert not fits_half(np.asarray([1e-9, 1.0]))
    assert not fits_half(np.asarray([1e6]))
