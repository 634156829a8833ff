"""Agreement: figures against their definitions, and what each kind of output is taken for."""

from __future__ import annotations

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, Shape, TensorType
from optc.runtime.agreement import agreement
from optc.runtime.kinds import Kind, output_axis, output_kind
from optc.runtime.sources import load_samples
from optc.runtime.sums import CEILING_DB, OutputAgreement, Sums

RNG = np.random.default_rng(0)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def measured(kind: Kind, teacher: np.ndarray, student: np.ndarray, parts: int = 3) -> OutputAgreement:
    sums = Sums("out", kind)
    for t, s in zip(np.array_split(teacher, parts), np.array_split(student, parts), strict=True):
        sums.add(t, s)
    return sums.result()


def test_logits_by_definition() -> None:
    t = RNG.standard_normal((50, 7)).astype(np.float32)
    s = t + 0.5 * RNG.standard_normal((50, 7)).astype(np.float32)
    agreed = measured(Kind.LOGITS, t, s)
    p, q = softmax(t.astype(np.float64)), softmax(s.astype(np.float64))
    assert agreed.kl == pytest.approx((p * np.log(p / q)).sum(1).mean())
    assert agreed.top1 == (t.argmax(1) == s.argmax(1)).mean() == agreed.share
    assert agreed.sqnr_db == pytest.approx(10 * np.log10((t**2.0).sum() / ((t - s) ** 2.0).sum()), rel=1e-5)
    assert agreed.cosine == pytest.approx((t * s).sum() / np.linalg.norm(t) / np.linalg.norm(s), rel=1e-5)
    probabilities = measured(Kind.PROBABILITIES, p, q)
    assert probabilities.kl == pytest.approx(agreed.kl)
    assert probabilities.top1 == agreed.top1
    assert probabilities.expected == pytest.approx(agreed.expected)
    assert agreed.expected is not None
    assert agreed.expected < 1


def test_decisions_are_judged_at_one_half() -> None:
    t, s = np.array([0.9, 0.2, 0.6, 0.4]), np.array([0.8, 0.7, 0.55, 0.1])
    agreed = measured(Kind.DECISIONS, t, s, 1)
    assert agreed.top1 == 0.75
    assert agreed.kl == pytest.approx((t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s))).mean())


def test_many_decisions_a_sample_are_judged_beyond_chance() -> None:
    t = np.zeros((20, 100, 2))
    t[..., 0] = 1
    t[:, :2] = (0, 1)  # two places of a hundred are not background
    blind = np.zeros_like(t)
    blind[..., 0] = 1
    agreed = measured(Kind.PROBABILITIES, t, blind)
    assert agreed.top1 == pytest.approx(0.98)
    assert agreed.share == agreed.kappa == pytest.approx(0)
    half = t.copy()
    half[:, 1] = (1, 0)
    chance = 0.02 * 0.01 + 0.98 * 0.99
    assert measured(Kind.PROBABILITIES, t, half).kappa == pytest.approx((0.99 - chance) / (1 - chance))
    yes, yes_half = t[..., 1], half[..., 1]  # the same as yes-or-no
    assert measured(Kind.DECISIONS, yes, yes_half).kappa == pytest.approx((0.99 - chance) / (1 - chance))
    assert measured(Kind.PROBABILITIES, t, t).share == 1
    assert measured(Kind.LOGITS, t[:, 0], blind[:, 0]).kappa is None  # one decision a sample


def test_equal_outputs_agree_wholly() -> None:
    t = RNG.standard_normal((6, 3))
    for kind in (Kind.LOGITS, Kind.VALUES, Kind.DECISIONS):
        agreed = measured(kind, t, t)
        assert agreed.sqnr_db == CEILING_DB
        assert agreed.share == pytest.approx(1)
        assert agreed.kl in (None, 0.0)
    assert np.isnan(measured(Kind.VALUES, 0 * t, 0 * t).share)  # nothing was compared
    assert measured(Kind.VALUES, 0 * t, t).sqnr_db == -CEILING_DB


def test_discrete_outputs_count_equal_elements() -> None:
    agreed = measured(Kind.DISCRETE, np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4]), 2)
    assert (agreed.equal, agreed.sqnr_db, agreed.share) == (0.75, None, 0.75)
    assert measured(Kind.DISCRETE, np.array([1, 2]), np.array([1, 2, 3]), 1).equal == 0


def test_nan_counts_as_zero_and_is_counted() -> None:
    t = np.array([[1.0, 2.0], [3.0, 1.0]])
    s = np.array([[1.0, np.nan], [3.0, np.inf]])
    agreed = measured(Kind.LOGITS, t, s, 1)
    assert agreed.broken == 2
    assert agreed.sqnr_db == pytest.approx(10 * np.log10(15 / 5))
    assert agreed.top1 == 0.5
    assert np.isfinite(agreed.kl)
    masked = np.array([[-np.inf, 1.0]])
    assert measured(Kind.VALUES, masked, masked, 1).broken == 0


def test_another_shape_is_no_answer() -> None:
    agreed = measured(Kind.VALUES, np.ones((2, 3)), np.ones((2, 4)), 1)
    assert agreed.broken == 6
    assert agreed.sqnr_db == 0


def ending(*ops: str, shape: Shape, dtype: DType = DType.FLOAT, opset: int = 17, **attributes: int) -> Graph:
    graph = Graph("g", opsets={"": opset})
    value = graph.add_input("x", TensorType(dtype, shape))
    for op in ops:
        other = [graph.constant(np.ones((4, 4), np.float32))] if op in ("MatMul", "Add", "Conv", "Div") else []
        last = attributes if op == ops[-1] else {}
        value = graph.add(op, [value, *other], last, types=[TensorType(dtype, shape)]).output
    graph.add_output(value, "y")
    return graph


@pytest.mark.parametrize(
    ("ops", "shape", "kind"),
    [
        (["MatMul", "Add"], ("N", 4), Kind.LOGITS),
        (["MatMul"], ("N", "T", 4), Kind.LOGITS),
        (["MatMul"], ("N", 1), Kind.VALUES),
        (["Conv", "Relu", "GlobalAveragePool", "Flatten"], ("N", 4), Kind.LOGITS),
        (["Conv"], ("N", 4, 8, 8), Kind.VALUES),
        (["MatMul", "Softmax"], ("N", 4), Kind.PROBABILITIES),
        (["MatMul", "Softmax", "Reshape"], ("N", 4), Kind.PROBABILITIES),
        (["MatMul", "Softmax", "Transpose"], ("N", 4, 9), Kind.PROBABILITIES),
        (["MatMul", "Sigmoid", "Transpose"], ("N", 4, 9), Kind.DECISIONS),
        (["MatMul", "Transpose"], ("N", 4, 9), Kind.VALUES),
        (["MatMul", "LogSoftmax"], ("N", 4), Kind.LOGITS),
        (["MatMul", "Sigmoid"], ("N", 1), Kind.DECISIONS),
        (["MatMul", "Div"], ("N", 4), Kind.VALUES),
        (["Concat"], ("N", 9, 4), Kind.VALUES),
        ([], ("N", 4), Kind.VALUES),
    ],
)
def test_kind_follows_from_the_graph(ops: list[str], shape: Shape, kind: Kind) -> None:
    assert output_kind(ending(*ops, shape=shape).outputs[0].value) is kind


def test_integers_are_discrete_and_softmax_names_its_axis() -> None:
    assert output_kind(ending(shape=("N",), dtype=DType.INT64).outputs[0].value) is Kind.DISCRETE
    assert output_axis(ending("Softmax", shape=("N", 4, 9), axis=1).outputs[0].value) == 1
    for op in ("Cast", "Identity", "Dropout", "DequantizeLinear", "Reshape"):  # the last may move the axis elsewhere
        graph = ending("Softmax", op, shape=("N", 4, 9))
        next(iter(graph)).set_attribute("axis", 1)
        assert output_axis(graph.outputs[0].value) == (-1 if op == "Reshape" else 1)
    assert output_axis(ending("Softmax", shape=("N", 4), axis=1, opset=11).outputs[0].value) == -1


@pytest.mark.parametrize(
    ("axis", "orders", "expected"),
    [(1, [[0, 2, 1]], 2), (-1, [[0, 2, 1]], 1), (1, [[1, 2, 0], [2, 1, 0]], 2), (2, [[]], 0)],
)
def test_classes_are_where_a_transpose_puts_them(axis: int, orders: list[list[int]], expected: int) -> None:
    graph = Graph("g", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4, 9)))
    value = graph.add("Softmax", [value], {"axis": axis}, types=[value.type]).output
    for order in orders:
        value = graph.add("Transpose", [value], {"perm": order} if order else {}).output
    infer(graph)
    graph.add_output(value, "y")
    assert output_axis(value) == expected


@pytest.mark.parametrize("ways", ["Div", "Mul", "another sum", "two axes", "no exponential"])
def test_a_softmax_that_is_spelled_out(ways: str) -> None:
    graph = Graph("g", opsets={"": 13})
    scores = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4, 9)))
    top = graph.add("Sqrt" if ways == "no exponential" else "Exp", [scores]).output
    axes = graph.constant(np.asarray([1, 2] if ways == "two axes" else [1]))
    total = graph.add("ReduceSum", [scores if ways == "another sum" else top, axes], {"keepdims": 0}).output
    total = graph.add("Reshape", [total, graph.constant(np.asarray([0, 1, 9]))]).output
    total = graph.add("Expand", [total, graph.constant(np.asarray([1, 4, 9]))]).output
    inverse = graph.add("Reciprocal", [total]).output
    shares = graph.add("Mul", [inverse, top]) if ways == "Mul" else graph.add("Div", [top, total])
    shares.output.type = TensorType(DType.FLOAT, ("N", 4, 9))
    graph.add_output(shares.output, "y")
    spelled = ways in ("Div", "Mul")
    assert output_kind(shares.output) is (Kind.PROBABILITIES if spelled else Kind.VALUES)
    assert output_axis(shares.output) == (1 if spelled else -1)


def test_whole_graphs_over_samples_in_batches() -> None:
    teacher = ending("MatMul", shape=("N", 4))
    student = teacher.clone()
    (node,) = student
    node.set_input(1, student.constant(np.diag([1, 1, 1, 0]).astype(np.float32)))
    data = RNG.standard_normal((10, 4)).astype(np.float32)
    samples = load_samples(data, teacher)
    t, s = data @ np.ones((4, 4)), data * [1, 1, 1, 0]
    for batch in (3, 10):
        agreed = agreement(teacher, student, samples, batch=batch, threads=1)
        assert agreed.samples == 10
        assert agreed.sqnr_db == pytest.approx(10 * np.log10((t**2).sum() / ((t - s) ** 2).sum()), abs=1e-3)
    same = agreement(teacher, teacher, samples, threads=1)
    assert (same.share, same.top1, same.kl, same.sqnr_db) == (1, 1, 0, CEILING_DB)


def test_what_the_teacher_holds_for_a_tie_is_no_disagreement() -> None:
    """A row whose two largest numbers are a hundredth apart decides nothing between the two; all else counts."""
    teacher = np.array([[1.0, 1.01, -3.0], [1.0, 1.01, -3.0], [1.0, 1.5, -3.0]])
    student = np.array([[1.02, 1.0, -3.0], [0.0, 0.1, 2.0], [1.5, 1.0, -3.0]])
    sums = Sums("y", Kind.LOGITS)
    sums.add(teacher, student)
    assert sums.result().top1 == pytest.approx(1 / 3)
    sums = Sums("y", Kind.PROBABILITIES)
    sums.add(*(np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (teacher, student)))
    assert sums.result().top1 == pytest.approx(1 / 3)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_number_a_sample_is_judged_by_its_spread(shape: tuple[int, ...]) -> None:
    """Scores that all lie about 3.5 are nearly parallel to anything that does: the cosine hears the mean alone."""
    random = np.random.default_rng(1)
    teacher = 3.5 + 0.2 * random.standard_normal(200)
    student = teacher + 0.07 * random.standard_normal(200)
    sums = Sums("score", Kind.VALUES)
    for t, s in zip(teacher, student, strict=True):
        sums.add(np.full(shape, t), np.full(shape, s))
    result = sums.result()
    assert result.cosine is not None
    assert result.cosine > 0.999
    assert result.share == pytest.approx(np.corrcoef(teacher, student)[0, 1], abs=1e-6)
