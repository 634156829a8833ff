"""Inputs and outputs of element types that numpy lacks."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from real_models import Maker

from optc.compiler import compile
from optc.compiler.model import read
from optc.runtime.agreement import agreement
from optc.runtime.ort_values import from_value, is_foreign, to_value
from optc.runtime.session import Session
from optc.runtime.sources import load_samples

TYPES = {
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16, [1.5, -2.0, 3.0]),
    "float8_e4m3fn": (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn, [1.5, -2.0, 3.0]),
    "float8_e5m2": (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2, [1.5, -2.0, 3.0]),
    "int4": (TensorProto.INT4, ml_dtypes.int4, [1, -8, 7]),
    "uint4": (TensorProto.UINT4, ml_dtypes.uint4, [1, 0, 15]),
}


@pytest.mark.parametrize("name", TYPES)
def test_values_keep_their_bytes(name: str) -> None:
    _, dtype, numbers = TYPES[name]
    array = np.asarray(numbers, np.float32).astype(dtype)
    again = from_value(to_value(array))
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert again.tobytes() == array.tobytes()
    assert from_value(to_value(np.zeros((0, 3), dtype))).shape == (0, 3)


def test_types_of_numpy_are_its_own() -> None:
    assert not is_foreign("tensor(float)")
    assert not is_foreign("tensor(string)")
    assert not is_foreign("seq(tensor(bfloat16))")
    assert is_foreign("tensor(bfloat16)")


@pytest.mark.parametrize("name", TYPES)
def test_models_run_and_are_judged(name: str) -> None:
    """In of one type, out of another: a Cast to float and back around a layer."""
    kind, dtype, _ = TYPES[name]
    make = Maker(21)
    h = make.add("Cast", "x", to=TensorProto.FLOAT)
    h = make.add("Relu", make.add("Gemm", h, make.weight(32, 16), make.weight(32), transB=1))
    y = make.add("Cast", make.add("Gemm", h, make.weight(8, 32), make.weight(8), transB=1), to=kind)
    model = make.build({"x": ["N", 16]}, {"y": y}, {"x": kind, "y": kind})
    model.ir_version = 10
    drawn = np.random.default_rng(0).standard_normal((48, 16)).clip(0 if name == "uint4" else -3, 3)
    for passes in ("clean", "prune,svd,quant"):
        build = compile(model, passes, data={"x": drawn.astype(np.float32).astype(dtype)}, guard=False)
        (out,) = Session(build.graph).run({"x": drawn[:4].astype(np.float32).astype(dtype)})
        assert out.dtype == np.dtype(dtype)
        assert out.shape == (4, 8)


def test_integers_below_a_byte_are_compared_one_by_one() -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT4)]
    io = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])]
    out = [helper.make_tensor_value_info("y", TensorProto.INT4, ["N", 4])]
    opset = [helper.make_opsetid("", 21)]
    plain = helper.make_model(helper.make_graph(nodes, "g", io, out), opset_imports=opset, ir_version=10)
    nodes.insert(0, helper.make_node("Neg", ["x"], ["z"]))
    nodes[1].input[0] = "z"
    turned = helper.make_model(helper.make_graph(nodes, "g", io, out), opset_imports=opset, ir_version=10)
    graphs = [read(onnx.load_from_string(m.SerializeToString())) for m in (plain, turned)]
    samples = load_samples({"x": np.full((3, 4), 3.0, np.float32)}, graphs[0])
    assert agreement(graphs[0], graphs[0], samples).share == 1.0
    assert agreement(graphs[0], graphs[1], samples).share == 0.0
