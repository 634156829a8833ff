"""Constants that repeat elements are held once, and written as what makes them."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from optc.ir.graph import Graph
from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import to_proto
from optc.ir.tensor import BroadcastTensor, FillTensor, Tensor
from optc.ir.types import DType, TensorType

VECTOR = BroadcastTensor(np.arange(8, dtype=np.float32).reshape(8, 1), (8, 100))
FILL = FillTensor(np.float32(0.5), (8, 100))


def adding(tensor: Tensor) -> Graph:
    graph = Graph("add", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (8, 100)))
    for name in ("y", "z"):
        value = graph.add("Add", [x, graph.constant(tensor, f"c{name}")])
        graph.add_output(value.output, name, TensorType(DType.FLOAT, (8, 100)))
    return graph


def test_a_broadcast_tensor_is_a_view_of_its_core() -> None:
    assert VECTOR.numpy().strides == (4, 0)
    assert VECTOR.nbytes == 3200
    assert VECTOR.dtype is DType.FLOAT
    with pytest.raises(ValueError):
        BroadcastTensor(np.zeros((3, 1), np.float32), (8, 100))


@pytest.mark.parametrize(("tensor", "op"), [(VECTOR, "Expand"), (FILL, "ConstantOfShape")])
def test_a_large_one_is_written_as_a_node_that_shares_its_shape(tensor: Tensor, op: str) -> None:
    model = to_proto(adding(tensor))
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == [op, op, "Add", "Add"]
    assert sum(list(numpy_helper.to_array(t).shape) == [2] for t in model.graph.initializer) == 1
    x = np.zeros((8, 100), np.float32)
    for result in ReferenceEvaluator(model).run(None, {"x": x}):
        np.testing.assert_array_equal(result, tensor.numpy())
    assert len(from_proto(model)) == 4


@pytest.mark.parametrize("tensor", [VECTOR, FILL])
def test_written_out_it_is_the_whole_array(tensor: Tensor) -> None:
    file = io.BytesIO()
    tensor.write(file)
    assert file.getvalue() == tensor.numpy().tobytes()


def test_a_small_one_is_written_as_its_elements() -> None:
    model = to_proto(adding(FillTensor(np.float32(0.5), (1, 10))))
    assert [node.op_type for node in model.graph.node] == ["Add", "Add"]


def test_a_value_returned_under_another_name_than_its_hint_is_not_returned_twice_under_one_name() -> None:
    graph = Graph("twice", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (2,)))
    y = graph.add("Relu", [x], outputs=["second"]).output
    for name in ("first", "second"):
        graph.add_output(y, name, TensorType(DType.FLOAT, (2,)))
    model = to_proto(graph)
    onnx.checker.check_model(model)
    assert [output.name for output in model.graph.output] == ["first", "second"]
    assert [node.op_type for node in model.graph.node] == ["Relu", "Identity"]
