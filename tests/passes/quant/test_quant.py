"""The pass as a whole: small trained networks keep their answers, in the runtime's integer kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from quantized import cleaned, quantized, runtime_ops

import optc
from optc.ir.graph import Graph, Value
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.models import zoo
from optc.passes.base import Outcome
from optc.passes.quant import Quant
from optc.runtime.agreement import agreement
from optc.runtime.session import Session
from optc.runtime.sources import load_samples


@pytest.mark.parametrize("name", ["digits_dscnn", "digits_resnet", "digits_transformer"])
def test_a_trained_network_keeps_its_mind(name: str) -> None:
    graph = cleaned(name)
    teacher = graph.clone()
    report = quantized(graph, zoo.samples(name, "calib"))
    assert report.count(Outcome.DONE) >= 4
    reasons = {layer.reason for layer in report.layers if layer.reason and "island" not in layer.detail}
    assert reasons <= {"both operands are computed"}
    test = load_samples(zoo.samples(name, "test"), graph)
    assert agreement(teacher, graph, test, threads=1).share >= 0.99
    assert len(to_bytes(graph)) < 0.5 * len(to_bytes(teacher))


@pytest.mark.parametrize("name", ["digits_dscnn", "digits_resnet"])
def test_no_float_is_left_between_integer_kernels(name: str, tmp_path: Path) -> None:
    graph = cleaned(name)
    layers = sum(node.op in ("Conv", "Gemm") for node in graph)
    quantized(graph, zoo.samples(name, "calib"))
    ops = runtime_ops(graph, tmp_path)
    assert ops["QLinearConv"] + ops["QGemm"] == layers
    assert ops["QuantizeLinear"] == 1
    assert ops["DequantizeLinear"] == 0
    assert not {"Conv", "Gemm", "Add", "Relu", "Clip", "GlobalAveragePool", "FusedConv"} & set(ops)


def convolutions(*, keep_relu_input: bool = False) -> Graph:
    """conv -> relu -> (slice + pad) -> add -> concat with the other branch -> conv."""
    rng = np.random.default_rng(0)
    graph = Graph("branches", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4, 8, 8)))

    def conv(value, outputs: int, inputs: int, name: str):  # type: ignore[no-untyped-def]
        weight = rng.normal(size=(outputs, inputs, 3, 3)).astype(np.float32) / 6
        bias = rng.normal(size=outputs).astype(np.float32) / 4
        inputs = [value, graph.constant(weight, f"{name}_w"), graph.constant(bias, f"{name}_b")]
        return graph.add("Conv", inputs, {"pads": [1] * 4}, outputs=[name], name=name).output

    a = graph.add("Relu", [conv(x, 8, 4, "a")], name="a_relu").output
    ends = [graph.constant(np.asarray(v)) for v in ([0, 0], [8, 8], [2, 3])]
    cut = graph.add("Slice", [a, *ends]).output
    pads = graph.constant(np.asarray([0, 2, 0, 0, 0, 0, 0, 0]))
    wide = graph.add("Pad", [cut, pads]).output
    b = conv(x, 10, 4, "b")
    total = graph.add("Add", [wide, b]).output
    relu = graph.add("Relu", [total]).output
    c = graph.add("Relu", [conv(x, 6, 4, "c")], name="c_relu").output
    both = graph.add("Concat", [relu, c], {"axis": 1}).output
    pooled = graph.add("MaxPool", [both], {"kernel_shape": [2, 2], "strides": [2, 2]}).output
    if keep_relu_input:
        pooled = graph.add("Add", [pooled, graph.add("Relu", [pooled]).output]).output
    graph.add_output(conv(pooled, 3, 16, "y"), "y", TensorType(DType.FLOAT, ("N", 3, 4, 4)))
    infer(graph)
    return graph


@pytest.mark.parametrize("keep_relu_input", [False, True])
def test_branches_stay_integer_and_close(keep_relu_input: bool, tmp_path: Path) -> None:
    graph = convolutions(keep_relu_input=keep_relu_input)
    teacher = graph.clone()
    x = np.random.default_rng(3).normal(size=(64, 4, 8, 8)).astype(np.float32)
    quantized(graph, {"x": x})
    ops = runtime_ops(graph, tmp_path)
    assert ops["QLinearConv"] == 4
    assert (ops["QuantizeLinear"], ops["DequantizeLinear"]) == (1, 1)
    assert not {"Conv", "Add", "Relu"} & set(ops)
    exact = Session(graph, threads=1, optimise=False).run({"x": x})[0]
    want, got = (Session(g, threads=1).run({"x": x})[0] for g in (teacher, graph))
    assert 10 * np.log10((want**2).sum() / ((want - got) ** 2).sum()) > 30
    assert np.abs(exact - got).max() <= 2.1 * np.abs(exact).max() / 255  # the fused kernels do the same arithmetic


def test_pruned_zeros_stay_zeros() -> None:
    graph = convolutions()
    for node in tuple(graph):
        if node.op == "Conv":
            weight = np.array(node.inputs[1].numpy())  # type: ignore[union-attr]
            weight[:, ::2] = 0
            node.set_input(1, graph.constant(weight))
    quantized(graph, {"x": np.random.default_rng(3).normal(size=(16, 4, 8, 8)).astype(np.float32)})
    convs = [node for node in graph if node.op == "Conv"]
    assert len(convs) == 4
    for conv in convs:
        codes = conv.inputs[1].producer.inputs[0]  # type: ignore[union-attr]
        assert codes is not None
        assert codes.dtype is DType.INT8
        assert not codes.numpy()[:, ::2].any()  # type: ignore[index]


def test_quantizing_twice_changes_nothing_the_second_time() -> None:
    graph = convolutions()
    x = {"x": np.random.default_rng(3).normal(size=(16, 4, 8, 8)).astype(np.float32)}
    quantized(graph, x)
    before = to_bytes(graph)
    report = quantized(graph, x)
    assert to_bytes(graph) == before
    assert {(layer.outcome, layer.reason) for layer in report.layers} == {(Outcome.SKIPPED, "already quantized")}
    assert not report.changed
    assert report.notes


def test_equal_inputs_give_equal_bytes() -> None:
    x = {"x": np.random.default_rng(3).normal(size=(16, 4, 8, 8)).astype(np.float32)}
    first, second = convolutions(), convolutions()
    quantized(first, x)
    quantized(second, x)
    assert to_bytes(first) == to_bytes(second)


def test_layers_kept_by_name_stay_float() -> None:
    graph = convolutions()
    report = quantized(graph, {"x": np.zeros((4, 4, 8, 8), np.float32)}, Quant(keep="a|y*", slower="int8"))
    kept = {layer.name: layer.reason for layer in report.layers if layer.outcome is Outcome.SKIPPED}
    assert kept == {"a": "kept by name", "y": "kept by name"}
    floats = [node.name for node in graph if node.op == "Conv" and node.inputs[1].constant is not None]  # type: ignore[union-attr]
    assert floats == ["a", "y"]


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_constant_activations(value: float) -> None:
    graph = convolutions()
    teacher = graph.clone()
    x = np.full((4, 4, 8, 8), value, np.float32)
    quantized(graph, {"x": x})
    want, got = (Session(g, threads=1).run({"x": x})[0] for g in (teacher, graph))
    assert np.abs(want - got).max() < 0.05 * np.abs(want).max()


def linear(weight: np.ndarray, *, uses: int = 1, attributes: dict[str, float] | None = None) -> Graph:
    graph = Graph("linear", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", weight.shape[0])))
    w = graph.constant(weight, "w")
    for i in range(uses):
        y = graph.add("Gemm", [x, w], attributes or {}, outputs=[f"y{i}"], name=f"gemm{i}").output
        graph.add_output(y, f"y{i}", TensorType(DType.FLOAT, ("N", weight.shape[1])))
    infer(graph)
    return graph


def test_layers_that_share_a_weight_share_its_codes() -> None:
    rng = np.random.default_rng(0)
    graph = linear(rng.normal(size=(16, 8)).astype(np.float32), uses=2)
    report = quantized(graph, {"x": rng.normal(size=(32, 16)).astype(np.float32)})
    assert report.count(Outcome.DONE) == 2
    assert sum(v.dtype in (DType.INT8, DType.UINT8) and v.shape == (16, 8) for v in graph.constants) == 1


def test_a_weight_that_somebody_else_reads_stays_float() -> None:
    rng = np.random.default_rng(0)
    graph = linear(rng.normal(size=(16, 8)).astype(np.float32))
    weight = next(v for v in graph.constants if v.shape == (16, 8))
    graph.add_output(graph.add("Exp", [weight], name="reader").output, "e", TensorType(DType.FLOAT, (16, 8)))
    report = quantized(graph, {"x": rng.normal(size=(32, 16)).astype(np.float32)})
    assert [layer.reason for layer in report.layers] == ["reader reads the same weight and needs it float"]


def test_what_cannot_be_quantized_says_why() -> None:
    rng = np.random.default_rng(0)
    graph = linear(rng.normal(size=(16, 8)).astype(np.float32), attributes={"alpha": 0.5})
    y = graph.outputs[0].value
    double = graph.add("MatMul", [y, graph.add("Exp", [graph.constant(np.ones((8, 4), np.float32))]).output]).output
    graph.add_output(double, "z", TensorType(DType.FLOAT, ("N", 4)))
    before = len(graph)
    report = quantized(graph, {"x": rng.normal(size=(32, 16)).astype(np.float32)})
    loaded = "the weight is computed from constants when the model is loaded"
    assert [layer.reason for layer in report.layers] == ["alpha or beta is not 1", loaded]
    assert len(graph) == before
    assert not report.changed


def test_a_huge_bias_on_a_tiny_weight_does_not_overflow() -> None:
    rng = np.random.default_rng(0)
    graph = linear(rng.normal(size=(16, 8)).astype(np.float32) * 1e-7)
    gemm = next(iter(graph))
    gemm.set_input(2, graph.constant(np.full(8, 1000.0, np.float32), "b"))
    x = rng.normal(size=(32, 16)).astype(np.float32)
    quantized(graph, {"x": x})
    assert Session(graph, threads=1).run({"x": x})[0] == pytest.approx(1000.0, rel=1e-3)


def test_an_older_opset_is_raised() -> None:
    rng = np.random.default_rng(0)
    graph = linear(rng.normal(size=(16, 8)).astype(np.float32))
    graph.opsets[""] = 11
    report = quantized(graph, {"x": rng.normal(size=(32, 16)).astype(np.float32)})
    assert report.count(Outcome.DONE) == 1
    assert graph.opset() >= 13


def embedding() -> Graph:
    """ids -> table -> LayerNormalization with a few channels far larger than the rest -> MatMul -> Add."""
    rng = np.random.default_rng(0)
    graph = Graph("embedding", opsets={"": 17})
    ids = graph.add_input("ids", TensorType(DType.INT64, ("N", 6)))
    table = graph.constant(rng.normal(size=(50, 32)).astype(np.float32), "table")
    x = graph.add("Gather", [table, ids], name="embed").output
    scale = np.where(np.arange(32) < 2, 60.0, 1.0).astype(np.float32)
    norm = [x, graph.constant(scale, "gamma"), graph.constant(np.zeros(32, np.float32), "beta")]
    normal = graph.add("LayerNormalization", norm, {"axis": -1}, name="norm").output
    weight = (rng.normal(size=(32, 16)) / np.where(np.arange(32) < 2, 60.0, 1.0)[:, None]).astype(np.float32)
    y = graph.add("MatMul", [normal, graph.constant(weight, "w")], name="product").output
    y = graph.add("Add", [y, graph.constant(rng.normal(size=16).astype(np.float32), "b")]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("N", 6, 16)))
    infer(graph)
    return graph


def test_large_channels_are_scaled_into_the_norm_and_the_table_is_stored_as_codes() -> None:
    graph = embedding()
    teacher = graph.clone()
    ids = np.random.default_rng(1).integers(0, 50, size=(64, 6))
    report = quantized(graph, {"ids": ids})
    assert {(layer.name, layer.outcome) for layer in report.layers} == {
        ("product", Outcome.DONE),
        ("embed", Outcome.DONE),
    }
    (scaled,) = (node for node in graph if node.op == "Mul")  # the table's; 1/s went into the normalisation
    assert scaled.inputs[0].producer.op == "Cast"  # type: ignore[union-attr]
    assert not any(v.dtype is DType.FLOAT and len(v.shape or ()) == 2 for v in graph.constants)
    want, got = (Session(g, threads=1).run({"ids": ids})[0] for g in (teacher, graph))
    assert 10 * np.log10((want**2).sum() / ((want - got) ** 2).sum()) > 32


def test_rows_of_a_table_are_decoded_once_before_a_transpose(tmp_path: Path) -> None:
    graph = Graph("turned", opsets={"": 17})
    ids = graph.add_input("ids", TensorType(DType.INT64, ("N", 6)))
    table = graph.constant(np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32), "table")
    turned = graph.add("Transpose", [graph.add("Gather", [table, ids]).output], {"perm": [1, 0, 2]}).output
    graph.add_output(graph.add("Tanh", [turned]).output, "y", TensorType(DType.FLOAT, (6, "N", 32)))
    infer(graph)
    assert quantized(graph, {"ids": np.random.default_rng(1).integers(0, 50, size=(64, 6))}).count(Outcome.DONE) == 1
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(runtime_ops(graph, tmp_path))


def test_a_table_with_another_reader_stays_float() -> None:
    graph = embedding()
    table = next(v for v in graph.constants if v.shape == (50, 32))
    graph.add_output(graph.add("Exp", [table]).output, "e", TensorType(DType.FLOAT, (50, 32)))
    report = quantized(graph, {"ids": np.zeros((4, 6), np.int64)})
    assert {layer.name: layer.reason for layer in report.layers}["embed"] == "its table has another reader"


def test_a_table_that_the_last_layer_reads_too_is_stored_once_for_both(tmp_path: Path) -> None:
    graph = embedding()
    table = next(v for v in graph.constants if v.shape == (50, 32))
    x = graph.add("Tanh", [table.users[0].output]).output
    head = graph.add("MatMul", [x, graph.add("Transpose", [table], {"perm": [1, 0]}).output], name="head").output
    graph.add_output(head, "logits", TensorType(DType.FLOAT, ("N", 6, 50)))
    infer(graph)
    teacher = graph.clone()
    ids = np.random.default_rng(1).integers(0, 50, size=(64, 6))
    report = quantized(graph, {"ids": ids})
    by_name = {layer.name: layer for layer in report.layers}
    assert by_name["embed"].detail["form"] == "stored"
    assert by_name["head"].reason == "its weight is a constant that others read the other way round"
    assert not any(v.dtype is DType.FLOAT and v.shape == (50, 32) for v in graph.constants)
    assert "Cast" not in runtime_ops(graph, tmp_path)
    want, got = (Session(g, threads=1).run({"ids": ids})[1] for g in (teacher, graph))
    assert 10 * np.log10((want**2).sum() / ((want - got) ** 2).sum()) > 40


WORDS = {"keys_int64s": list(range(64)), "values_int64s": [7 * i % 64 + 1 for i in range(64)]}


def size_of(graph: Graph, number: int) -> Value:
    return graph.constant(np.asarray(number, np.int64))


def picked(kind: str, *, layer: bool) -> Graph:
    """Rows of a constant matrix that are picked by `kind`, and answered as they are or read by a layer."""
    rng = np.random.default_rng(0)
    graph = Graph("boxes", opsets={"": 17})
    rows = graph.constant(rng.uniform(0, 640, size=(512, 4)).astype(np.float32), "rows")
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8)))
    weight = graph.constant((rng.normal(size=(8, 512)) / 3).astype(np.float32), "w")
    score = graph.add("MatMul", [x, weight], name="score").output
    if kind == "TopK":
        many = graph.constant(np.asarray([5], np.int64))
        ids = graph.add("TopK", [score, many], {"axis": 1}, outputs=["scores", "places"], name="best").outputs[1]
    elif kind == "ArgMax":
        ids = graph.add("ArgMax", [score], {"axis": 1, "keepdims": 0}, name="best").output
    elif kind == "Range":
        size = graph.add("Gather", [graph.add("Shape", [x]).output, graph.constant(np.asarray(0, np.int64))]).output
        ends = [graph.constant(np.asarray(i, np.int64)) for i in (0, 1)]
        ids = graph.add("Range", [ends[0], size, ends[1]], name="places").output
    else:
        ids = graph.add_input("ids", TensorType(DType.INT32, ("N",)))
        if kind == "ids of words":
            numbers = graph.add("Cast", [ids], {"to": int(DType.INT64)}).output
            words = graph.add("LabelEncoder", [numbers], WORDS, domain="ai.onnx.ml", name="words").output
            graph.opsets["ai.onnx.ml"] = 2
            ids = graph.add("Cast", [words], {"to": int(DType.INT32)}).output
        ids = graph.add("Cast", [ids], {"to": int(DType.INT64)}).output
        ids = graph.add("Sub", [ids, graph.constant(np.asarray(1, np.int64))]).output
        if kind == "ids from the end":  # as Keras writes a lookup
            below = graph.add("Less", [ids, graph.constant(np.asarray(0, np.int64))]).output
            ids = graph.add("Where", [below, graph.add("Add", [ids, size_of(graph, 512)]).output, ids]).output
    y = graph.add("Gather", [rows, ids], name="pick").output
    if layer:
        y = graph.add("MatMul", [graph.add("Tanh", [y]).output, graph.constant(np.ones((4, 4), np.float32))]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, None))
    graph.add_output(score, "score", TensorType(DType.FLOAT, ("N", 512)))
    infer(graph)
    return graph


@pytest.mark.parametrize(
    ("kind", "layer", "reason"),
    [
        ("TopK", False, "picked by TopK 'best'"),
        ("TopK", True, "picked by TopK 'best'"),
        ("ArgMax", False, "picked by ArgMax 'best'"),
        ("Range", False, "no layer with weights reads them"),
        ("Range", True, ""),
        ("ids", False, ""),
        ("ids from the end", False, ""),
        ("ids of words", False, ""),
    ],
)
def test_only_rows_of_embeddings_become_codes(kind: str, layer: bool, reason: str) -> None:
    graph = picked(kind, layer=layer)
    x = np.random.default_rng(1).normal(size=(64, 8)).astype(np.float32)
    feeds = {"x": x, "ids": np.arange(64, dtype=np.int32) + 1} if kind.startswith("ids") else {"x": x}
    by_name = {one.name: one for one in quantized(graph, feeds).layers if "island" not in one.detail}
    assert by_name["pick"].outcome is (Outcome.SKIPPED if reason else Outcome.DONE)
    assert reason in by_name["pick"].reason


def test_weights_alone_are_stored_in_int8_and_folded_by_the_runtime(tmp_path: Path) -> None:
    graph = cleaned("digits_dscnn")
    teacher = graph.clone()
    quantized(graph, zoo.samples("digits_dscnn", "calib"), Quant(activations="none"))
    assert not {"Cast", "QuantizeLinear", "DequantizeLinear"} & set(runtime_ops(graph, tmp_path))
    assert len(to_bytes(graph)) < 0.6 * len(to_bytes(teacher))
    test = load_samples(zoo.samples("digits_dscnn", "test"), graph)
    assert agreement(teacher, graph, test, threads=1).share >= 0.995


def test_layers_of_a_file_with_stored_weights_are_named_with_the_true_reason() -> None:
    rng = np.random.default_rng(0)
    samples = {"x": rng.normal(size=(32, 64)).astype(np.float32)}
    model = optc.compile(
        linear(rng.normal(size=(64, 96)).astype(np.float32)),
        "quant:activations=none",
        data=samples,
        check=False,
        guard=False,
    ).graph
    for one in ("prune", "svd", "quant"):
        done = optc.compile(model.clone(), one, data=samples, threads=1, check=False, guard=False).report.steps
        reasons = [layer.reason for step in done for layer in step.report.layers]
        assert reasons, one
        assert all("computed from constants when the model is loaded" in reason for reason in reasons), reasons
