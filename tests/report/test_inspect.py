"""The summary of a model."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import pytest
from rich.console import Console

from optc.errors import ModelError
from optc.ir.graph import Graph
from optc.ir.types import DType, MapType, OpaqueType, OptionalType, SequenceType, TensorType
from optc.report.inspect import as_dict, render, summary


def small() -> Graph:
    graph = Graph("small", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 8, 8)))
    kernel = np.ones((4, 3, 3, 3), np.float32)
    kernel[0] = 0
    value = graph.add("Conv", [x, graph.constant(kernel)], {"pads": [1] * 4}, name="first").output
    value = graph.add("Relu", [value], name="[act]").output
    value = graph.add("Flatten", [value]).output
    value = graph.add("MatMul", [value, graph.constant(np.ones((256, 5), np.float32))], name="last").output
    graph.add_output(value, "y", TensorType(DType.FLOAT, ("N", 5)))
    return graph


def test_types_that_are_no_tensors_are_told_in_words() -> None:
    graph = Graph("maps", opsets={"": 17})
    kinds = (
        SequenceType(MapType(DType.STRING, TensorType(DType.FLOAT, ()))),
        OptionalType(TensorType(DType.INT64, ("N", None))),
        OpaqueType("its.domain", "image"),
        None,
    )
    for index, kind in enumerate(kinds):
        graph.add_input(f"x{index}", kind)
    assert [port.type for port in summary(graph).inputs] == [
        "sequence of map from string to float[]", "optional int64[N, ?]", "opaque image", "?",
    ]  # fmt: skip


def test_the_figures_of_a_summary() -> None:
    facts = summary(small(), top=2)
    assert [(port.name, port.type) for port in facts.inputs] == [("x", "float[N, 3, 8, 8]")]
    assert [(port.name, port.type) for port in facts.outputs] == [("y", "float[N, 5]")]
    assert facts.ops == {"Conv": 1, "Flatten": 1, "MatMul": 1, "Relu": 1}
    assert facts.params == 4 * 27 + 256 * 5
    assert facts.macs == 4 * 27 * 64 + 256 * 5
    assert [layer.name for layer in facts.layers] == ["first", "last"]
    assert facts.layers[0].output == "float[N, 4, 8, 8]"
    assert sum(layer.share for layer in facts.layers) == 1
    assert facts.layers[1].stored == pytest.approx(256 * 5 * 4 / facts.bytes)
    assert [layer.name for layer in facts.largest] == ["last", "first"]
    [weights] = facts.weights
    assert weights.zeros == 27 / facts.params
    assert facts.dims == ("N",)


def test_a_node_without_name_and_outputs() -> None:
    graph = small()
    graph.opsets["my"] = 1
    graph.add("Print", [graph.outputs[0].value], domain="my", outputs=0)
    graph.add("Send", [graph.outputs[0].value, graph.constant(np.ones(64, np.float32))], domain="my", outputs=0)
    facts = summary(graph)
    assert facts.nodes == 6
    assert ("Send", "") in [(layer.name, layer.output) for layer in facts.largest]


def test_the_weights_of_the_costliest_layers() -> None:
    first, last = summary(small(), top=2).tensors
    assert (first.layer, first.weight.dtype, first.weight.shape) == ("first", "float", (4, 3, 3, 3))
    assert (first.weight.zeros, first.weight.low, first.weight.high) == (0.25, 0.0, 1.0)
    assert (first.rank, first.full_rank) == (1, 4)
    assert (last.rank, last.full_rank) == (1, 5)
    assert [one.layer for one in summary(small(), top=1).tensors] == ["first", "last"]


def test_the_rank_holds_99_percent_of_the_energy() -> None:
    rng = np.random.default_rng(0)
    u, v = np.linalg.qr(rng.standard_normal((20, 4)))[0], np.linalg.qr(rng.standard_normal((9, 4)))[0]
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 20)))
    kernel = ((u * [10.0, 5.0, 1.0, 0.5]) @ v.T).astype(np.float32)  # energies 100, 25, 1, 0.25: the first two are 99 %
    graph.add_output(graph.add("MatMul", [x, graph.constant(kernel)]).output, "y")
    (tensor,) = summary(graph).tensors
    assert (tensor.rank, tensor.full_rank) == (2, 9)


def test_codes_belong_to_the_layer_that_reads_what_they_stand_for() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8)))
    codes = graph.constant(np.arange(-16, 16, dtype=np.int8).reshape(8, 4))
    scale, zero = graph.constant(np.float32(0.5)), graph.constant(np.int8(0))
    weight = graph.add("DequantizeLinear", [codes, scale, zero], name="decode").output
    graph.add_output(graph.add("MatMul", [x, weight], name="last").output, "y")
    facts = summary(graph)
    assert [layer.name for layer in facts.largest] == ["last"]
    assert facts.largest[0].params == 32
    (tensor,) = facts.tensors
    assert (tensor.layer, tensor.weight.dtype, tensor.weight.low, tensor.rank) == ("last", "int8", -16.0, None)


def test_what_is_not_finite_is_counted() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 2)))
    kernel = np.array([[1, np.nan], [np.inf, -3]], np.float32)
    graph.add_output(graph.add("MatMul", [x, graph.constant(kernel)]).output, "y")
    (tensor,) = summary(graph).tensors
    assert (tensor.weight.broken, tensor.weight.low, tensor.weight.high, tensor.rank) == (2, -3.0, 1.0, None)


def test_a_summary_leaves_the_graph_as_it_is() -> None:
    graph = small()
    before = str(graph)
    summary(graph)
    assert str(graph) == before


def test_a_summary_is_json() -> None:
    facts = as_dict(summary(small()))
    assert json.loads(json.dumps(facts))["opsets"] == {"ai.onnx": 17}


def test_a_summary_is_drawn_with_names_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(render(summary(small()), title="small.onnx"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in (
        "small.onnx",
        "float[N, 3, 8, 8]",
        "most work",
        "most bytes",
        "their weights",
        "first",
        "MACs",
        "8.19 k",
    ):
        assert part in text


def test_sizes_may_be_fixed() -> None:
    once, thrice = summary(small()), summary(small(), dims={"N": 3})
    assert thrice.macs == 3 * once.macs
    assert thrice.dims == ()
    assert thrice.layers[0].output == "float[3, 4, 8, 8]"
    with pytest.raises(ModelError, match="'M'"):
        summary(small(), dims={"M": 3})


def test_a_node_of_many_outputs_is_summed_up_once() -> None:
    count = 40_000
    graph = Graph("split", opsets={"": 18})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1,)))
    weight = graph.constant(np.zeros(count, np.float32), "w")
    node = graph.add("Split", [weight], {"axis": 0, "num_outputs": count}, outputs=count)
    graph.add_output(graph.add("Add", [x, node.outputs[0]]).output, "y", TensorType(DType.FLOAT, (1,)))
    start = time.process_time()
    (layer,) = summary(graph).layers or summary(graph).largest
    assert time.process_time() - start < 6
    assert layer.params == 1
