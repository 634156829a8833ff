"""Shapes and types of operators of `ai.onnx.ml`, as ONNX Runtime computes them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from optc.ir.onnx.reader import from_proto
from optc.ir.shapes.infer import analyse
from optc.ir.types import DType

COLUMNS = {"offset": [0.5, 0.0, 0.0, 1.0], "scale": [2.0, 1.0, 1.0, 3.0]}
CASES = [
    ("Scaler", 1, COLUMNS),
    ("Scaler", 7, COLUMNS),
    ("Imputer", 1, {"imputed_value_floats": [0.0], "replaced_value_float": 1.0}),
    ("Imputer", 7, {"imputed_value_int64s": [0], "replaced_value_int64": 1}),
    ("Normalizer", 1, {"norm": "L2"}),
    ("LinearRegressor", 1, {"coefficients": [1.0] * 8, "intercepts": [0.0] * 2, "targets": 2}),
    ("LinearRegressor", 1, {"coefficients": [1.0] * 4}),
    ("FeatureVectorizer", 1, {"inputdimensions": [3]}),
    ("LabelEncoder", 7, {"classes_strings": ["a", "b"]}),
    ("CategoryMapper", 7, {"cats_strings": ["a", "b"], "cats_int64s": [0, 1]}),
]


@pytest.mark.parametrize("shape", [(5, 4), (4,)])
@pytest.mark.parametrize(("op", "dtype", "attributes"), CASES)
def test_what_prepares_tables_has_a_shape(op: str, dtype: int, attributes: dict[str, object], shape: object) -> None:
    assert isinstance(shape, tuple)
    node = helper.make_node(op, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    x = helper.make_tensor_value_info("x", dtype, shape)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    result.ClearField("type")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(helper.make_graph([node], "g", [x], [result]), opset_imports=opsets, ir_version=8)
    graph = from_proto(model)
    fact = analyse(graph).facts[graph.outputs[0].value]
    feeds = {"x": np.ones(shape, helper.tensor_dtype_to_np_dtype(dtype))}
    (answer,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    assert fact.shape == answer.shape
    assert fact.dtype is (DType.STRING if answer.dtype == object else DType.of(answer.dtype))


def test_labels_of_words_are_numbers() -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 1]>
        g (string[N, 3] x) => (y) { y = ai.onnx.ml.LabelEncoder<classes_strings = ["a", "b"]>(x) }"""
    graph = from_proto(onnx.parser.parse_model(text))
    fact = analyse(graph).facts[graph.outputs[0].value]
    assert fact.dtype is DType.INT64
    assert [str(size) for size in fact.shape or ()] == ["N", "3"]
