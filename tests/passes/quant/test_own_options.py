"""Single layers with weights, activations and blocks of their own, from the library and from a configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facts import facts_of
from quantized import runtime_ops, signal_to_noise

from optc.errors import SpecError
from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, Override, Report
from optc.passes.quant import Quant
from optc.project.overrides import override
from optc.runtime.sources import load_samples

FEEDS = {"x": np.random.default_rng(1).normal(size=(40, 32)).astype(np.float32)}


def chain(length: int = 4) -> Graph:
    """Gemms l0, l1, ... with an Abs after each."""
    rng = np.random.default_rng(0)
    graph = Graph("chain", opsets={"": 21})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 32)))
    for i in range(length):
        weight = graph.constant(rng.normal(size=(32, 32)).astype(np.float32) / 4, f"w{i}")
        bias = graph.constant(rng.normal(size=32).astype(np.float32), f"b{i}")
        x = graph.add("Gemm", [x, weight, bias], name=f"l{i}").output
        x = graph.add("Abs", [x], name=f"a{i}").output
    graph.add_output(x, "y", TensorType(DType.FLOAT, ("N", 32)))
    infer(graph)
    return graph


def build(one: Quant, *overrides: Override) -> tuple[Graph, Report]:
    graph = chain()
    samples = load_samples(FEEDS, graph)
    ctx = Context(facts_of(), teacher=graph.clone(), fit=samples, held_out=samples, overrides=overrides, threads=1)
    one.requires(graph, ctx)
    report = one.run(graph, ctx)
    graph.sweep()
    graph.sort()
    infer(graph, fresh=True)
    return graph, report


def own(name: str, **options: object) -> Override:
    return Override(name, passes={"quant": options})


def bits(report: Report) -> dict[str, object]:
    return {layer.name: layer.detail["bits"] for layer in report.layers if "bits" in layer.detail}


def noise(graph: Graph) -> float:
    return signal_to_noise(chain(), graph, FEEDS)


def test_bits_by_layer(tmp_path: Path) -> None:
    graph, report = build(Quant(slower="int8"), own("l1", weights="int4"), own("l2", weights="int3"))
    assert bits(report) == {"l0": 8, "l1": 4, "l2": 3, "l3": 8}
    assert sum(v.dtype is DType.INT4 for v in graph.constants) == 2
    assert runtime_ops(graph, tmp_path)["QGemm"] == 4
    assert noise(graph) > 8


def test_a_layer_with_more_bits_than_the_others_answers_better() -> None:
    few, report = build(Quant(weights="int2", slower="int8"))
    assert set(bits(report).values()) == {2}
    more, report = build(Quant(weights="int2", slower="int8"), own("l[12]", weights="int8"))
    assert bits(report) == {"l0": 2, "l1": 8, "l2": 8, "l3": 2}
    assert noise(more) > noise(few) + 0.5


def test_an_override_holds_within_weights_of_any_width() -> None:
    _, report = build(Quant(weights="auto", min_agreement=0.0, slower="int8"), own("l0", weights="int8"))
    assert bits(report) == {"l0": 8, "l1": 4, "l2": 4, "l3": 4}
    _, report = build(Quant(weights="auto", min_agreement=1.0, slower="int8"), own("l3", weights="int2"))
    assert bits(report)["l3"] == 2


def test_layers_of_every_form_in_one_model(tmp_path: Path) -> None:
    graph, report = build(
        Quant(slower="int8"),
        own("l0", activations="none"),
        own("l1", activations="dynamic"),
        own("l3", weights="float16"),
    )
    assert bits(report) == {"l0": 8, "l1": 8, "l2": 8, "l3": 16}
    ops = runtime_ops(graph, tmp_path)
    assert (ops["Gemm"], ops["QGemm"]) == (2, 1)
    assert ops["DynamicQuantizeMatMul"] + ops["MatMulIntegerToFloat"] == 1
    assert any(v.dtype is DType.FLOAT16 for v in graph.constants)
    assert noise(graph) > 30


def test_one_integer_layer_in_a_model_of_stored_weights(tmp_path: Path) -> None:
    graph, _ = build(Quant(activations="none", slower="int8"), own("l2", activations="int8"))
    ops = runtime_ops(graph, tmp_path)
    assert (ops["Gemm"], ops["QGemm"]) == (3, 1)


def test_four_bits_with_ranges_found_as_the_model_runs(tmp_path: Path) -> None:
    graph, report = build(Quant(weights="int4", activations="dynamic"), own("l0", weights="int8"))
    assert bits(report) == {"l0": 8, "l1": 4, "l2": 4, "l3": 4}
    assert all("error" in layer.detail for layer in report.layers if layer.detail.get("bits") == 4)
    ops = runtime_ops(graph, tmp_path)
    assert ops["DynamicQuantizeMatMul"] + ops["MatMulIntegerToFloat"] == 4
    assert not {"Cast", "Gemm", "MatMul", "MatMulInteger"} & set(ops)
    assert noise(graph) > 14


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weights": "auto"}, "shares a budget between all layers"),
        ({"activations": "int16"}, "holds for the whole model"),
        ({"weights": "int2", "activations": "none"}, "needs integer or dynamic activations"),
    ],
)
def test_wishes_that_cannot_be_met(options: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        build(Quant(), own("l0", **options))


def test_a_configuration_spells_them() -> None:
    parsed = override({"op": "Gemm", "passes": {"quant": {"weights": "int4", "activations": "dynamic"}}})
    assert parsed.passes == {"quant": {"weights": "int4", "activations": "dynamic"}}
    with pytest.raises(SpecError, match=r"a layer can have its own .*weights"):
        override({"op": "Gemm", "passes": {"quant": {"size": 0.2}}})
