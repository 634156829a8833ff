"""Inputs and outputs keep their names, whatever they return."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from layered import FLOATS, X, layered, new, run

from optc.errors import ModelError
from optc.ir.graph import Graph, Header
from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import to_proto
from optc.ir.tensor import FillTensor
from optc.ir.types import DType, TensorType


def _input_returned(graph: Graph) -> list[npt.NDArray[np.generic]]:
    graph.add_output(graph.inputs[0], "y")
    return [X]


def _input_returned_under_its_name(graph: Graph) -> list[npt.NDArray[np.generic]]:
    graph.add_output(graph.inputs[0], "x")
    return [X]


def _value_returned_twice(graph: Graph) -> list[npt.NDArray[np.generic]]:
    value = graph.add("Neg", [graph.inputs[0]], outputs=["hint"]).output
    graph.add_output(value, "first", FLOATS)
    graph.add_output(value, "second", FLOATS)
    return [-X, -X]


def _constant_returned(graph: Graph) -> list[npt.NDArray[np.generic]]:
    value = graph.constant(X * 3, "hint")
    graph.add_output(value, "first")
    graph.add_output(value, "second")
    return [X * 3, X * 3]


def _names_that_clash(graph: Graph) -> list[npt.NDArray[np.generic]]:
    first = graph.add("Neg", [graph.inputs[0]], outputs=["y"]).output
    second = graph.add("Abs", [first], outputs=["y"]).output
    third = graph.add("Add", [first, second], outputs=["x"]).output
    graph.add_output(third, "y", FLOATS)
    return [np.abs(X) - X]


def _body_returns_what_it_captures(graph: Graph) -> list[npt.NDArray[np.generic]]:
    value = graph.add("Neg", [graph.inputs[0]], outputs=["r"]).output
    node = graph.add("If", [graph.constant(np.array(False))])
    for name, returned in (("then_branch", graph.inputs[0]), ("else_branch", value)):
        body = Graph(name)
        body.add_output(returned, "r")
        node.set_attribute(name, body)
    graph.add_output(node.output, "y", FLOATS)
    return [-X]


def _generated_constant(graph: Graph) -> list[npt.NDArray[np.generic]]:
    large = graph.constant(FillTensor(np.float32(0.5), (3, 50_000)), "large")
    graph.add_output(graph.add("MatMul", [graph.inputs[0], large]).output, "y", TensorType(DType.FLOAT, (2, 50_000)))
    return [X @ np.full((3, 50_000), np.float32(0.5))]


INTERFACES: list[Callable[[Graph], list[npt.NDArray[np.generic]]]] = [
    _input_returned,
    _input_returned_under_its_name,
    _value_returned_twice,
    _constant_returned,
    _names_that_clash,
    _body_returns_what_it_captures,
    _generated_constant,
]


@pytest.mark.parametrize("build", INTERFACES, ids=lambda build: build.__name__.strip("_"))
def test_outputs_have_their_names_whatever_they_return(build: Callable[[Graph], list[npt.NDArray[np.generic]]]) -> None:
    graph = new()
    graph.add_input("x", FLOATS)
    expected = build(graph)
    names = [output.name for output in graph.outputs]
    proto = to_proto(graph)
    assert [info.name for info in proto.graph.output] == names
    assert [info.name for info in proto.graph.input] == ["x"]
    assert len(proto.SerializeToString()) < 1000
    for before, after in zip(expected, run(proto.SerializeToString()), strict=True):
        np.testing.assert_array_equal(before, after)
    again = from_proto(proto)
    assert [output.name for output in again.outputs] == names


def test_an_identity_needs_the_default_opset() -> None:
    graph = Graph("g", opsets={"own": 1})
    graph.add_output(graph.add_input("x", FLOATS), "y")
    with pytest.raises(ModelError, match=r"'y'.*Identity.*opset"):
        to_proto(graph)


def test_initializers_of_old_models_are_inputs_as_well() -> None:
    graph = layered((3, 4, 5))
    graph.opsets[""] = 8
    graph.header = Header(ir_version=3)
    proto = to_proto(graph)
    onnx.checker.check_model(proto)
    assert [info.name for info in proto.graph.input] == ["x", "w0", "w1"]
    assert [value.name for value in from_proto(proto).inputs] == ["x"]
    assert [info.name for info in to_proto(layered((3, 4, 5))).graph.input] == ["x"]
