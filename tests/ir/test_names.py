from __future__ import annotations

import numpy as np
import onnx

from optc.ir.graph import Graph
from optc.ir.names import WHOLE, second_names, unique_names
from optc.ir.onnx.writer import to_proto
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, TargetFacts
from optc.passes.clean.clean import Clean
from optc.runtime.session import Session

FLOAT = TensorType(DType.FLOAT, (2,))
BOOL = TensorType(DType.BOOL, ())


def names_after_export(graph: Graph) -> list[str]:
    """The names of what the nodes of `graph` make, in order."""
    names = unique_names(graph)
    return [names[value] for node in graph for value in node.outputs]


def test_the_interface_keeps_its_names_and_a_returned_value_takes_the_outputs() -> None:
    graph = Graph("g")
    x = graph.add_input("x", FLOAT)
    hidden = graph.add("Relu", [x], outputs=["y"]).output
    result = graph.add("Relu", [hidden], outputs=["hint"]).output
    graph.add_output(result, "y")
    names = unique_names(graph)
    assert (names[x], names[hidden], names[result], names[graph.outputs[0]]) == ("x", "y_1", "y", "y")


def test_a_taken_hint_gets_a_suffix_and_displaces_no_other_hint() -> None:
    graph = Graph("g")
    x = graph.add_input("x", FLOAT)
    for hint in ("a", "a", "a_1", "a"):
        graph.add("Relu", [x], outputs=[hint])
    assert names_after_export(graph) == ["a", "a_2", "a_1", "a_3"]


def test_an_unnamed_value_is_named_after_its_operator() -> None:
    graph = Graph("g")
    first = graph.add("MatMul", [graph.constant([1.0]), graph.constant([2.0])]).output
    graph.add("MatMul", [first, first])
    names = unique_names(graph)
    assert [names[value] for value in graph.constants] == ["constant", "constant_1"]
    assert names_after_export(graph) == ["matmul", "matmul_1"]


def test_an_optional_output_that_nobody_named_or_reads_stays_out() -> None:
    graph = Graph("g")
    x = graph.add_input("x", FLOAT)
    graph.add("LSTM", [x], outputs=["", "last", ""])
    graph.add("MaxPool", [x], outputs=2)
    assert names_after_export(graph) == ["", "last", "", "maxpool", "maxpool_1"]


def test_operators_that_lack_no_output_are_those_of_the_schemas() -> None:
    option = onnx.defs.OpSchema.FormalParameterOption
    whole = set()
    for schema in onnx.defs.get_all_schemas():
        options = [one.option for one in schema.outputs]
        if not schema.domain and (len(options) > 1 or option.Variadic in options) and option.Optional not in options:
            whole.add(schema.name)
    assert whole <= WHOLE


def test_an_output_that_its_operator_cannot_lack_has_a_name() -> None:
    """A Split without one of its parts ends ONNX Runtime's process."""
    graph = Graph("g", opsets={"": 18})
    x = graph.add_input("x", FLOAT)
    graph.add_output(graph.add("Split", [x], {"num_outputs": 3}, outputs=3).outputs[1], "y")
    graph.add("LSTM", [x], outputs=["", "last", ""])
    assert names_after_export(graph) == ["split", "y", "split_1", "", "last", ""]


def test_returning_twice_or_returning_an_input_needs_a_name_of_its_own() -> None:
    graph = Graph("g")
    x = graph.add_input("x", FLOAT)
    y = graph.add("Relu", [x], outputs=["y"]).output
    for value, name in ((y, "y"), (y, "again"), (x, "copy"), (x, "x")):
        graph.add_output(value, name)
    names = unique_names(graph)
    assert [names[output] for output in graph.outputs] == ["y", "again", "copy", "x"]
    assert [names[output] == names[output.value] for output in graph.outputs] == [True, False, False, True]


def test_branches_may_share_names_but_not_with_the_graph_around() -> None:
    graph = Graph("g")
    condition, x = graph.add_input("c", BOOL), graph.add_input("x", FLOAT)
    branches = []
    for _ in range(2):
        body = Graph("branch")
        inner = body.add("Relu", [x], outputs=["inner"]).output
        body.add_output(body.add("Neg", [inner], outputs=["x"]).output, "y")
        branches.append(body)
    node = graph.add("If", [condition], {"then_branch": branches[0], "else_branch": branches[1]}, outputs=["y"])
    graph.add_output(node.output, "y")
    names = unique_names(graph)
    for body, returned in zip(branches, ("y_1", "y_2"), strict=True):
        first, second = body
        assert names[first.output] == "inner"
        assert names[second.output] == names[body.outputs[0]] == returned


def test_a_body_that_returns_a_captured_value_names_its_output_apart() -> None:
    graph = Graph("g")
    condition, x = graph.add_input("c", BOOL), graph.add_input("x", FLOAT)
    body = Graph("branch")
    output = body.add_output(x, "x")
    graph.add("If", [condition], {"then_branch": body}, outputs=["y"])
    names = unique_names(graph)
    assert names[x] == "x"
    assert names[output] == "x_1"


def test_names_are_the_same_on_every_call_and_all_different() -> None:
    graph = Graph("g")
    value = graph.add_input("x", FLOAT)
    for index in range(3000):
        value = graph.add("Relu", [value], outputs=[("", "a", f"a_{index}")[index % 3]]).output
    assert unique_names(graph) == unique_names(graph)
    assert len(set(names_after_export(graph))) == 3000


def test_a_node_whose_name_another_has_gets_a_new_one() -> None:
    graph = Graph("g")
    x = graph.add_input("x", FLOAT)
    nodes = [graph.add("Relu", [x], name=name) for name in ("a", "a", "", "a_1", "", "a")]
    assert second_names(graph) == {nodes[1]: "a_2", nodes[5]: "a_3"}


def test_a_model_with_two_nodes_of_one_name_runs_and_comes_out_with_two_names() -> None:
    """Runtimes refuse it as it is."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", FLOAT)
    y = graph.add("Neg", [graph.add("Sqrt", [x], name="same").output], name="same").output
    graph.add_output(y, "y", FLOAT)
    assert [node.name for node in to_proto(graph).graph.node] == ["same", "same_1"]
    assert Session(graph).run({"x": np.asarray([4, 9], np.float32)})[0].tolist() == [-2, -3]
    report = Clean().run(graph, Context(TargetFacts("onnx")))
    assert report.rewrites == {"node-name": 1}
    assert [node.name for node in graph] == ["same", "same_1"]
