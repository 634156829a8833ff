"""What the student is to make small: how far its answers, and what lies before them, are from the teacher's.

    decisions between classes   T^2 KL(softmax(t / T) || softmax(s / T)), a row (Hinton et al. 2015, "Distilling the
                                knowledge in a neural network", section 2)
    yes or no                   the same of two classes, an element
    values, and hints           (t - s)^2 over the variance of t, a channel (Romero et al. 2015, "FitNets"), in the last
                                feature map (Wang et al. 2022, "Practical network acceleration with tiny sets") and
                                behind each block: a thinned ResNet-20 came from a KL of .413 to .327 in 200 steps with
                                the former alone, and to .314 with all

The loss is a graph: it is appended to the student, and what the teacher answers are further inputs of it. Logits are
compared before a Softmax or Sigmoid that makes the output of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph, Value
from ...ir.ops import VIEWS
from ...ir.types import DType, TensorType
from ...runtime.kinds import Kind, output_axis, output_kind
from ...runtime.training import losses
from .cuts import landmarks

Measure: TypeAlias = Literal["classes", "yes or no", "values"]
Floats = NDArray[np.float32]

LEAST_VARIANCE = 1e-2
"""A channel of less variance than this share of the mean counts as one that has it."""


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One value of the student beside one of the teacher. `axis` is that of classes or channels; `weight` scales the
    term; a `hint` is no output."""

    student: Value
    teacher: Value
    measure: Measure
    axis: int
    weight: float = 1.0
    hint: bool = False


def output_terms(student: Graph, teacher: Graph) -> list[Term]:
    """A term for each float output, by position. Discrete outputs and those that are matched by rows have none."""
    terms = []
    for mine, theirs in zip(student.outputs, teacher.outputs, strict=True):
        kind = output_kind(theirs.value)
        if theirs.value.dtype is not DType.FLOAT or mine.value.dtype is not DType.FLOAT or kind is Kind.ROWS:
            continue
        axis = output_axis(theirs.value)
        if kind in (Kind.PROBABILITIES, Kind.LOGITS) and _classes(mine.value, axis):
            ends = _before(mine.value, ("Softmax", "LogSoftmax")), _before(theirs.value, ("Softmax", "LogSoftmax"))
            terms.append(Term(*ends, "classes", axis))
        elif kind is Kind.DECISIONS:
            terms.append(Term(_before(mine.value, ("Sigmoid",)), _before(theirs.value, ("Sigmoid",)), "yes or no", -1))
        else:
            terms.append(Term(mine.value, theirs.value, "values", channel_axis(theirs.value)))
    return terms


def hint_terms(student: Graph, teacher: Graph, weight: float, *, behind_blocks: bool = True) -> list[Term]:
    """The last feature map before a global pooling or flattening that both have, in one shape; and, `behind_blocks`,
    what both have on the way to it, through which everything flows."""
    pairs = landmarks(student, teacher) if behind_blocks else []
    for mine, theirs in zip(student.outputs, teacher.outputs, strict=True):
        one, other = _feature_map(mine.value), _feature_map(theirs.value)
        if one is not None and other is not None and one.shape is not None and one.shape[1:] == (other.shape or ())[1:]:
            pairs.append((one, other))
            break
    return [Term(one, other, "values", channel_axis(other), weight, hint=True) for one, other in dict(pairs).items()]


def append_loss(graph: Graph, terms: Sequence[Term], variances: Mapping[Term, Floats], temperature: float) -> Value:
    """The scalar loss of `terms`, whose student values are those of `graph`.

    The teacher's value of term number i is the new input `teacher.i`. `variances` are those of the values of each term
    of the measure "values", a channel.
    """
    parts = []
    for number, term in enumerate(terms):
        answer = graph.add_input(f"teacher.{number}", TensorType(DType.FLOAT, term.teacher.shape))
        match term.measure:
            case "classes":
                loss = losses.divergence(graph, term.student, answer, temperature)
            case "yes or no":
                loss = losses.binary_divergence(graph, term.student, answer, temperature)
            case "values":
                scale = graph.constant(_scale(term, variances[term]))
                both = (graph.add("Mul", [value, scale]).output for value in (term.student, answer))
                loss = losses.squared_error(graph, *both)
        parts.append((term.weight, loss))
    return losses.weighted(graph, *parts)


def drop_loss(graph: Graph) -> None:
    """Take the loss and its inputs off the graph again."""
    graph.sweep()
    for index in reversed(range(len(graph.inputs))):
        if graph.inputs[index].name.startswith("teacher.") and not graph.inputs[index].uses:
            graph.remove_input(index)


def least_variance(variance: Floats) -> Floats:
    """`variance` where it is not too small to divide by; a single sample varies in nothing."""
    return np.asarray(np.maximum(variance, LEAST_VARIANCE * float(variance.mean()) or 1.0), np.float32)


def _scale(term: Term, variance: Floats) -> Floats:
    """One over the deviation of each channel, in a shape that broadcasts against the values."""
    scale = 1.0 / np.sqrt(least_variance(variance))
    rank = len(term.teacher.shape or ())
    if scale.size > 1:
        scale = scale.reshape([-1 if axis == term.axis % rank else 1 for axis in range(rank)])
    return np.asarray(scale, np.float32)


def variance_of(term: Term, rows: Sequence[Floats]) -> Floats:
    """The variance of the teacher's value of `term` from some batches of it, a channel (or of all, where the term has
    no channels of known number)."""
    shape = term.teacher.shape or ()
    axis = term.axis % len(shape) if shape else 0
    if not shape or not isinstance(shape[axis], int):
        return np.asarray([np.concatenate([x.reshape(-1) for x in rows]).var()], np.float32)
    flat = np.concatenate([np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]) for x in rows])
    return np.asarray(flat.var(axis=0, dtype=np.float64), np.float32)


def _classes(value: Value, axis: int) -> int:
    """How many classes there are; 0 where that is not known, or the axis is not the last and may mean several."""
    shape = value.shape
    if not shape or axis not in (-1, len(shape) - 1) or not isinstance(shape[-1], int):
        return 0
    return shape[-1]


def channel_axis(value: Value) -> int:
    """The axis along which the channels of `value` lie: that of images, or the last."""
    return 1 if value.shape is not None and len(value.shape) > 2 else -1


def _before(value: Value, ops: Sequence[str]) -> Value:
    """What the operator of `ops` reads that makes `value`; `value` itself where another one makes it."""
    node = value.producer
    if node is not None and node.op in ops and not node.domain and node.inputs[0] is not None:
        source = node.inputs[0]
        return source if source.shape == value.shape else value
    return value


_POOLS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "AveragePool")


def _feature_map(value: Value) -> Value | None:
    """The map that the last global pooling before `value` reads."""
    at: Value | None = value
    while at is not None and at.producer is not None:
        node = at.producer
        if node.op in _POOLS:
            source = node.inputs[0]
            return source if source is not None and source.dtype is DType.FLOAT else None
        if node.op not in {*VIEWS, "Gemm", "MatMul", "Conv", "Add", "Softmax", "Identity", "Dropout", "Cast", "Relu"}:
            return None
        at = next((v for v in node.inputs if v is not None and v.constant is None), None)
    return None
