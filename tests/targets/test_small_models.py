"""What a small model says besides its weights: said shorter, with the same numbers out of the same kernels."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from quantized import cleaned, quantized

from optc.ir.graph import Graph
from optc.ir.onnx.reader import load
from optc.ir.onnx.writer import to_bytes
from optc.ir.origin import Origin
from optc.ir.types import DType, TensorType
from optc.ir.verify.verify import verify
from optc.models import zoo
from optc.passes.base import Context, TargetFacts
from optc.passes.quant import Quant
from optc.passes.quant.numbers.params import SCALE_BASE, powers_of_base, shortened, storable
from optc.runtime.islands import optimised
from optc.runtime.session import Session
from optc.targets.load_time import LoadTime
from optc.targets.onnx import OnnxTarget
from optc.targets.packed import pack
from optc.targets.qlinear import fuse_convolutions
from optc.targets.small_files import shorten

CTX = Context(TargetFacts("onnx"))
RANDOM = np.random.default_rng(0)


def kernels(graph: Graph) -> Counter[str]:
    return Counter(node.op_type for node in optimised(graph).node)


@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("name", ["digits_dscnn", "digits_resnet"])
def test_the_same_answers_and_kernels_out_of_fewer_bytes(name: str, weights: str) -> None:
    before = cleaned(name)
    samples = zoo.samples(name, "calib")
    quantized(before, {k: v[:64] for k, v in samples.items()}, Quant(slower="int8", weights=weights))  # type: ignore[arg-type]
    after = before.clone()
    LoadTime().run(after, CTX)
    for node in after:
        if node.op in ("QuantizeLinear", "Cast"):
            node.output.type = None  # as passes leave it
    for step in (fuse_convolutions, pack, shorten):
        assert step(after)
        verify(after)
    assert kernels(after) == kernels(before)
    assert not any(node.op == "Conv" for node in after)
    assert len(to_bytes(after)) < 0.9 * len(to_bytes(before))
    feeds = {k: v[64:96] for k, v in samples.items()}
    answers = (np.asarray(Session(graph).run(feeds)[0], np.float32) for graph in (before, after))
    assert np.allclose(*answers, rtol=0, atol=1e-5)
    assert [v.name for v in after.inputs] == [v.name for v in before.inputs]
    assert [o.name for o in after.outputs] == [o.name for o in before.outputs]


def convolution(*, channels: int = 16, kernel: int = 3, bias_scale: float = 1.0, float_reader: bool = False) -> Graph:
    """Codes -> Conv -> codes."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 16, 16)))
    step, zero = graph.constant(np.float32(0.05)), graph.constant(np.uint8(128))
    codes = graph.add("QuantizeLinear", [x, step, zero]).output
    decoded = graph.add("DequantizeLinear", [codes, step, zero]).output
    scale = storable(RANDOM.uniform(0.01, 0.02, channels), 8 * kernel**2)
    weight = graph.constant(RANDOM.integers(-60, 60, (channels, 8, kernel, kernel)).astype(np.int8))
    read = graph.add("DequantizeLinear", [weight, graph.constant(scale)], {"axis": 0}).output
    bias = graph.constant(shortened(RANDOM.integers(-99999, 99999, channels)))
    sums = graph.constant(np.float32(0.05) * scale * np.float32(bias_scale))
    added = graph.add("DequantizeLinear", [bias, sums], {"axis": 0}).output
    y = graph.add("Conv", [decoded, read, added], name="conv").output
    wide = graph.constant(np.float32(0.4))
    answer = graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [y, wide, zero]).output, wide, zero]).output
    graph.add_output(answer, "y", TensorType(DType.FLOAT, None))
    if float_reader:
        graph.add_output(graph.add("Abs", [y]).output, "z", TensorType(DType.FLOAT, None))
    return graph


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"kernel": 1}, 1),
        ({"float_reader": True, "kernel": 1}, 0),
        ({"bias_scale": 1.01, "kernel": 1}, 0),
        ({"channels": 256}, 0),
    ],
    ids=["fires", "answer read as float", "bias on another grid", "few words"],
)
def test_convolutions_become_their_integer_operator(settings: dict[str, int], count: int) -> None:
    graph = convolution(**settings)  # type: ignore[arg-type]
    before = Session(graph).run({"x": np.ones((1, 8, 16, 16), np.float32)})
    assert fuse_convolutions(graph) == count
    verify(graph)
    assert sum(node.op == "QLinearConv" for node in graph) == count
    after = Session(graph).run({"x": np.ones((1, 8, 16, 16), np.float32)})
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_scales_and_biases_are_packed_where_nothing_is_lost() -> None:
    graph = convolution(channels=256)
    before = Session(graph).run({"x": np.ones((1, 8, 16, 16), np.float32)})[0]
    whole = len(to_bytes(graph))
    LoadTime().run(graph, CTX)
    assert set(pack(graph)) == {"biases", "scales"}
    verify(graph)
    assert len(to_bytes(graph)) < whole - 256 * (4 + 2 + 2) + 500
    assert np.array_equal(Session(graph).run({"x": np.ones((1, 8, 16, 16), np.float32)})[0], before)
    assert not pack(graph)


def test_numbers_of_more_digits_stay() -> None:
    graph = convolution(channels=256)
    for node in graph:
        if node.op == "DequantizeLinear" and node.inputs[0].dtype is DType.INT32:  # type: ignore[union-attr]
            node.set_input(0, graph.constant(np.arange(1 << 20, (1 << 20) + 256, dtype=np.int32)))
            node.set_input(1, graph.constant(RANDOM.uniform(0.01, 0.02, 256).astype(np.float32)))
    graph.sweep()
    assert set(pack(graph)) == {"scales"}


def test_few_scales_are_left_where_they_are() -> None:
    assert not pack(convolution(channels=8))


def test_the_origin_that_a_name_does_not_tell_stays() -> None:
    graph = convolution()
    named = next(node for node in graph if node.op == "Conv")
    named.origin = Origin(("conv", "relu"), ("quant",))
    first, second = (node for node in graph if node.op == "QuantizeLinear")
    first.origin = Origin(("gone",), ("quant",))
    second.origin = Origin(("conv",), ("quant",))
    assert shorten(graph)
    assert (named.origin.nodes, first.origin.nodes, second.origin) == (("conv", "relu"), ("gone",), Origin())
    assert all(len(value.name) == 1 for value in graph.constants)


def test_scales_are_not_smaller_and_take_few_bytes() -> None:
    scale = RANDOM.uniform(1e-3, 0.5, 99)
    for length, step in ((9, 2 ** (1 / 16)), (999, 1 + 2**-10)):
        kept = storable(scale, length)
        assert (kept >= scale.astype(np.float32) * (1 - 1e-6)).all()
        assert (kept <= scale * step * (1 + 1e-5)).all()
        assert np.array_equal(storable(kept, length), kept)
    exponents = powers_of_base(storable(scale, 9))
    assert exponents is not None
    assert np.allclose(np.float64(SCALE_BASE) ** exponents, storable(scale, 9))
    assert powers_of_base(scale) is None
    assert storable(np.asarray([1e-7, 0.1]), 9)[0] == pytest.approx(1e-7, rel=1e-3), "out of the range of bytes"


def test_codes_of_few_digits() -> None:
    codes = RANDOM.integers(-(1 << 24), 1 << 24, 999)
    kept = shortened(codes)
    assert (np.abs(kept - codes) <= np.abs(codes) * 2.0**-11).all()
    assert np.array_equal(shortened(np.arange(-2048, 2049)), np.arange(-2048, 2049))
    ends = np.asarray([2**31 - 1, -(2**31) + 1])
    assert np.allclose(shortened(ends), ends, rtol=2.0**-11), "int32 holds what the ends are rounded to"


def test_names_of_a_model_whose_weights_are_stored_alone_are_short_too(tmp_path: Path) -> None:
    before = cleaned("digits_dscnn")
    for number, value in enumerate(value for node in before for value in node.outputs if not value.is_output):
        value.name = f"a/long/name/as/exporters/write/it/of/value_{number}"
    target = OnnxTarget()
    feeds = {k: v[:32] for k, v in zoo.samples("digits_dscnn", "calib").items()}
    sizes = {}
    for form in ("clean", "quant"):
        graph = before.clone()
        if form == "quant":
            quantized(graph, feeds, Quant(activations="none"))
        path = str(tmp_path / f"{form}.onnx")
        target.emit(graph, path)
        words = [name for node in load(path) for name in (value.name for value in node.outputs)]
        assert any(len(word) > 30 for word in words) == (form == "clean"), "what nobody made smaller keeps its names"
        sizes[form] = os.path.getsize(path)
        assert np.allclose(Session.open(path).run(feeds)[0], Session(graph).run(feeds)[0], atol=1e-5)
    assert sizes["quant"] < 0.5 * sizes["clean"]
