"""Weights that stand where no integer kernel reads them: stored in int8, right answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from real_models import Maker, samples, with_body

from optc.compiler import compile
from optc.ir.onnx.writer import to_bytes

FORMS = ("quant", "quant:activations=none", "quant:activations=dynamic", "quant:weights=int4")


def run(model: onnx.ModelProto, passes: str, **shapes: tuple[int, ...]) -> tuple[float, float]:
    """The share of the bytes that is left, and the relative squared error of the worst output."""
    build = compile(model, passes, data=samples(48, **shapes), guard=False, check=False)
    feeds = samples(8, 2, **shapes)
    data = to_bytes(build.graph)
    pairs = zip(
        *(onnxruntime.InferenceSession(m).run(None, feeds) for m in (data, model.SerializeToString())), strict=True
    )
    return len(data) / len(model.SerializeToString()), max(float(np.sum((y - t) ** 2) / np.sum(t**2)) for y, t in pairs)


@pytest.mark.parametrize("passes", FORMS)
@pytest.mark.parametrize("op", ["Loop", "If", "Scan"])
def test_bodies(op: str, passes: str) -> None:
    left, error = run(with_body(op), passes, x=(16,))
    assert left < 0.5
    assert error < 0.02


def stacked() -> onnx.ModelProto:
    make = Maker()
    h = make.add("Reshape", "x", make.constant([-1, 1, 4, 32], np.int64))
    h = make.add("MatMul", h, make.weight(4, 32, 48, scale=0.2))
    return make.build({"x": ["N", 128]}, {"y": make.add("Relu", h)})


def on_the_left() -> onnx.ModelProto:
    make = Maker()
    h = make.add("Reshape", "x", make.constant([-1, 32, 4], np.int64))
    return make.build({"x": ["N", 128]}, {"y": make.add("MatMul", make.weight(64, 32), h)})


def einsum() -> onnx.ModelProto:
    make = Maker()
    h = make.add("Reshape", "x", make.constant([-1, 4, 32], np.int64))
    return make.build({"x": ["N", 128]}, {"y": make.add("Einsum", h, make.weight(4, 32, 16), equation="bhd,hde->bhe")})


def einsum_of_three() -> onnx.ModelProto:
    make = Maker()
    y = make.add("Einsum", "x", make.weight(128, 40), make.weight(40, 64), equation="bi,ij,jk->bk")
    return make.build({"x": ["N", 128]}, {"y": y})


def scaled() -> onnx.ModelProto:
    make = Maker()
    return make.build({"x": ["N", 128]}, {"y": make.add("Gemm", "x", make.weight(64, 128), transB=1, alpha=0.5)})


def attention() -> onnx.ModelProto:
    make = Maker(com_microsoft=1)
    h = make.add("Reshape", "x", make.constant([-1, 4, 32], np.int64))
    h = make.add("Attention", h, make.weight(32, 96), make.weight(96), domain="com.microsoft", num_heads=4)
    return make.build({"x": ["N", 128]}, {"y": h})


def fused() -> onnx.ModelProto:
    make = Maker(com_microsoft=1)
    y = make.add("FusedMatMul", "x", make.weight(64, 128), domain="com.microsoft", transB=1, alpha=0.5)
    return make.build({"x": ["N", 128]}, {"y": y})


def modulated() -> onnx.ModelProto:
    make = Maker()
    style = make.add("Reshape", make.add("Slice", "x", *(make.constant([k], np.int64) for k in (0, 16, 1))),
                     make.constant([1, 16, 1, 1], np.int64))  # fmt: skip
    weight = make.add("Mul", make.weight(16, 16, 3, 3), style)
    picture = make.add("Reshape", "x", make.constant([1, 16, 4, 2], np.int64))
    return make.build({"x": [1, 128]}, {"y": make.add("Conv", picture, weight, pads=[1] * 4)})


@pytest.mark.parametrize("passes", FORMS)
@pytest.mark.parametrize("build", [stacked, on_the_left, einsum, einsum_of_three, scaled, attention, fused, modulated])
def test_places(build: Callable[[], onnx.ModelProto], passes: str) -> None:
    model = build()
    if build is modulated:
        compiled = compile(model, passes, data=samples(24, x=(128,)), guard=False, check=False)
        feeds = samples(1, 2, x=(128,))
        data = to_bytes(compiled.graph)
        (y,), (t,) = (onnxruntime.InferenceSession(m).run(None, feeds) for m in (data, model.SerializeToString()))
        left, error = len(data) / len(model.SerializeToString()), float(np.sum((y - t) ** 2) / np.sum(t**2))
    else:
        left, error = run(model, passes, x=(128,))
    assert left < 0.45
    assert error < (0.03 if passes.endswith("int4") else 5e-3)


@pytest.mark.parametrize("passes", ["quant", "quant:activations=none", "quant:activations=dynamic"])
def test_weights_in_double_precision(passes: str) -> None:
    make = Maker()
    h = make.add(
        "Relu", make.add("Gemm", "x", make.weight(64, 96, dtype=np.float64), make.weight(96, dtype=np.float64))
    )
    y = make.add("MatMul", h, make.weight(96, 16, dtype=np.float64))
    model = make.build({"x": ["N", 64]}, {"y": y}, dict.fromkeys("xy", onnx.TensorProto.DOUBLE))
    rows = np.random.default_rng(1).standard_normal((64, 64))
    build = compile(model, passes, data={"x": rows}, guard=False, check=False)
    data = to_bytes(build.graph)
    assert len(data) < 0.2 * len(model.SerializeToString())
    (answer,), (t,) = (
        onnxruntime.InferenceSession(m).run(None, {"x": rows}) for m in (data, model.SerializeToString())
    )
    assert answer.dtype == np.float64
    assert np.sum((answer - t) ** 2) < 1e-3 * np.sum(t**2)


@pytest.mark.parametrize("passes", ["quant", "quant:activations=none"])
def test_convolutions_in_a_body_are_stored_where_they_stand(passes: str) -> None:
    """The runtime lays out weights of convolutions that are constants of their own graph; from outside it does not."""
    make = Maker()
    weight = (make.rng.standard_normal((16, 16, 3, 3)) / 12).astype(np.float32)
    inner = onnx.numpy_helper.from_array(weight, "inner")
    value, boolean = (
        [onnx.helper.make_tensor_value_info(name, kind, shape) for name in names]
        for kind, shape, names in (
            (onnx.TensorProto.FLOAT, ["N", 16, 8, 8], ("state", "next")), (onnx.TensorProto.BOOL, [], ("go", "on")),
        )
    )  # fmt: skip
    counter = onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [])
    nodes = [
        onnx.helper.make_node("Identity", ["go"], ["on"]),
        onnx.helper.make_node("Conv", ["state", "inner"], ["c"], pads=[1] * 4),
        onnx.helper.make_node("Tanh", ["c"], ["next"]),
    ]
    body = onnx.helper.make_graph(nodes, "body", [counter, boolean[0], value[0]], [boolean[1], value[1]], [inner])
    y = make.add("Loop", make.constant(3, np.int64), make.constant(True), "x", body=body)
    model = make.build({"x": ["N", 16, 8, 8]}, {"y": y})
    left, error = run(model, passes, x=(16, 8, 8))
    assert left < 0.5
    assert error < 1e-3
    written = compile(model, passes, data=samples(48, x=(16, 8, 8)), guard=False, check=False).graph
    conv = next(node for node in written.walk() if node.op == "Conv")
    assert conv.inputs[1].producer is not None  # type: ignore[union-attr]
    assert conv.inputs[1].producer.graph is conv.graph  # type: ignore[union-attr]
    assert conv.graph is not written
