"""A copy is the same, and after any edit it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from everything import everything

from optc.ir.attributes import Attribute
from optc.ir.graph import Graph
from optc.ir.onnx.reader import from_proto
from optc.ir.same import same
from optc.ir.tensor import ArrayTensor
from optc.ir.types import DType, TensorType
from optc.models import zoo


@pytest.mark.parametrize("graph", [from_proto(everything()), *map(zoo.load, ("digits_resnet", "digits_transformer"))])
def test_a_copy_is_the_same(graph: Graph) -> None:
    assert same(graph, graph)
    assert same(graph.clone(), graph)


def _replace_constant(graph: Graph) -> None:
    value = next(iter(graph.constants))
    assert value.constant is not None
    value.replace_uses(graph.constant(ArrayTensor(value.constant.numpy()), value.name))
    graph.remove(value)


def _rename_in_a_body(graph: Graph) -> None:
    next(node for node in graph if node.bodies).bodies[0].name += "x"


EDITS: dict[str, Callable[[Graph], object]] = {
    "a node less": lambda graph: graph.remove_output(0) or graph.sweep(),
    "a node more": lambda graph: graph.add("Relu", [graph.inputs[0]]),
    "operator": lambda graph: setattr(next(iter(graph)), "op", "Other"),
    "name": lambda graph: setattr(next(iter(graph)), "name", "other"),
    "name of a value": lambda graph: setattr(next(iter(graph)).output, "name", "other"),
    "type of a value": lambda graph: setattr(next(iter(graph)).output, "type", TensorType(DType.INT4, (7,))),
    "input": lambda graph: next(iter(graph)).set_input(0, None),
    "attribute": lambda graph: next(iter(graph)).set_attribute("axis", Attribute.of(np.zeros(1))),
    "constant": _replace_constant,
    "document": lambda graph: setattr(graph, "doc", "other"),
    "extra": lambda graph: setattr(graph, "extra", b"other"),
    "opset": lambda graph: graph.opsets.update({"": 3}),
    "header": lambda graph: setattr(graph, "header", replace(graph.header, producer_name="other")),
    "output": lambda graph: setattr(graph.outputs[0], "name", "other"),
    "order of outputs": lambda graph: graph.outputs[0].value.replace_uses(graph.inputs[0]),
    "function": lambda graph: next(iter(graph.functions.values())).graph.add("Relu", []),
    "body": _rename_in_a_body,
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_was_edited_is_not(edit: str) -> None:
    graph = from_proto(everything())
    copy = graph.clone()
    EDITS[edit](copy)
    assert not same(copy, graph)
    assert not same(graph, copy)
