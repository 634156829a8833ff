"""Distillation of quantized students: codes, scales and biases move, the form of the file stays."""

from __future__ import annotations

import json

import numpy as np
import pytest
from taught import NAME, context, divergence

import optc
from optc.compiler import read
from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.text.snapshot import settle
from optc.ir.types import DType
from optc.models import zoo
from optc.passes.base import Context
from optc.passes.distill import Distill
from optc.passes.distill.quantized.codes import codes_of
from optc.passes.distill.quantized.simulated import twin_of
from optc.passes.pipeline import Pipeline
from optc.report.explain import events
from optc.report.page import charts
from optc.runtime.session import Session


@pytest.fixture(scope="module")
def ctx() -> Context:
    return context(samples=96, judges=32)


@pytest.fixture(scope="module")
def quantized(ctx: Context) -> dict[str, Graph]:
    """Students by how their weights are quantized."""
    return {weights: _quantized(ctx, f"quant:weights={weights}") for weights in ("int8", "int4", "int2", "codebook")}


def _quantized(ctx: Context, spec: str, name: str = NAME) -> Graph:
    graph = read(f"zoo:{name}")
    infer(graph)
    one = Pipeline.parse(spec).passes[0]
    one.requires(graph, ctx)
    one.run(graph, ctx)
    graph.sweep()
    graph.sort()
    infer(graph, fresh=True)
    settle(graph)
    return graph


def form(graph: Graph) -> list[object]:
    """Nodes, and the types and shapes of constants: all but numbers."""
    constants = [(v.name, v.constant.dtype, v.constant.shape) for v in graph.constants if v.constant is not None]
    return [*((n.op, tuple(v.name if v else "" for v in n.inputs)) for n in graph), *sorted(constants, key=str)]


@pytest.mark.parametrize("weights", ["int8", "int4", "int2", "codebook"])
def test_writing_what_did_not_move_changes_nothing(quantized: dict[str, Graph], weights: str) -> None:
    graph = quantized[weights].clone()
    before = to_bytes(graph)
    twin = twin_of(graph, saturating=False)
    assert twin is not None
    twin.write()
    assert to_bytes(graph) == before


@pytest.mark.parametrize("weights", ["int4", "int2"])
def test_codes_move_and_the_form_stays(ctx: Context, quantized: dict[str, Graph], weights: str) -> None:
    graph = quantized[weights].clone()
    shape, before = form(graph), divergence(graph, ctx)
    report = Distill(steps=40, rate=1e-3, batch=16, views="none").run(graph, ctx)
    assert divergence(graph, ctx) < before
    assert form(graph) == shape
    assert any(layer.detail.get("codes_changed") for layer in report.layers)


def test_codes_stay_where_products_may_saturate(quantized: dict[str, Graph]) -> None:
    twin = twin_of(quantized["int8"].clone(), saturating=True)
    assert twin is not None
    assert twin.moving
    assert not [one for one in twin.moving if one.kind == "codes"]


def test_zeros_of_pruned_weights_stay(ctx: Context, quantized: dict[str, Graph]) -> None:
    graph = quantized["int4"].clone()
    node = next(n for n in graph if n.op == "Conv").inputs[1].producer
    codes = codes_of(node.inputs[0])
    assert codes is not None
    numbers = codes.numbers.copy()
    numbers.reshape(-1)[::2] = 0
    codes.write(numbers)
    Distill(steps=3, rate=3e-2, batch=8, views="none").run(graph, ctx)
    after = codes_of(node.inputs[0])
    assert after is not None
    assert not after.numbers.reshape(-1)[::2].any()


def test_biases_are_on_the_grid_of_their_sums(ctx: Context, quantized: dict[str, Graph]) -> None:
    graph = quantized["int4"].clone()
    Distill(steps=5, rate=3e-3, batch=8, views="none").run(graph, ctx)
    layers = [node for node in graph if node.op == "Conv" and node.input(2) is not None]
    assert layers
    for node in layers:
        source, weight, bias = (v.producer.inputs[1].numpy() for v in node.inputs)
        assert np.array_equal(bias, np.broadcast_to((weight * source).reshape(-1), bias.shape))
        assert node.inputs[2].producer.inputs[0].constant.dtype is DType.INT32


def test_a_rate_that_ruins_a_quantized_student_is_undone(ctx: Context, quantized: dict[str, Graph]) -> None:
    graph = quantized["int8"].clone()
    before = to_bytes(graph)
    report = Distill(steps=8, rate=1.0, batch=8, views="none").run(graph, ctx)
    assert not report.changed
    assert to_bytes(graph) == before


def test_the_same_seed_gives_the_same_codes(ctx: Context, quantized: dict[str, Graph]) -> None:
    graphs = [quantized["int4"].clone() for _ in range(2)]
    for graph in graphs:
        Distill(steps=4, rate=3e-3, batch=8, views="none").run(graph, ctx)
    assert to_bytes(graphs[0]) == to_bytes(graphs[1])


def test_a_report_tells_how_a_training_went_and_what_it_changed() -> None:
    build = optc.compile(
        f"zoo:{NAME}", "quant:weights=int4,distill:steps=40:rate=0.001:batch=16:views=none", threads=1, check=False,
        guard=False, samples=96,
    )  # fmt: skip
    document = json.loads(build.report.to_json())
    (curve,) = (step["curve"] for step in document["passes"] if step["name"] == "distill")
    assert curve[0]["step"] == 0
    assert curve[0]["fit"] is None
    assert curve[-1]["fit"] > 0
    assert curve[-1]["held_out"] > 0
    (event,) = [one for one in events(document, "classifier") if one.spec.startswith("distill")]
    assert event.detail["codes_changed"] >= 0 or event.reason
    assert charts.curve("Training", [(m["step"], m["fit"], m["held_out"]) for m in curve])


def test_activations_of_four_bits_are_simulated_and_learn_their_scales(ctx: Context) -> None:
    graph = _quantized(ctx, "quant:weights=int4:activations=int4")
    cuts = [node for node in graph if node.op == "Clip" and node.output.dtype is DType.UINT8]
    assert len(cuts) >= 5
    assert {int(np.asarray(node.inputs[2].numpy())) for node in cuts} == {15}
    twin = twin_of(graph, saturating=False)
    assert twin is not None
    before = divergence(graph, ctx)
    assert divergence(twin.graph, ctx) == pytest.approx(before, rel=0.3), "the twin rounds as the student does"
    scales = {node: np.asarray(node.inputs[0].producer.inputs[1].numpy()).copy() for node in cuts}
    Distill(steps=16, rate=3e-3, batch=16, views="none").run(graph, ctx)
    assert divergence(graph, ctx) < before
    assert any(not np.array_equal(node.inputs[0].producer.inputs[1].numpy(), scale) for node, scale in scales.items())


def test_the_twin_reads_codes_by_the_scale_that_their_reader_has() -> None:
    """Gates are read from the codes of what they gate, by a sixth of their scale."""
    ctx = context("digits_mobilenet_v3", samples=96, judges=32)
    graph = _quantized(ctx, "quant:slower=int8", "digits_mobilenet_v3")
    assert any(node.op == "Clip" and node.output.dtype is DType.UINT8 for node in graph)
    twin = twin_of(graph, saturating=False)
    assert twin is not None
    feeds = zoo.samples("digits_mobilenet_v3", "test")
    student, answers = (Session(one, threads=1).run(feeds)[0] for one in (graph, twin.graph))
    assert np.square(answers - student).mean() < 0.01 * student.var()
