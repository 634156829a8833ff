"""To onnx-graphsurgeon and back: nothing is lost, edits arrive, refusals are one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from corpus import cases

from optc.errors import ModelError
from optc.ir.graph import Graph
from optc.ir.onnx.reader import from_proto, load
from optc.ir.onnx.surgeon import from_surgeon, to_surgeon
from optc.ir.origin import Origin
from optc.ir.text.dump import dump
from optc.ir.types import DType, TensorType


def small() -> Graph:
    graph = Graph("small", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 2)))
    condition = graph.add_input("condition", TensorType(DType.BOOL, ()))
    scale = graph.constant(np.array([2, 3], np.float32), "scale")
    graph.constant(np.array([1], np.int64), "unused")
    a = graph.add("Mul", [x, scale], name="a", outputs=["a.out"], origin=Origin(("source",), ("clean",)))
    branches = []
    for op in ("Neg", "Abs"):
        body = Graph(op)
        body.add_output(body.add(op, [a.output], name=op, outputs=[f"{op}.out"]).output, f"{op}.result")
        branches.append(body)
    kind = TensorType(DType.FLOAT, ("N", 2))
    bodies = {"then_branch": branches[0], "else_branch": branches[1]}
    either = graph.add("If", [condition], bodies, name="either", outputs=["y"], types=[kind])
    graph.add_output(either.output, "y")
    graph.doc = "what it is"
    return graph


def lines(graph: Graph) -> list[str]:
    return dump(graph).splitlines()


def test_bodies_docs_and_origins_come_back() -> None:
    graph = small()
    graph.sweep()
    back = from_surgeon(to_surgeon(graph), graph)
    assert lines(back) == lines(graph)
    assert back.doc == "what it is"
    assert next(iter(back)).origin == Origin(("source",), ("clean",))


def test_edits_arrive_and_new_nodes_say_where_they_came_from() -> None:
    graph = small()
    surgeon = to_surgeon(graph)
    (first,) = [node for node in surgeon.nodes if node.name == "a"]
    first.inputs[1] = gs.Constant("scale2", np.array([5, 7], np.float32))
    added = gs.Variable("added", np.float32, ("N", 2))
    surgeon.nodes.append(gs.Node("Relu", "relu", inputs=list(first.outputs), outputs=[added]))
    surgeon.outputs.append(added)
    back = from_surgeon(surgeon.cleanup().toposort(), graph)
    nodes = {node.name: node for node in back}
    assert nodes["relu"].origin == Origin((), ("surgeon",))
    scale = nodes["a"].input(1)
    assert scale is not None
    np.testing.assert_array_equal(scale.numpy(), [5, 7])
    assert [o.name for o in back.outputs] == ["y", "added"]


@pytest.mark.parametrize("kind", ["light", "pytorch-operator"])
def test_corpus_models_come_back_as_they_were(kind: str) -> None:
    changed = []
    for case in cases(kind):
        graph = from_proto(case.model)
        graph.sweep()
        if lines(from_surgeon(to_surgeon(graph), graph)) != lines(graph):
            changed.append(case.name)
    assert changed == []


def test_kit_models_come_back_as_they_were(kit: Path) -> None:
    for path in sorted((kit / "models").glob("*.onnx")):
        graph = load(path)
        graph.sweep()
        assert lines(from_surgeon(to_surgeon(graph), graph)) == lines(graph), path.name


def test_what_cannot_be_exported_is_one_line() -> None:
    surgeon = to_surgeon(small())
    surgeon.nodes[0].attrs["odd"] = object()
    with pytest.raises(ModelError, match="onnx-graphsurgeon cannot export graph 'small'") as caught:
        from_surgeon(surgeon)
    assert "\n" not in str(caught.value)
