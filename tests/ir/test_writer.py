from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from optc.errors import ModelError, OutputError
from optc.ir import wire, writer
from optc.ir.attributes import Attribute, AttributeKind
from optc.ir.graph import Function, Graph, Header
from optc.ir.graph_writer import GraphWriter
from optc.ir.origin import Origin
from optc.ir.reader import from_bytes, from_proto, load
from optc.ir.tensor import ArrayTensor, FileTensor, FillTensor, LazyTensor, SparseTensor, Tensor
from optc.ir.text import dump
from optc.ir.types import DType, TensorType
from optc.ir.writer import LIMIT, save, size, to_bytes, to_proto

FLOATS = TensorType(DType.FLOAT, (2, 3))
X = np.float32([[1, -2, 3], [-4, 5, -6]])


def new(name: str = "g", ir_version: int = 10) -> Graph:
    graph = Graph(name, opsets={"": 21})
    graph.header = Header(ir_version=ir_version)
    return graph


def layered(sizes: tuple[int, ...] = (3, 300, 301), seed: int = 0) -> Graph:
    """Dense layers; the default has two weights, the second of them streamed."""
    graph = new()
    value = graph.add_input("x", FLOATS)
    random = np.random.default_rng(seed)
    for index, (rows, columns) in enumerate(pairwise(sizes)):
        weight = graph.constant(random.standard_normal((rows, columns), np.float32), f"w{index}")
        value = graph.add("MatMul", [value, weight], outputs=[f"h{index}"], name=f"layer{index}").output
    graph.add_output(value, "y", TensorType(DType.FLOAT, (2, sizes[-1])))
    return graph


def run(model: Path | bytes, **feeds: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds or {"x": X}))


# -- bytes


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
    held = GraphWriter(large=1 << 14, limit=LIMIT)
    proto = held.model(graph)
    assert len(held.held) == 9  # the else branch has a copy of its own; sparse data is two tensors
    assert len(proto.SerializeToString()) < 10_000
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


# -- external data


def test_external_data_is_aligned_and_read_by_others(tmp_path: Path) -> None:
    graph = layered((3, 2000, 301, 100))
    path = tmp_path / "m.onnx"
    save(graph, path, external=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    proto = onnx.load(path, load_external_data=False)
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in proto.graph.initializer]
    assert [place["location"] for place in places] == ["m.onnx.data"] * 3
    assert all(int(place["offset"]) % 4096 == 0 for place in places)
    assert path.stat().st_size < 1000
    np.testing.assert_array_equal(run(path)[0], run(to_bytes(graph))[0])
    assert to_bytes(from_proto(onnx.load(path))) == to_bytes(graph)
    onnx.checker.check_model(str(path))
    again = load(path)
    assert all(isinstance(value.constant, FileTensor) for value in again.constants)
    assert to_bytes(again) == to_bytes(graph)


def test_small_data_stays_in_the_model(tmp_path: Path) -> None:
    graph = layered((3, 4, 5))
    save(graph, tmp_path / "m.onnx", external=True)
    assert (tmp_path / "m.onnx").read_bytes() == to_bytes(graph)


def test_external_constants_in_nodes_and_bodies_run(tmp_path: Path) -> None:
    graph = new()
    x = graph.add_input("x", FLOATS)
    kernel = np.random.default_rng(0).standard_normal((3, 3000), np.float32)
    weight = graph.add("Constant", [], {"value": ArrayTensor(kernel)}).output
    body = Graph("body")
    inner = body.add("MatMul", [x, body.constant(kernel * 2, "inner")]).output
    body.add_output(body.add("Add", [inner, body.add("MatMul", [x, weight]).output]).output, "r", None)
    node = graph.add("If", [graph.constant(np.array(True))])
    node.set_attribute("then_branch", body)
    node.set_attribute("else_branch", body.clone())
    graph.add_output(node.output, "y", TensorType(DType.FLOAT, (2, 3000)))
    save(graph, tmp_path / "m.onnx", external=True)
    assert (tmp_path / "m.onnx").stat().st_size < 2000
    np.testing.assert_array_equal(run(tmp_path / "m.onnx")[0], run(to_bytes(graph))[0])


def test_above_the_limit_there_is_a_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = layered()
    monkeypatch.setattr(writer, "LIMIT", 300_000)
    save(graph, tmp_path / "m.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    with pytest.raises(ModelError, match="external data"):
        save(graph, tmp_path / "one.onnx", external=False)
    assert not (tmp_path / "one.onnx").exists()


def test_what_cannot_fit_is_refused_before_it_is_computed(tmp_path: Path) -> None:
    def never() -> npt.NDArray[np.generic]:
        raise AssertionError("computed")

    graph = new()
    x = graph.add_input("x", FLOATS)
    weight = graph.constant(LazyTensor(DType.FLOAT, (3, 1 << 28), never), "w")
    graph.add_output(graph.add("MatMul", [x, weight]).output, "y")
    assert size(graph) > LIMIT
    for write in (to_bytes, to_proto, lambda g: save(g, tmp_path / "m.onnx", external=False)):
        with pytest.raises(ModelError, match="external data"):
            write(graph)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("external", [False, True])
def test_saving_over_the_file_it_came_from(tmp_path: Path, external: bool) -> None:
    path = tmp_path / "m.onnx"
    save(layered((3, 500, 600)), path, external=external)
    for other in (external, not external, external):
        graph = load(path)
        before = to_bytes(graph)
        save(graph, path, external=other)
        assert to_bytes(graph) == before  # the graph still reads what it was loaded from
        assert to_bytes(load(path)) == before


# -- nothing by halves


class Failing(Tensor):
    """A weight whose writing fails after a while."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        super().__init__(DType.FLOAT, (1 << 20,))
        self.error = error

    def numpy(self) -> npt.NDArray[np.generic]:
        raise self.error

    def write(self, file: BinaryIO) -> None:
        file.write(bytes(1 << 19))
        raise self.error


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OutputError, "No space left"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (ModelError("the source changed"), ModelError, "the source changed"),
        (MemoryError(), MemoryError, ""),
    ],
    ids=["full", "interrupt", "source", "memory"],
)
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, external: bool, error: BaseException, raised: type[BaseException], words: str
) -> None:
    path = tmp_path / "m.onnx"
    graph = layered()
    save(graph, path, external=external)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    graph.constant(Failing(error), "failing")
    with pytest.raises(raised, match=words or None):
        save(graph, path, external=external)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_tensor_that_writes_too_little_is_found_out(tmp_path: Path) -> None:
    class Short(Failing):
        __slots__ = ()

        def write(self, file: BinaryIO) -> None:
            file.write(b"1234")

    graph = layered()
    graph.constant(Short(ValueError()), "short")
    with pytest.raises(ValueError, match="wrote 4 bytes and had announced 4194304"):
        save(graph, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    graph = layered()
    for place, words in {
        tmp_path / "folder": "is a folder",
        tmp_path / "none" / "m.onnx": "no folder",
        Path("/dev/null"): "not a plain file",
    }.items():
        with pytest.raises(OutputError, match=words) as error:
            save(graph, place)
        assert str(place) in str(error.value)
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(OutputError, match="cannot be written"):
        save(layered(), tmp_path / "m.onnx")


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "input.onnx").write_bytes(b"input")
    (tmp_path / "m.onnx").symlink_to("input.onnx")
    save(layered(), tmp_path / "m.onnx")
    assert (tmp_path / "input.onnx").read_bytes() == b"input"
    assert not (tmp_path / "m.onnx").is_symlink()


# -- the interface


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


# -- nodes and functions


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
    made = graph.add("Neg", [x], origin=Origin.merge([Origin(("a", "b,c"))], by="clean"))
    kept = graph.add("Abs", [made.output], origin=Origin(("d",)))
    kept.metadata = {"key": "value"}
    graph.add_output(kept.output, "y", FLOATS)
    proto = to_proto(graph)
    stored = [{entry.key: entry.value for entry in node.metadata_props} for node in proto.graph.node]
    if ir_version < 10:
        assert stored[0] == {}
        return
    assert stored == [{"optc.origin": '["a", "b,c"]', "optc.passes": '["clean"]'}, {"key": "value"}]
    first, second = from_proto(proto)
    assert first.origin == made.origin
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
