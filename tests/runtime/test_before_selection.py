"""Outputs that a selection orders are judged by what it selects from, where both graphs hold that, else row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest
from quantized import quantized

from optc.ir.attributes import Attribute
from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.quant import Quant
from optc.runtime.agreement import agreement
from optc.runtime.before_selection import as_table
from optc.runtime.kinds import Kind
from optc.runtime.samples import Samples
from optc.runtime.session import Session
from optc.runtime.sources import load_samples
from optc.runtime.sums import OutputAgreement, Sums

ANCHORS, CLASSES = 80, 3


def detector(
    shift: float = 0.0, size: float = 1.0, swap: bool = False, noise: float = 0.0, prefix: str = "", low: float = 0.0
) -> Graph:
    """x -> boxes and scores of 80 anchors -> the 5 of the largest score, with their boxes and classes."""
    rng = np.random.default_rng(0)
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, ANCHORS, 8)))
    weight = rng.standard_normal((8, 4 + CLASSES)).astype(np.float32)
    weight = weight + noise * np.random.default_rng(1).standard_normal(weight.shape).astype(np.float32)
    if swap:
        weight[:, 4:6] = weight[:, 4:6][:, ::-1].copy()
    both = graph.add("MatMul", [x, graph.constant(weight)], outputs=[prefix + "both"]).output
    parts = graph.add(
        "Split",
        [both, graph.constant(np.array([4, CLASSES]))],
        {"axis": Attribute.of(2)},
        outputs=[prefix + "pixels", prefix + "logits"],
    )
    pixels = graph.add("Mul", [parts.outputs[0], graph.constant(np.float32(30))]).output
    boxes = graph.add("Add", [pixels, graph.constant(np.float32(150 + shift))], outputs=[prefix + "boxes"]).output
    logits = graph.add("Add", [parts.outputs[1], graph.constant(np.float32(low))]).output
    scores = graph.add("Sigmoid", [logits]).output
    scores = graph.add("Mul", [scores, graph.constant(np.float32(size))], outputs=[prefix + "scores"]).output
    axis = {"axes": Attribute.of([2]), "keepdims": Attribute.of(0)}
    best = graph.add("ReduceMax", [scores], axis, outputs=[prefix + "best"]).output
    kind = graph.add("ArgMax", [scores], {"axis": Attribute.of(2), "keepdims": Attribute.of(0)}).output
    top, at = graph.add("TopK", [best, graph.constant(np.array([5]))], outputs=["top", "at"]).outputs
    graph.add_output(top, "score")
    flat = graph.add("Squeeze", [at, graph.constant(np.array([0]))]).output
    graph.add_output(graph.add("Gather", [boxes, flat], {"axis": Attribute.of(1)}).output, "box")
    graph.add_output(graph.add("Gather", [kind, flat], {"axis": Attribute.of(1)}).output, "class")
    infer(graph)
    return graph


def images(graph: Graph, count: int = 24) -> Samples:
    return load_samples(feeds(count), graph)


def feeds(count: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(5).standard_normal((count, ANCHORS, 8)).astype(np.float32)}


def judged(student: Graph, teacher: Graph | None = None) -> tuple[OutputAgreement, ...]:
    teacher = teacher or detector()
    return agreement(teacher, student, images(teacher), threads=1).outputs


def test_the_values_before_are_judged_and_named() -> None:
    (score, box, _) = judged(detector(noise=1e-3))
    assert score.kind is box.kind is Kind.BEFORE
    assert score.share > 0.99
    assert score.measure.endswith("before the selection")
    assert not score.matched


@pytest.mark.parametrize("change", [{"shift": 25.0}, {"size": 0.5}, {"swap": True}, {"noise": 1.0}])
def test_what_the_rows_would_show_the_values_show(change: dict[str, float]) -> None:
    assert judged(detector(**change))[0].share < 0.9  # type: ignore[arg-type]


def test_a_step_that_a_small_change_makes_is_none_before() -> None:
    """Of 80 scores near each other, noise picks others; the scores themselves are nearly the same."""
    teacher, student = detector(), detector(noise=0.02)
    matched = agreement(teacher, Session(student, threads=1), images(teacher), threads=1).outputs[0]
    assert matched.kind is Kind.ROWS
    assert judged(student)[0].share > matched.share


def test_boxes_are_judged_where_there_is_a_score() -> None:
    """The student is off by pixels where nothing is found, and by little where something is."""
    rng = np.random.default_rng(0)
    scores = np.where(rng.random((6, 1, 400, 2)) < 0.02, 0.9, 0.01)
    boxes = rng.uniform(0, 300, (6, 1, 400, 4))
    scored = scores.max(-1, keepdims=True) > 0.5
    shares = []
    for off in (~scored, scored):
        total = Sums("y", Kind.VALUES)
        for one, other, here in zip(boxes, scores, off, strict=True):
            moved = one + 80 * rng.standard_normal(one.shape) * here
            tables = as_table([one, other[:, :, 0]]), as_table([moved, other[:, :, 0]])
            assert tables[0] is not None
            assert tables[0].shape == (1, 400, 5)
            total.add(tables[0], tables[1])  # type: ignore[arg-type]
        shares.append(total.result().worst or 0.0)
    assert shares[0] > 0.99 > 0.95 > shares[1]
    assert as_table([boxes[0]]) is None
    assert as_table([boxes[0], scores[0, :, :7]]) is None


def test_rows_are_matched_where_the_student_lacks_the_values() -> None:
    assert {one.kind for one in judged(detector(prefix="other_"))} == {Kind.ROWS}


def test_scores_that_nobody_reaches_are_no_figure_of_their_own() -> None:
    """No score of the teacher's is above a tenth: the values before cannot be judged, so the rows are."""
    outputs = judged(detector(low=-30.0), detector(low=-30.0))
    assert all(not math.isnan(one.share) for one in outputs)


def test_a_quantized_graph_is_judged_so() -> None:
    student = detector()
    quantized(student, feeds(24), Quant(slower="int8"))
    assert judged(student)[0].kind is Kind.BEFORE
    assert judged(student)[0].share > 0.9
