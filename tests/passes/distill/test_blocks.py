"""Blocks that learn by themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from taught import context, divergence, hurt

from optc.compiler import read
from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.tensor import ArrayTensor
from optc.passes.base import Context, Outcome
from optc.passes.distill import Distill, cuts
from optc.passes.distill.blocks import STEPS
from optc.passes.distill.cuts import FED, LAYERS_EACH, blocks, landmarks, part
from optc.passes.distill.parameters import parameters
from optc.runtime.session import Session

NAME = "digits_resnet"


def network() -> Graph:
    graph = read(f"zoo:{NAME}")
    infer(graph)
    return graph


def student() -> Graph:
    return hurt(network())


@pytest.fixture(scope="module")
def ctx() -> Context:
    return context(NAME, 128, 32)


def test_blocks_follow_one_another_and_hold_every_parameter() -> None:
    graph = network()
    moving = {one.value for one in parameters(graph)}
    parts = blocks(graph, network(), moving)
    assert len(parts) > 2
    assert [one.end for one in parts[:-1]] == [one.begin for one in parts[1:]]
    assert {value for one in parts for value in one.moving} == moving
    layers = [sum(v.users[0].op in ("Conv", "Gemm") and len(v.constant.shape) > 1 for v in one.moving) for one in parts]
    assert min(layers[:-1]) >= LAYERS_EACH


def test_values_of_other_shapes_end_no_block() -> None:
    teacher, graph = network(), network()
    cut = blocks(graph, teacher, {one.value for one in parameters(graph)})[0].end
    assert cut.shape is not None
    teacher_value = next(v for node in teacher for v in node.outputs if v.name == cut.name)
    teacher_value.name = "another"
    assert all(one.end is not cut for one in blocks(graph, teacher, {one.value for one in parameters(graph)}))


def test_landmarks_are_maps_that_both_have_some_layers_apart() -> None:
    graph, teacher = network(), network()
    marks = landmarks(graph, teacher)
    assert len(marks) > 3
    assert all(mine.name == theirs.name and mine.shape == theirs.shape for mine, theirs in marks)
    order = {value: place for place, value in enumerate(v for node in graph for v in node.outputs)}
    assert [mine for mine, _ in marks] == sorted((mine for mine, _ in marks), key=order.__getitem__)
    marks[1][1].name = "another"
    left = {mine.name for mine, _ in landmarks(graph, teacher)}
    assert marks[1][0].name not in left
    assert marks[0][0].name in left


def test_landmarks_are_no_larger_than_what_is_worth_comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = max(math.prod(mine.shape[1:]) for mine, _ in landmarks(network(), network()))
    monkeypatch.setattr(cuts, "LARGEST", largest - 1)
    sizes = [math.prod(mine.shape[1:]) for mine, _ in landmarks(network(), network())]
    assert sizes
    assert max(sizes) < largest


def test_a_part_computes_what_the_graph_computes_there(ctx: Context) -> None:
    graph = network()
    block = blocks(graph, network(), {one.value for one in parameters(graph)})[1]
    assert ctx.held_out is not None
    begin, end = Session(graph, outputs=[block.begin, block.end], threads=1).run(next(ctx.held_out.batches(8)))
    (answer,) = Session(part(graph, block.begin, block.end)[0], threads=1).run({FED: begin})
    np.testing.assert_allclose(answer, end, rtol=1e-5, atol=1e-5)


def test_blocks_by_themselves_bring_the_student_nearer(ctx: Context) -> None:
    graph = student()
    before = divergence(graph, ctx)
    report = Distill(steps=30, stage="blocks", rate=3e-3).run(graph, ctx)
    assert divergence(graph, ctx) < 0.7 * before
    assert any("blocks learnt by themselves" in note for note in report.notes)
    assert {layer.outcome for layer in report.layers} == {Outcome.DONE}
    assert [value.name for value in graph.inputs] == ["input"]


def test_blocks_that_do_not_help_stay_as_they_were(ctx: Context) -> None:
    graph = network()
    value = next(one.value for one in parameters(graph) if one.kind == "weight")
    weight = np.asarray(value.numpy()) * np.float32(1.001)
    value.constant = ArrayTensor(weight)
    before = divergence(graph, ctx)
    Distill(steps=STEPS, stage="blocks", rate=1.0).run(graph, ctx)
    assert divergence(graph, ctx) <= before


def test_the_same_seed_gives_the_same_bytes(ctx: Context) -> None:
    texts = []
    for _ in range(2):
        graph = student()
        Distill(steps=STEPS, stage="blocks", rate=3e-3).run(graph, ctx)
        texts.append(to_bytes(graph))
    assert texts[0] == texts[1]


def test_too_few_steps_leave_blocks_alone(ctx: Context) -> None:
    report = Distill(steps=STEPS - 1, stage="blocks", rate=3e-3).run(student(), ctx)
    assert not report.changed
