"""What distillation is given that it cannot learn from, or not as usual: a sentence each, and no harm."""

from __future__ import annotations

import re

import numpy as np
import pytest
from taught import context, divergence, student

from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, SequenceType, TensorType
from optc.passes.base import Context, Report, TargetFacts
from optc.passes.distill import Distill
from optc.passes.distill import training as course
from optc.passes.distill.training import PATIENCE
from optc.runtime.samples import Feeds
from optc.runtime.sources import load_samples
from optc.runtime.training.trainer import Trainer

FLOAT = DType.FLOAT


def network(middle: str = "Relu", *, tokens: bool = False, sequence: bool = False) -> Graph:
    """Two products with `middle` between them; of rows of a table that `tokens` choose; which answers a `sequence`."""
    rng = np.random.default_rng(0)
    graph = Graph("network", opsets={"": 17})
    if tokens:
        x = graph.add_input("x", TensorType(DType.INT64, ("N", 4)))
        table = graph.constant(rng.normal(size=(9, 8)).astype(np.float32), "table")
        x = graph.add("ReduceMean", [graph.add("Gather", [table, x]).output], {"axes": [1], "keepdims": 0}).output
    else:
        x = graph.add_input("x", TensorType(FLOAT, ("N", 8)))
    first, second = (graph.constant(rng.normal(size=(8, 8)).astype(np.float32), name) for name in ("w", "v"))
    x = graph.add("MatMul", [x, first], name="first").output
    x = graph.add(middle, [x], name="middle").output
    y = graph.add("MatMul", [x, second], name="second").output
    if sequence:
        y = graph.add("SequenceConstruct", [y]).output
        graph.add_output(y, "y", SequenceType(TensorType(FLOAT, ("N", 8))))
    else:
        graph.add_output(y, "y", TensorType(FLOAT, ("N", 8)))
    infer(graph)
    return graph


def taught(teacher: Graph, samples: dict[str, np.ndarray], *, steps: int = 4, batch: int = 32) -> tuple[Report, Graph]:
    """What a student with noise on its weights makes of it."""
    rng = np.random.default_rng(1)
    graph = teacher.clone()
    for value in list(graph.constants):
        if value.name in ("w", "v"):
            weight = np.asarray(value.numpy())
            value.constant = graph.constant(weight + 0.1 * rng.normal(size=weight.shape).astype(np.float32)).constant
    graph.sweep()
    everything = load_samples(samples, teacher)
    fit, judges = everything.split(max(everything.count // 4, 1)) if everything.count > 1 else (everything, everything)
    ctx = Context(TargetFacts("onnx"), teacher=teacher, fit=fit, held_out=judges, threads=1)
    return Distill(steps=steps, rate=1e-2, batch=batch).run(graph, ctx), graph


def numbers(rows: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(2).normal(size=(rows, 8)).astype(np.float32)}


def test_what_lies_before_an_operator_without_a_gradient_is_frozen_and_named() -> None:
    teacher = network("Shrink")
    report, _ = taught(teacher, numbers(16))
    assert any("Shrink 'middle'" in note and "64 parameters before it are frozen" in note for note in report.notes)
    assert any(layer.name == "second" and layer.detail for layer in report.layers)


def test_where_nothing_has_a_gradient_it_says_so() -> None:
    teacher = network("Shrink")
    end = teacher.outputs[0].value
    teacher.set_output(0, teacher.add("Shrink", [end], name="end", types=[end.type]).output)
    report, _ = taught(teacher, numbers(16))
    assert not report.changed
    assert any("nothing is learnt" in note and "Shrink 'end'" in note for note in report.notes)


def test_sequences_are_not_learned_from() -> None:
    report, _ = taught(network(sequence=True), numbers(16))
    assert not report.changed
    assert report.notes == ["nothing is learnt: no output of the model is one that says how far off it is"]


def test_integer_inputs_are_learned_from() -> None:
    tokens = {"x": np.random.default_rng(0).integers(0, 9, (16, 4))}
    report, _ = taught(network(tokens=True), tokens, steps=12)
    assert report.changed
    assert any("views: none" in note for note in report.notes)


def test_fewer_samples_than_a_batch() -> None:
    report, _ = taught(network(), numbers(3), batch=64)
    assert any("steps of 2 samples" in note for note in report.notes)


def test_a_teacher_without_answers_is_said() -> None:
    teacher = network("Log")
    report, graph = taught(teacher, numbers(16))
    assert not report.changed
    assert report.notes == ["nothing is learnt: the model's own answers to the samples hold NaN or infinity"]
    assert all(np.isfinite(np.asarray(value.numpy())).all() for value in graph.constants)


def test_a_student_that_is_no_better_stays_and_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "step", lambda trainer, feeds: 1.0)
    report, _ = taught(network(), numbers(16))
    assert not report.changed
    assert any("stays: the student was no better after 4 steps of" in note for note in report.notes)


@pytest.fixture(scope="module")
def ctx() -> Context:
    return context(samples=80, judges=24)


def test_a_loss_that_is_no_number_is_taken_back_and_given_up(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = student()
    before = divergence(graph, ctx)
    taken = iter(range(10**6))
    step = Trainer.step

    def broken(self: Trainer, feeds: Feeds) -> float:
        return step(self, feeds) if next(taken) < 8 else float("nan")

    monkeypatch.setattr(Trainer, "step", broken)
    report = Distill(steps=80, rate=1e-2, batch=8, views="none").run(graph, ctx)
    said = " ".join(report.notes)
    assert f"the loss was no number: taken back {PATIENCE + 1} times, to a lower rate each time" in said
    assert "given up, and the best so far is kept" in said
    assert divergence(graph, ctx) < before
    assert all(moment.fit is None for moment in report.curve[-PATIENCE:])


def test_the_provider_that_is_asked_for_trains(ctx: Context) -> None:
    graphs = [student(), student()]
    for graph, name in zip(graphs, ("cpu", "CPUExecutionProvider")):
        ctx.provider = name
        Distill(steps=2, rate=1e-3, views="none").run(graph, ctx)
    assert to_bytes(graphs[0]) == to_bytes(graphs[1])


def test_a_rate_raised_in_vain_falls_towards_that_of_the_trials(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "WARMEST", 3.0)
    monkeypatch.setattr(course, "WARMER", 1000)
    report = Distill(steps=80, batch=8, views="none", stage="whole").run(student(), ctx)
    said = " ".join(report.notes)
    assert "taken back 1 times, to a lower rate" in said, said
    rate = float(re.search(r"at rate ([\d.e-]+)", said)[1])  # type: ignore[index]
    raised = [5 * tried for tried in course.RATES]  # the way is five times a trial
    assert any(rate == pytest.approx(one / course.LOWERED, rel=1e-3) for one in raised)
