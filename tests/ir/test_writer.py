"""The bytes of a written model: weights streamed, nodes and functions as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from layered import FLOATS, X, layered, new, run
from onnx import numpy_helper

from optc.ir.attributes import Attribute, AttributeKind
from optc.ir.graph import Function, Graph
from optc.ir.onnx import wire
from optc.ir.onnx.graph_writer import GraphWriter
from optc.ir.onnx.reader import from_bytes, from_proto, load
from optc.ir.onnx.writer import LIMIT, save, size, to_bytes, to_proto
from optc.ir.origin import Origin
from optc.ir.tensor import ArrayTensor, FillTensor, SparseTensor
from optc.ir.text.dump import dump
from optc.ir.types import DType, TensorType


def test_all_ways_of_writing_give_the_same_bytes(tmp_path: Path) -> None:
    graph = layered()
    save(graph, tmp_path / "m.onnx")
    data = (tmp_path / "m.onnx").read_bytes()
    assert data == to_bytes(graph) == to_proto(graph).SerializeToString(deterministic=True)
    assert len(data) == size(graph)
    assert data == to_bytes(graph.clone()) == to_bytes(load(tmp_path / "m.onnx"))
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_weights_are_streamed_wherever_they_are(tmp_path: Path) -> None:
    def large(seed: int) -> ArrayTensor:
        return ArrayTensor(np.random.default_rng(seed).standard_normal((80, 80), np.float32))

    graph = new()
    x = graph.add_input("x", FLOATS)
    captured = graph.constant(large(1), "captured")
    body = Graph("body")
    body.add_output(body.add("Add", [captured, body.constant(large(2), "own")]).output, "r")
    node = graph.add("If", [graph.constant(np.array(True))], outputs=["y"])
    node.set_attribute("then_branch", body)
    node.set_attribute("else_branch", body.clone())
    graph.add("Constant", [], {"value": large(3)}, outputs=["dead"])
    indices = ArrayTensor(np.arange(6400, dtype=np.int64))
    graph.add(
        "Constant", [], {"sparse_value": SparseTensor(ArrayTensor(large(4).numpy().reshape(-1)), indices, [9999])}
    )
    graph.add("Own", [x], {"several": (large(5), large(6))}, domain="own")
    graph.opsets["own"] = 1
    function = new("F")
    function.add_output(function.constant(large(7), "inside"), "o")
    graph.functions["own", "F", ""] = Function("own", "F", "", function)
    graph.add_output(node.output, "y")
    writer = GraphWriter(large=1 << 14, limit=LIMIT)
    proto = writer.model(graph)
    assert len(writer.streamed) == 8  # the else branch has a copy of its own
    assert len(proto.SerializeToString()) < 10_000 + 2 * 6400  # indices of sparse data are packed in the message
    data = to_bytes(graph)
    assert data == to_proto(graph).SerializeToString(deterministic=True)
    assert dump(from_bytes(data), tensors="inline") == dump(from_proto(to_proto(graph)), tensors="inline")
    save(graph, tmp_path / "m.onnx", external=True)
    assert dump(load(tmp_path / "m.onnx"), tensors="inline") == dump(from_bytes(data), tensors="inline")


def test_data_that_looks_like_a_stand_in_is_data() -> None:
    graph = layered()
    trap = np.frombuffer(wire.stand_in(0), np.uint8)
    graph.constant(trap, "trap")
    data = to_bytes(graph)
    assert data == to_proto(graph).SerializeToString(deterministic=True)
    assert {v.name: v for v in from_bytes(data).constants}["trap"].numpy() is not None
    np.testing.assert_array_equal({v.name: v for v in from_bytes(data).constants}["trap"].numpy(), trap)


def test_absent_inputs_and_outputs_stay_absent() -> None:
    graph = new()
    x = graph.add_input("x", FLOATS)
    node = graph.add("Clip", [x, None, graph.constant(np.float32(2), "high")], outputs=["y"])
    graph.add_output(node.output, "y", FLOATS)
    assert list(to_proto(graph).graph.node[0].input) == ["x", "", "high"]
    np.testing.assert_array_equal(run(to_bytes(graph))[0], np.minimum(X, 2))


@pytest.mark.parametrize("ir_version", [9, 10])
def test_only_nodes_that_a_pass_touched_say_where_they_come_from(ir_version: int) -> None:
    graph = new(ir_version=ir_version)
    x = graph.add_input("x", FLOATS)
    value = graph.add("Neg", [x], origin=Origin.merge([Origin(("a", "b,c"))], by="clean"))
    kept = graph.add("Abs", [value.output], origin=Origin(("d",)))
    kept.metadata = {"key": "value"}
    graph.add_output(kept.output, "y", FLOATS)
    proto = to_proto(graph)
    stored = [{entry.key: entry.value for entry in node.metadata_props} for node in proto.graph.node]
    if ir_version < 10:
        assert stored[0] == {}
        return
    assert stored == [{"optc.origin": '["a", "b,c"]', "optc.passes": '["clean"]'}, {"key": "value"}]
    first, second = from_proto(proto)
    assert first.origin == value.origin
    assert first.metadata is None
    assert (second.origin.passes, second.metadata) == ((), {"key": "value"})


def test_constants_of_a_function_become_nodes() -> None:
    graph = new()
    x = graph.add_input("x", FLOATS)
    inside = Graph("F", opsets={"": 21})
    a = inside.add_input("a", None)
    scale = inside.constant(np.float32([2]), "scale")
    large = inside.constant(FillTensor(np.float32(1), (2, 3, 200)), "large")
    total = inside.add("ReduceSum", [large, inside.constant(np.int64([2]))], {"keepdims": 0}).output
    added = inside.add("Add", [inside.add("Mul", [a, scale]).output, total]).output
    inside.add_output(added, "b")
    inside.add_output(a, "same")
    graph.functions["own", "F", ""] = Function("own", "F", "", inside)
    graph.opsets["own"] = 1
    node = graph.add("F", [x], outputs=2, domain="own")
    graph.add_output(node.outputs[0], "y", FLOATS)
    graph.add_output(node.outputs[1], "z", FLOATS)
    data = to_bytes(graph)
    assert len(data) < 2000
    y, z = run(data)
    np.testing.assert_array_equal(y, X * 2 + 200)
    np.testing.assert_array_equal(z, X)


def test_indices_of_sparse_data_take_no_more_than_they_need() -> None:
    at = np.arange(0, 2000, 20)
    data = SparseTensor(ArrayTensor(np.ones(100, np.float32)), ArrayTensor(at), (2000,))
    graph = new()
    graph.add_output(graph.add("Add", [graph.add_input("x", FLOATS), graph.constant(data)]).output, "y", FLOATS)
    written = to_bytes(graph)
    assert len(written) < 100 * (4 + 2) + 150
    (again,) = from_bytes(written).constants
    np.testing.assert_array_equal(again.numpy(), data.numpy())
    (indices,) = (sparse.indices for sparse in onnx.load_from_string(written).graph.sparse_initializer)
    assert list(indices.int64_data) == at.tolist()


def test_a_reference_to_an_attribute_has_no_value() -> None:
    graph = Graph("F", opsets={"": 21})
    node = graph.add("LeakyRelu", [graph.add_input("a", None)])
    node.set_attribute("alpha", Attribute(AttributeKind.FLOAT, None, "slope"))
    graph.add_output(node.output, "b")
    outer = new()
    outer.opsets["own"] = 1
    outer.functions["own", "F", ""] = Function("own", "F", "", graph, ("slope",))
    called = outer.add("F", [outer.add_input("x", FLOATS)], {"slope": 0.5}, domain="own")
    outer.add_output(called.output, "y", FLOATS)
    np.testing.assert_array_equal(run(to_bytes(outer))[0], np.where(X < 0, X / 2, X))


def test_types_of_values_are_written_once() -> None:
    graph = layered((3, 4, 5))
    first, second = graph
    first.output.type = TensorType(DType.FLOAT, ("N", 4))
    second.output.type = TensorType(DType.FLOAT, ("N", 5))
    proto = to_proto(graph)
    assert [info.name for info in proto.graph.value_info] == ["h0"]
    assert [dim.dim_value for dim in proto.graph.output[0].type.tensor_type.shape.dim] == [2, 5]


def test_every_model_of_the_kit_is_written_as_it_was(kit: Path, tmp_path: Path) -> None:
    paths = sorted((kit / "models").glob("*.onnx"))
    assert paths
    for path in paths:
        save(load(path), tmp_path / "m.onnx")
        before, after = onnx.load(path), onnx.load(tmp_path / "m.onnx")
        for proto in (before, after):
            for tensor in proto.graph.initializer:
                array = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        assert onnx.printer.to_text(before) == onnx.printer.to_text(after)
        assert before.graph.initializer == after.graph.initializer
