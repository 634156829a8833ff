"""Operators of `ai.onnx.ml` that arithmetic says as well are built, and answer as ONNX Runtime's."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import to_bytes
from optc.ir.verify.verify import verify
from optc.passes.base import Context
from optc.targets.tvm.host import HostTarget
from optc.targets.tvm.legal.primitive import Primitive

X = np.array([[1.0, -2.0, 0.25, 3.0], [0.0, 0.0, 0.0, 0.0], [np.nan, 1.0, -1.0, 0.25]], np.float32)
CASES: list[tuple[str, Any, dict[str, object]]] = [
    ("Scaler", X, {"offset": [0.5, 0.0, 0.0, 1.0], "scale": [2.0, 1.0, -1.0, 3.0]}),
    ("Scaler", X, {"offset": [0.5], "scale": [2.0]}),
    ("Scaler", np.arange(8, dtype=np.int64).reshape(2, 4), {"offset": [0.5], "scale": [2.0]}),
    ("Imputer", X, {"imputed_value_floats": [1.0, 2.0, 3.0, 4.0], "replaced_value_float": float("nan")}),
    ("Imputer", X, {"imputed_value_floats": [7.0], "replaced_value_float": 0.25}),
    ("Binarizer", X[:2], {"threshold": 0.25}),
    ("Normalizer", X[:2], {"norm": "L1"}),
    ("Normalizer", X[:2], {"norm": "L2"}),
    ("Normalizer", X[:2], {"norm": "MAX"}),
    ("LinearRegressor", X[:2], {"coefficients": [1.0, 2, 3, 4, 5, 6, 7, 8], "intercepts": [1.0, 2.0], "targets": 2}),
    ("LinearRegressor", X[:2], {"coefficients": [1.0, 2, 3, 4]}),
]


@pytest.mark.parametrize(("op", "x", "attributes"), CASES)
def test_arithmetic_answers_as_the_operator(op: str, x: Any, attributes: dict[str, object]) -> None:
    node = helper.make_node(op, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    compare([node], x)


def test_columns_are_picked() -> None:
    columns = helper.make_node("Constant", [], ["c"], value_ints=[2, 0])
    compare([columns, helper.make_node("ArrayFeatureExtractor", ["x", "c"], ["y"], domain="ai.onnx.ml")], X[:2])


def test_what_arithmetic_does_not_say_is_left() -> None:
    """A regressor whose answer is transformed, doubles, which the operator rounds, and words."""
    for op, dtype, attributes in (
        ("LinearRegressor", TensorProto.FLOAT, {"coefficients": [1.0] * 4, "post_transform": "LOGISTIC"}),
        ("Scaler", TensorProto.DOUBLE, {"offset": [0.5], "scale": [2.0]}),
        ("LabelEncoder", TensorProto.INT64, {"classes_strings": ["a", "b"]}),
    ):
        node = helper.make_node(op, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
        assert [kept.op for kept in lifted(model([node], dtype, (2, 4)))] == [op]


def compare(nodes: list[Any], x: Any) -> None:
    proto = model(nodes, helper.np_dtype_to_tensor_dtype(x.dtype), ("N", 4))
    graph = lifted(proto)
    assert all(node.domain == "" for node in graph)
    (want,), (got,) = (
        onnxruntime.InferenceSession(data).run(None, {"x": x}) for data in (proto.SerializeToString(), to_bytes(graph))
    )
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=1e-6)


def model(nodes: list[Any], dtype: int, shape: tuple[int | str, ...]) -> Any:
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    result.ClearField("type")
    inner = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", dtype, shape)], [result])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(inner, opset_imports=opsets, ir_version=8)


def lifted(proto: Any) -> Any:
    graph = from_proto(proto)
    Primitive().run(graph, Context(HostTarget().facts))
    verify(graph)
    return graph
