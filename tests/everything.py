"""One model that uses every field that ONNX has."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def everything() -> onnx.ModelProto:
    floats = numpy_helper.from_array(np.float32([1, 2]), "w")
    floats.doc_string = "a weight"
    floats.metadata_props.add(key="from", value="training")
    strings = onnx.TensorProto(name="words", data_type=TensorProto.STRING, dims=[2], string_data=[b"a\xff", b"b"])
    values = numpy_helper.from_array(np.float32([5]), "sparse")
    indices = onnx.TensorProto(data_type=TensorProto.INT64, dims=[1, 2], int64_data=[0, 1])
    sparse = helper.make_sparse_tensor(values, indices, [2, 2])
    nameless = onnx.SparseTensorProto.FromString(sparse.SerializeToString())
    nameless.values.ClearField("name")

    body = helper.make_graph(
        [helper.make_node("Add", ["x", "inner"], ["r"])],
        "body",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.float32([3]), "inner")],
        doc_string="a branch",
    )
    every = helper.make_node("Every", ["x", "", "w"], ["e", "", "f"], "every", "a node", "own", overload="two")
    for name, value in {
        "int": -5,
        "ints": [1, -2],
        "float": 1.5,
        "floats": [0.5, -0.25],
        "string": "text",
        "bytes": b"\xfe\xff",
        "strings": ["a", "b"],
        "tensor": numpy_helper.from_array(np.int8([1])),
        "tensors": [numpy_helper.from_array(np.int8([2])), numpy_helper.from_array(np.int8([3]))],
        "sparse": nameless,
        "sparses": [nameless],
        "graph": body,
        "graphs": [body, body],
        "type": helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", None, 3]),
        "types": [helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.INT64, None))],
    }.items():
        every.attribute.append(helper.make_attribute(name, value))
    every.attribute.append(helper.make_attribute("none", [], attr_type=onnx.AttributeProto.INTS))
    every.attribute[0].doc_string = "an attribute"
    every.metadata_props.add(key="k", value="v")
    placed = every.device_configurations.add()
    placed.configuration_id, placed.pipeline_stage = "two-gpus", 1
    cond = helper.make_node("If", ["c"], ["y"], "branch", then_branch=body, else_branch=body)

    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2], "an input"),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("d", TensorProto.FLOAT, [1]),
        helper.make_value_info("seq", helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None))),
        helper.make_value_info("opt", helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [1]))),
        helper.make_value_info("map", helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, [1]))),
        helper.make_value_info("opaque", onnx.TypeProto(opaque_type=onnx.TypeProto.Opaque(domain="d", name="n"))),
        helper.make_value_info("thin", helper.make_sparse_tensor_type_proto(1, [4, "M"])),
        onnx.ValueInfoProto(name="untyped"),
    ]
    inputs[0].metadata_props.add(key="unit", value="metre")
    inputs[0].type.denotation = "TENSOR"
    inputs[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    graph = helper.make_graph(
        [every, cond],
        "g",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2], "an output")],
        [numpy_helper.from_array(np.float32([7]), "d"), floats, strings],
        "the graph",
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, ["N"], "a value")],
        sparse_initializer=[sparse],
    )
    graph.metadata_props.add(key="g", value="h")
    graph.quantization_annotation.add(tensor_name="e").quant_parameter_tensor_names.add(key="SCALE", value="w")

    inner = helper.make_node("LeakyRelu", ["a"], ["b"], "inner")
    inner.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    function = helper.make_function(
        "own",
        "Every",
        ["a", "unused", "second"],
        ["b", "b2", "second_out"],
        [inner, helper.make_node("Identity", ["b"], ["b2"]), helper.make_node("Neg", ["second"], ["second_out"])],
        [helper.make_opsetid("", 21)],
        ["slope"],
        [helper.make_attribute("kept", 3)],
        "a function",
        overload="two",
        value_info=[helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    function.metadata_props.add(key="f", value="1")
    proto = helper.make_model(
        graph,
        ir_version=11,
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("own", 3)],
        functions=[function],
        producer_name="test",
        producer_version="1",
        domain="org.example",
        model_version=4,
        doc_string="a model",
    )
    for key in ("author", "author"):  # ONNX keeps them in order, twice the same key included
        proto.metadata_props.add(key=key, value="somebody")
    proto.training_info.add().algorithm.name = "training"
    proto.configuration.add(name="two-gpus", num_devices=2)
    for opset in (proto.opset_import[0], proto.functions[0].opset_import[0]):
        opset.ClearField("domain")  # that of ONNX goes without saying, in two bytes less
    return proto
