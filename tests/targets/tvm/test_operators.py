"""Operators between codes: libraries answer bit by bit as ONNX Runtime's integer kernels do."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from quantized import cleaned, quantized
from unsigned import unsigned

from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType
from optc.models import zoo
from optc.runtime.islands import is_integer, optimised
from optc.runtime.session import Session
from optc.targets import table

from .test_codes import built
from .test_library import Net, need

_EXACT = ("QuantizeLinear", "DequantizeLinear", "Transpose", "Flatten", "Concat", "Slice", "Pad", "MaxPool")


class IntegerNet(Net):
    """A graph of which ONNX Runtime makes integer kernels: each value has codes on a grid of its own."""

    def __init__(self, dtype: type[np.integer]) -> None:
        super().__init__()
        self.low = int(np.iinfo(dtype).min)
        self.dtype = dtype
        self.scales: dict[Value, float] = {}

    def rounded(self, x: Value, scale: float, zero: int) -> Value:
        """`zero` is counted from the least code."""
        parts = self.graph.constant(np.float32(scale)), self.graph.constant(np.array(zero + self.low, self.dtype))
        value = self.add("DequantizeLinear", self.add("QuantizeLinear", x, *parts), *parts)
        self.scales[value] = float(np.float32(scale))
        return value

    def decoded(self, codes: np.ndarray, scales: np.ndarray, axis: int = 0) -> Value:
        parts = (codes, scales.astype(np.float32), np.zeros(scales.shape, codes.dtype))
        return self.add("DequantizeLinear", *map(self.graph.constant, parts), axis=axis)

    def layer(self, op: str, x: Value, *shape: int, **attributes: object) -> Value:
        codes = self.random.integers(-127, 128, size=shape).astype(np.int8)
        scales = self.random.uniform(0.5, 1.5, shape[0]) / (60 * np.sqrt(np.prod(shape[1:])))
        scales = scales.astype(np.float32)
        units = np.float32(self.scales[x]) * scales
        # Biases of all sizes: those of channels that hardly have weights reach to millions.
        bias = (self.random.normal(size=shape[0]) * 10.0 ** self.random.integers(1, 5, shape[0])).astype(np.int32)
        return self.add(op, x, self.decoded(codes, scales), self.decoded(bias, units), **attributes)


def operators(dtype: type[np.integer]) -> Graph:
    """Every operator that has a rule, with and without a layer that it is fused with."""
    net = IntegerNet(dtype)
    x = net.rounded(net.input("x", "N", 3, 17, 16), 0.031, 121)
    first = net.layer("Conv", x, 16, 3, 3, 3, pads=[1, 1, 1, 1])
    x = net.rounded(net.add("Relu", first), 0.0173, 0)
    deep = net.rounded(net.layer("Conv", x, 16, 1, 3, 3, group=16, pads=[1, 1, 1, 1]), 0.0411, 117)
    one = net.rounded(net.layer("Conv", deep, 16, 16, 1, 1), 0.0353, 131)
    # An addition of what a layer gives and of what is in memory; its Relu keeps to what codes reach anyway.
    x = net.rounded(net.add("Relu", net.add("Add", one, x)), 0.0297, 0)
    left = net.rounded(net.layer("Conv", x, 16, 16, 1, 1), 0.0307, 101)
    right = net.rounded(net.layer("Conv", x, 16, 16, 3, 3, pads=[1, 1, 1, 1]), 0.0271, 140)
    both = net.rounded(net.add("Add", left, right), 0.0439, 125)
    product = net.rounded(net.add("Mul", both, right), 0.0613, 119)
    joined = net.rounded(net.add("Concat", both, product, deep, axis=1), 0.0523, 122)
    last = net.rounded(net.layer("Conv", joined, 24, 48, 1, 1), 0.0367, 128)
    mean = net.rounded(net.add("GlobalAveragePool", last), 0.0093, 126)
    flat = net.rounded(net.add("Flatten", mean), 0.0093, 126)
    scores = net.rounded(net.layer("Gemm", flat, 10, 24, transB=1), 0.0157, 130)
    outputs = [one.producer.inputs[0] for one in (joined, product, both, mean, scores) if one.producer is not None]
    return net.done(*[value for value in outputs if value is not None])


def check(graph: Graph, spec: str, feeds: dict[str, np.ndarray], path: Path, spread: int) -> None:
    reference = unsigned(graph)
    left = [node.op_type for node in optimised(reference).node if not is_integer(node.op_type)]
    assert set(left) <= set(_EXACT), left
    built(graph, spec, path / "a.tar")
    got = table.parse(spec)[0].open(str(path / "a.tar"), threads=1).run(feeds)
    for one, other in zip(got, Session(reference, threads=1).run(feeds), strict=True):
        shifted = one.astype(np.int16) + 128 if one.dtype == np.int8 else one
        assert np.ptp(other.astype(np.float64)) > spread
        assert np.array_equal(shifted, other)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernels that are the reference are those for x86")
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("spec", ["host", "arm64", "arm64:dotprod=true"])
def test_codes_are_those_of_the_integer_kernels(spec: str, dtype: type[np.integer], tmp_path: Path) -> None:
    need(spec.partition(":")[0])
    feeds = {"x": np.random.default_rng(3).normal(size=(3, 3, 17, 16)).astype(np.float32)}
    check(operators(dtype), spec, feeds, tmp_path, 40)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernels that are the reference are those for x86")
def test_a_network_that_ships_answers_as_the_integer_kernels(tmp_path: Path) -> None:
    need("host")
    graph = cleaned("digits_resnet")
    quantized(graph, zoo.samples("digits_resnet", "calib"), activation_dtype=DType.INT8, saturating_int8=False)
    for index, node in enumerate([node for node in graph if node.op == "QuantizeLinear"]):
        graph.add_output(node.output, f"codes{index}")
    infer(graph)
    name = graph.inputs[0].name
    check(graph, "host", {name: zoo.samples("digits_resnet", "test")[name][:32]}, tmp_path, 5)


def test_unsigned_codes_say_the_same() -> None:
    """Computed as written, in floats, the model and its unsigned form give the same numbers."""
    graph = operators(np.int8)
    feeds = {"x": np.random.default_rng(3).normal(size=(2, 3, 17, 16)).astype(np.float32)}
    signed, other = (Session(one, optimise=False, threads=1).run(feeds) for one in (graph, unsigned(graph)))
    for one, two in zip(signed, other, strict=True):
        assert (one.dtype, two.dtype) == (np.int8, np.uint8)
        assert np.array_equal(one.astype(int) + 128, two)
