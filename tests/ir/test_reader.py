from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from everything import everything
from onnx import TensorProto, helper, numpy_helper

from optc.errors import ModelError
from optc.ir.attributes import AttributeKind
from optc.ir.graph import Graph
from optc.ir.onnx.reader import from_bytes, from_proto, load
from optc.ir.onnx.writer import to_proto
from optc.ir.tensor import ArrayTensor, FileTensor, SparseTensor
from optc.ir.text.dump import dump
from optc.ir.types import DType, MapType, OpaqueType, OptionalType, SequenceType, TensorType

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)


def model(
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto] | None = None,
    *,
    inputs: list[onnx.ValueInfoProto] | None = None,
    outputs: list[onnx.ValueInfoProto] | None = None,
    ir_version: int = 10,
    opset: int = 21,
    **fields: object,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs or [X], outputs or [Y], initializers or [])
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, ir_version=ir_version, opset_imports=opsets, **fields)


def weight(graph: Graph, name: str) -> npt.NDArray[np.generic]:
    array = {value.name: value for value in graph.constants}[name].numpy()
    assert array is not None
    return array


NUMBERED = [dtype for dtype in DType if dtype not in (DType.UNDEFINED, DType.STRING)]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("dtype", NUMBERED, ids=lambda dtype: dtype.text)
def test_every_element_type_is_read_as_onnx_reads_it(dtype: DType, raw: bool) -> None:
    values = [1, 0, 1, 1, 0, 1, 1]
    proto = helper.make_tensor("w", int(dtype), [7], values)
    if raw:
        array = numpy_helper.to_array(proto)
        proto = numpy_helper.from_array(array, "w")
        assert proto.data_type == dtype
        assert proto.HasField("raw_data")
    read = weight(from_proto(model([helper.make_node("Identity", ["x"], ["y"])], [proto])), "w")
    assert read.dtype == dtype.numpy
    assert read.tobytes() == numpy_helper.to_array(proto).astype(dtype.numpy).tobytes()
    written = to_proto(from_proto(model([helper.make_node("Identity", ["x"], ["y"])], [proto]))).graph.initializer[0]
    assert numpy_helper.to_array(written).tobytes() == numpy_helper.to_array(proto).tobytes()


@pytest.mark.parametrize("dtype", [DType.FLOAT, DType.BFLOAT16, DType.INT4, DType.UINT2, DType.FLOAT6E2M3, DType.BOOL])
@pytest.mark.parametrize("external", [False, True])
def test_large_tensors_stay_in_their_file(tmp_path: Path, dtype: DType, external: bool) -> None:
    elements = (9 << 20) // dtype.bits + 1
    random = np.random.default_rng(1)
    data = random.integers(0, 2 if dtype is DType.BOOL else 256, dtype.file_bytes(elements), np.uint8).tobytes()
    tensor = TensorProto(name="w", data_type=int(dtype), dims=[elements], raw_data=data)
    expected = numpy_helper.to_array(tensor)
    proto = model([helper.make_node("Identity", ["x"], ["y"])], [tensor])
    if external:
        onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    else:
        onnx.save(proto, tmp_path / "m.onnx")
    graph = load(tmp_path / "m.onnx")
    (value,) = graph.constants
    assert isinstance(value.constant, FileTensor)
    assert value.constant.source.path == str(tmp_path / ("m.bin" if external else "m.onnx"))
    assert value.constant.numpy().tobytes() == expected.tobytes()


def test_sizes_named_by_a_question_mark_are_each_unknown() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["?", 3, "?", "-1"])
    graph = from_proto(model([helper.make_node("Relu", ["x"], ["y"])], inputs=[x]))
    assert graph.inputs[0].shape == (None, 3, None, None)


def test_the_runtimes_own_operators_need_no_import() -> None:
    nodes = [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")]
    assert from_proto(model(nodes)).opsets == {"": 21, "com.microsoft": 1}
    proto = model(nodes)
    proto.opset_import.add(domain="com.microsoft", version=2)
    assert from_proto(proto).opsets == {"": 21, "com.microsoft": 2}


def test_large_data_is_found_wherever_a_tensor_can_be(tmp_path: Path) -> None:
    def large(seed: int) -> onnx.TensorProto:
        array = np.random.default_rng(seed).standard_normal((300, 300), np.float32)
        return numpy_helper.from_array(array, f"t{seed}")

    typed = helper.make_tensor("t9", TensorProto.FLOAT, [90_000], np.arange(90_000, dtype=np.float32))
    assert len(typed.float_data) == 90_000
    cell = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=large(1)), helper.make_node("Add", ["c", "t2"], ["r"])],
        "cell",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
        [large(2)],
    )
    sparse = helper.make_node("Constant", [], ["s"], sparse_value=_sparse(large(3), 90_000))
    branch = helper.make_node("If", ["cond"], ["y"], then_branch=cell, else_branch=cell)
    cond = helper.make_tensor_value_info("cond", TensorProto.BOOL, [])
    proto = model([sparse, branch], [large(4), typed], inputs=[cond])
    body = [helper.make_node("Constant", [], ["o"], value=large(5))]
    proto.functions.append(helper.make_function("own", "F", [], ["o"], body, [helper.make_opsetid("", 21)]))
    proto.graph.sparse_initializer.append(_sparse(large(6), 90_000))
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    graph = load(path)
    lazily = [v.constant for owner in graph.graphs() for v in owner.constants]
    lazily += [a.value for node in graph.walk() for a in node.attributes.values()]
    lazily += [a.value for f in graph.functions.values() for node in f.graph for a in node.attributes.values()]
    tensors = [t.values if isinstance(t, SparseTensor) else t for t in lazily if not isinstance(t, Graph)]
    assert len(tensors) == 9
    assert all(isinstance(tensor, FileTensor) for tensor in tensors)
    assert dump(graph, tensors="inline") == dump(from_proto(proto), tensors="inline")


def _sparse(values: onnx.TensorProto, size: int) -> onnx.SparseTensorProto:
    flat = numpy_helper.from_array(numpy_helper.to_array(values).reshape(-1), values.name)
    indices = numpy_helper.from_array(np.arange(size, dtype=np.int64) * 2, "")
    return helper.make_sparse_tensor(flat, indices, [2 * size])


def test_everything_a_model_says_comes_back() -> None:
    """A model that uses every field that ONNX has is the same message after reading and writing."""
    proto = everything()
    assert str(to_proto(from_proto(proto))) == str(proto)


def test_the_parts_are_where_they_belong() -> None:
    graph = from_proto(everything())
    every, branch = graph
    x = graph.inputs[0]
    assert x.type == TensorType(DType.FLOAT, ("N", 2), False, "TENSOR", ("DATA_BATCH", ""))
    assert [value.type for value in graph.inputs[3:]] == [
        SequenceType(TensorType(DType.FLOAT)),
        OptionalType(TensorType(DType.FLOAT, (1,))),
        MapType(DType.INT64, TensorType(DType.FLOAT, (1,))),
        OpaqueType("d", "n"),
        TensorType(DType.FLOAT, (4, "M"), sparse=True),
        None,
    ]
    assert graph.inputs[2].default is not None
    assert graph.inputs[2].constant is None
    assert every.inputs[1] is None
    assert not every.outputs[1].uses
    assert every.attributes["none"].value == ()
    assert every.attributes["none"].kind is AttributeKind.INTS
    body = branch.bodies[0]
    assert body.parent is branch
    assert branch.captures == (x,)
    function = graph.functions["own", "Every", "two"]
    (alpha,) = next(iter(function.graph)).attributes.values()
    assert (alpha.ref, alpha.value) == ("slope", None)
    assert every.origin.nodes == ("every",)


def test_an_unnamed_node_originates_from_what_it_makes() -> None:
    (node,) = from_proto(model([helper.make_node("Relu", ["x"], ["y"])]))
    assert node.origin.nodes == ("y",)
    assert node.origin.passes == ()


def test_nodes_in_any_order_are_sorted() -> None:
    nodes = [
        helper.make_node("Add", ["b", "c"], ["y"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Neg", ["a"], ["c"]),
        helper.make_node("Abs", ["x"], ["a"]),
    ]
    graph = from_proto(model(nodes))
    assert [node.op for node in graph] == ["Abs", "Relu", "Neg", "Add"]
    assert not graph.sort()


def test_a_body_may_read_what_a_later_node_makes() -> None:
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    inner = helper.make_graph([helper.make_node("Neg", ["late"], ["r"])], "inner", [], [result])
    outer = helper.make_graph(
        [helper.make_node("If", ["c"], ["r"], then_branch=inner, else_branch=inner)], "outer", [], [result]
    )
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=outer, else_branch=inner),
        helper.make_node("Relu", ["x"], ["late"]),
        helper.make_node("Greater", ["x", "x"], ["c"]),
    ]
    graph = from_proto(model(nodes))
    assert [node.op for node in graph] == ["Relu", "Greater", "If"]
    late = next(iter(graph)).output
    assert late in list(graph)[2].captures
    assert len(late.uses) == 3


def test_a_name_inside_a_body_hides_the_same_name_outside() -> None:
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 4])
    nodes = [helper.make_node("Neg", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    body = helper.make_graph(nodes, "body", [], [result])
    nodes = [
        helper.make_node("Abs", ["x"], ["h"]),
        helper.make_node("Greater", ["h", "x"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body),
    ]
    graph = from_proto(model(nodes, outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])]))
    first, second = list(graph)[2].bodies[0]
    assert second.inputs == (first.output,)
    onnx.checker.check_model(to_proto(graph))


@pytest.mark.parametrize("ir_version", [3, 4])
def test_an_initializer_that_is_also_an_input(ir_version: int) -> None:
    w = numpy_helper.from_array(np.float32([1, 2, 3, 4]), "w")
    inputs = [X, helper.make_tensor_value_info("w", TensorProto.FLOAT, [4])]
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])], [w], inputs=inputs, ir_version=ir_version, opset=8)
    graph = from_proto(proto)
    if ir_version == 3:
        assert [value.name for value in graph.inputs] == ["x"]
        assert [value.name for value in graph.constants] == ["w"]
    else:
        assert [value.name for value in graph.inputs] == ["x", "w"]
        assert isinstance(graph.inputs[1].default, ArrayTensor)
    assert to_proto(graph).graph == proto.graph


def test_the_long_name_of_the_default_domain() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")])
    proto.opset_import[0].domain = "ai.onnx"
    graph = from_proto(proto)
    (node,) = graph
    assert (node.domain, graph.opsets) == ("", {"": 21})


def test_attributes_without_a_kind_get_it_from_their_field() -> None:
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=1)
    node.attribute[0].ClearField("type")
    node.attribute.add(name="more", ints=[1, 2])
    (read,) = from_proto(model([node]))
    assert read.get_int("axis") == 1
    assert read.get_ints("more") == (1, 2)


def test_origin_is_read_back_and_is_no_metadata() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    node.metadata_props.add(key="optc.origin", value='["a", "b"]')
    node.metadata_props.add(key="optc.passes", value='["clean"]')
    (read,) = from_proto(model([node]))
    assert read.origin.nodes == ("a", "b")
    assert read.origin.passes == ("clean",)
    assert read.metadata is None


def test_a_file_and_its_bytes_read_the_same(tmp_path: Path, kit: Path) -> None:
    path = kit / "models" / "mobilenetv2.onnx"
    assert dump(load(path)) == dump(from_bytes(path.read_bytes()))


def test_a_model_from_memory_takes_external_data_from_the_folder_given(tmp_path: Path) -> None:
    w = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    onnx.save(
        model([helper.make_node("Add", ["x", "w"], ["y"])], [w]),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.bin",
        size_threshold=0,
    )
    proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    np.testing.assert_array_equal(weight(from_proto(proto, folder=tmp_path), "w"), np.arange(4))
    with pytest.raises(ModelError, match=r"tensor .w.*no folder"):
        from_proto(proto)


def test_the_garbage_collector_is_left_as_it_was() -> None:
    sound = model([helper.make_node("Relu", ["x"], ["y"])])
    broken = model([helper.make_node("Relu", ["lost"], ["y"])])
    assert gc.isenabled()
    from_proto(sound)
    assert gc.isenabled()
    with pytest.raises(ModelError):
        from_proto(broken)
    assert gc.isenabled()
    gc.disable()
    try:
        from_proto(sound)
        assert not gc.isenabled()
    finally:
        gc.enable()
