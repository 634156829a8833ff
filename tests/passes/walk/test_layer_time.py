"""Timing a layer against another form of it: what is cut out, what is asked once, and what a slower form leads to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, Outcome, TargetFacts
from optc.passes.depthwise import Depthwise
from optc.passes.svd import Svd
from optc.passes.walk import layer_time as alone
from optc.passes.walk.walk import Step, walk
from optc.runtime.session import Session
from optc.runtime.sources import load_samples

T = TypeVar("T")


def net() -> Graph:
    """Two like layers of rank 3 that are separable too, behind a stem; then a product with a bias."""
    rng = np.random.default_rng(0)
    thin = np.einsum("nr,rc,rk->nck", rng.normal(size=(16, 3)), rng.normal(size=(3, 16)), rng.normal(size=(3, 9)))
    graph = Graph("net", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 8, 8)))
    for name, weight in (("stem", rng.normal(size=(16, 8, 9))), ("a", thin), ("b", thin)):
        data = (weight / np.linalg.norm(weight) * 4.0).astype(np.float32).reshape(*weight.shape[:2], 3, 3)
        inputs = [value, graph.constant(data), graph.constant(np.full(16, 0.1, dtype=np.float32))]
        conv = graph.add("Conv", inputs, {"pads": [1] * 4}, outputs=[name], name=name).output
        value = graph.add("Relu", [conv], outputs=[f"{name}.relu"]).output
    flat = graph.add("Flatten", [graph.add("GlobalAveragePool", [value]).output]).output
    product = graph.add("MatMul", [flat, graph.constant(rng.normal(size=(16, 5)).astype(np.float32))], name="head")
    shift = graph.constant(rng.normal(size=5).astype(np.float32))
    graph.add_output(graph.add("Add", [product.output, shift]).output, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    return graph


def context(graph: Graph, *, measurable: bool = True) -> Context:
    data = np.random.default_rng(1).normal(size=(40, 8, 8, 8)).astype(np.float32)
    facts = TargetFacts("onnx", measurable=measurable)
    return Context(facts, fit=load_samples({"x": data}, graph), threads=1)


def test_what_is_cut_out_answers_as_the_layer_does() -> None:
    graph = net()
    ctx = context(graph)
    seen = []
    for step in walk(graph, ctx):
        part, layer = alone._cut_out(step)
        assert step.input[0] == 1
        x = np.random.default_rng(2).normal(size=step.input).astype(np.float32)
        (got,) = Session(part, threads=1).run({"x": x})
        answer = np.einsum("nd,pd->pn", layer.weights()[0], layer.inputs(x, np.arange(got[0, 0].size), got.shape))
        bias = layer.bias()
        assert bias is not None
        wanted = (answer + bias).T.reshape(got.shape) if layer.is_conv else answer + bias
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
        seen.append(layer.op)
    assert seen == ["Conv", "Conv", "Conv", "MatMul"]


@pytest.mark.parametrize("one", [Svd(error=0.01, align=1), Depthwise(error=0.01)])
def test_a_form_that_runs_longer_is_not_taken(one: Svd | Depthwise, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "_measured", lambda *arguments: 1.2)
    graph = net()
    report = one.run(graph, context(graph))
    assert not report.changed
    assert [x.reason for x in report.layers if "1.20 times as long" in x.reason]


@pytest.mark.parametrize("one", [Svd(error=0.01, align=1), Depthwise(error=0.01)])
def test_layers_alike_are_measured_once_and_told(one: Svd | Depthwise, monkeypatch: pytest.MonkeyPatch) -> None:
    questions: list[str] = []
    answers: dict[str, str] = {}

    def recall(question: str, decide: Callable[[], str], read: Callable[[str], T]) -> T:
        questions.append(question)
        return read(answers.setdefault(question, decide()))

    monkeypatch.setattr(alone, "_measured", lambda *arguments: 0.5)
    graph = net()
    ctx = context(graph)
    ctx.recall = recall
    done = [x for x in one.run(graph, ctx).layers if x.outcome is Outcome.DONE]
    assert {x.name for x in done} >= {"a", "b"}
    assert all(x.detail["time"] == 0.5 for x in done)
    if isinstance(one, Svd):
        convolutions = [question for question in questions if "Conv" in question]
        assert len(convolutions) >= 2
        assert len(set(convolutions)) == 1


def test_nothing_is_measured_for_another_machine_or_where_the_amount_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(step: Step, ctx: Context, apply: object) -> float:
        raise AssertionError("measured")

    monkeypatch.setattr(alone, "_measured", fail)
    graph = net()
    assert Svd(error=0.01, align=1).run(graph, context(graph, measurable=False)).changed
    for one_pass in (Svd(ratio=0.5, align=1), Depthwise(rank=3)):
        graph = net()
        assert one_pass.run(graph, context(graph)).changed


def test_forms_are_really_timed() -> None:
    """Which is faster is the machine's to say; that both run, and give a ratio, is ours."""
    graph = net()
    report = Svd(error=0.01, align=1).run(graph, context(graph))
    layers = [x for x in report.layers if x.name in ("a", "b")]
    assert layers
    assert all("time" in x.detail or "times as long" in x.reason for x in layers)
