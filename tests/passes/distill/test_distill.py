"""Distillation end to end, on small networks that passes have hurt."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from taught import NAME, context, divergence, student

import optc
from optc.compiler import read
from optc.errors import DataError
from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.tensor import ArrayTensor, SparseTensor
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, Outcome, Override, TargetFacts
from optc.passes.distill import Distill
from optc.passes.distill.blocks import BlockStage
from optc.passes.prune.storage import sparse
from optc.runtime.agreement import agreement
from optc.runtime.sources import load_samples
from optc.runtime.training.trainer import Trainer


@pytest.fixture
def ctx() -> Context:
    return context()


def test_the_student_comes_nearer_to_its_teacher(ctx: Context) -> None:
    graph = student()
    before = divergence(graph, ctx)
    report = Distill(steps=30).run(graph, ctx)
    assert divergence(graph, ctx) < 0.5 * before
    assert all(layer.outcome is Outcome.DONE and layer.detail["change"] for layer in report.layers)
    assert any("held-out loss" in note for note in report.notes)
    assert [value.name for value in graph.inputs] == ["input"]


def random_weights(graph: Graph) -> Graph:
    """The network as it is before anybody trained it (He et al. 2015), a hundred times too small."""
    rng = np.random.default_rng(1)
    for node in graph:
        if node.op not in ("Conv", "Gemm"):
            continue
        for value in node.inputs[1:]:
            shape = value.constant.shape
            deviation = 0.01 * np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.0
            value.constant = ArrayTensor(rng.normal(0, deviation, shape).astype(np.float32))
    return graph


def test_a_student_of_random_weights_learns(ctx: Context) -> None:
    graph = random_weights(student())
    before = divergence(graph, ctx)
    report = Distill(steps=60, batch=16, hints=0.0).run(graph, ctx)
    assert divergence(graph, ctx) < 0.85 * before, report.notes
    assert any("knew nothing" in note for note in report.notes)


def test_trials_leave_most_of_few_steps(ctx: Context) -> None:
    ctx.recall = lambda question, decide, read: read("20" if question.startswith("steps in") else decide())
    report = Distill(minutes=1.0, stage="whole").run(student(), ctx)
    assert 12 <= report.curve[-1].step <= 16, "a trial of two steps, and what three to five of them leave of twenty"


def test_what_comes_before_the_steps_takes_of_the_minutes(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that took all of them leave one step, as there must be some."""
    monkeypatch.setattr(BlockStage, "run", lambda *_: time.sleep(0.3) or (0, 0))
    answers = {}

    def recall(question: str, decide: Callable[[], str], read: Callable[[str], Any]) -> Any:
        answers[question] = decide()
        return read(answers[question])

    ctx.recall = recall
    Distill(minutes=0.005).run(student(), ctx)
    assert answers["steps in 0.005 minutes"] == "1"


def test_steps_are_timed_for_long_enough_to_see_a_machine_that_is_busy(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second twenty steps take ten times as long: what the first ten took would let the minutes be overrun."""
    now, steps = [0.0], [0]
    step = Trainer.step

    def busy(self: Trainer, feeds: Any) -> float:
        steps[0] += 1
        now[0] += 0.01 if steps[0] // 20 % 2 == 0 else 0.1
        return step(self, feeds)

    monkeypatch.setattr(Trainer, "step", busy)
    monkeypatch.setattr("optc.passes.distill.end_to_end.time", SimpleNamespace(perf_counter=lambda: now[0]))
    answers = {}

    def recall(question: str, decide: Callable[[], str], read: Callable[[str], Any]) -> Any:
        answers[question] = decide()
        return read("1" if question.startswith("steps in") else answers[question])

    ctx.recall = recall
    Distill(minutes=2.0, stage="whole", rate=1e-3).run(student(), ctx)
    assert 1500 <= int(answers["steps in 2 minutes"]) <= 3000, "120 seconds of .055 on average"


def test_the_same_seed_gives_the_same_bytes(ctx: Context) -> None:
    graphs = [student(), student()]
    for graph in graphs:
        Distill(steps=5, rate=1e-3).run(graph, ctx)
    assert optc.ir.onnx.writer.to_bytes(graphs[0]) == optc.ir.onnx.writer.to_bytes(graphs[1])


def test_zeros_stay_zeros(ctx: Context) -> None:
    graph = student(zeros=0.5)
    zero = {v.name: np.asarray(v.numpy()) == 0 for v in graph.constants if len(v.constant.shape) > 1}
    Distill(steps=5, rate=1e-3).run(graph, ctx)
    for value in graph.constants:
        if value.name in zero:
            assert np.array_equal(np.asarray(value.numpy()) == 0, zero[value.name]), value.name


def test_what_is_stored_sparse_stays_so(ctx: Context) -> None:
    graph = student(zeros=0.9)
    stored = [v for v in graph.constants if len(v.constant.shape) > 1 and sparse(v.constant) is not None]
    for value in stored:
        value.constant = sparse(value.constant)
    Distill(steps=2, rate=1e-3).run(graph, ctx)
    assert stored
    assert all(isinstance(value.constant, SparseTensor) for value in stored)


def test_a_rate_that_ruins_the_student_is_undone(ctx: Context) -> None:
    graph = student(share=0.02)
    text = str(graph)
    before = divergence(graph, ctx)
    report = Distill(steps=10, rate=1.0).run(graph, ctx)
    assert divergence(graph, ctx) <= before
    if str(graph) == text:
        assert not report.changed


def test_layers_that_the_user_keeps_do_not_move(ctx: Context) -> None:
    graph = student()
    kept = next(node for node in graph if node.op == "Conv")
    weight = np.asarray(kept.inputs[1].numpy()).copy()
    ctx.overrides = (Override(match=kept.name, keep=True),)
    report = Distill(steps=3, rate=1e-3).run(graph, ctx)
    assert any("at rate 0.001 " in note for note in report.notes)
    assert np.array_equal(np.asarray(kept.inputs[1].numpy()), weight)
    assert next(layer for layer in report.layers if layer.name == kept.name).outcome is Outcome.SKIPPED


def test_only_what_is_asked_for_moves(ctx: Context) -> None:
    graph = student()
    weights = {v.name: np.asarray(v.numpy()).copy() for v in graph.constants if len(v.constant.shape) > 1}
    Distill(steps=5, rate=1e-2, parameters="bias").run(graph, ctx)
    assert all(np.array_equal(np.asarray(v.numpy()), weights[v.name]) for v in graph.constants if v.name in weights)


def test_an_equal_student_is_left_alone(ctx: Context) -> None:
    graph = read(f"zoo:{NAME}")
    infer(graph)
    report = Distill(steps=3).run(graph, ctx)
    assert not report.changed
    assert "nothing is left to learn" in " ".join(report.notes)


def test_without_parameters_there_is_nothing_to_learn() -> None:
    graph = Graph("plain", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8)))
    graph.add_output(graph.add("Relu", [x]).output, "y", TensorType(DType.FLOAT, ("N", 8)))
    infer(graph)
    fit, held_out = load_samples({"x": np.ones((4, 8), np.float32)}, graph).split(2)
    ctx = Context(TargetFacts("onnx"), teacher=graph.clone(), fit=fit, held_out=held_out)
    report = Distill(steps=1).run(graph, ctx)
    assert report.notes == ["nothing is learnt: the model has no parameters that may move"]


def test_samples_are_wanted() -> None:
    with pytest.raises(DataError, match="needs samples"):
        Distill().requires(read(f"zoo:{NAME}"), Context(TargetFacts("onnx")))


def test_one_sample_is_enough_to_run_on(ctx: Context) -> None:
    assert ctx.fit is not None
    ctx.fit = ctx.held_out = ctx.fit.take(1)
    graph = student()
    before = divergence(graph, ctx)
    Distill(steps=3).run(graph, ctx)
    assert divergence(graph, ctx) <= before


def test_a_state_may_count_samples_along_another_axis() -> None:
    graph = Graph("stateful", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    state = graph.add_input("state", TensorType(DType.FLOAT, (2, "N", 4)))
    rng = np.random.default_rng(0)
    weight = graph.constant(rng.normal(size=(4, 4)).astype(np.float32), "weight")
    seen = graph.add("Tanh", [graph.add("MatMul", [x, weight]).output]).output
    graph.add_output(seen, "y", TensorType(DType.FLOAT, ("N", 4)))
    graph.add_output(graph.add("Add", [state, seen]).output, "next", TensorType(DType.FLOAT, (2, "N", 4)))
    infer(graph)
    teacher = graph.clone()
    weight.constant = ArrayTensor(np.asarray(weight.numpy()) + rng.normal(0, 0.3, (4, 4)).astype(np.float32))
    feeds = {"x": rng.normal(size=(48, 4)).astype(np.float32), "state": np.zeros((2, 48, 4), np.float32)}
    samples = load_samples(feeds, graph)
    assert samples.axes == {"x": 0, "state": 1}
    fit, held_out = samples.split(16)
    ctx = Context(TargetFacts("onnx"), teacher=teacher, fit=fit, held_out=held_out, threads=1)
    before = sum(output.loss for output in agreement(teacher, graph, held_out, threads=1).outputs)
    Distill(steps=40, rate=1e-2, batch=8).run(graph, ctx)
    assert sum(output.loss for output in agreement(teacher, graph, held_out, threads=1).outputs) < before


def test_a_pipeline_with_it_agrees_better_than_without() -> None:
    pruned = "prune:kind=channels:ratio=0.6:scope=layer"
    losses = []
    for passes in (pruned, f"{pruned},distill:steps=100"):
        seen = optc.compile(f"zoo:{NAME}", passes, threads=1).report.agreement
        assert seen is not None
        assert seen.kl is not None
        losses.append(seen.kl)
    assert losses[1] < 0.8 * losses[0]
