"""Losses as nodes of the graph, each a scalar: the mean over the samples of a batch."""

from __future__ import annotations

import numpy as np

from ...ir.graph import Graph, Value


def _scalar(graph: Graph, number: float) -> Value:
    return graph.constant(np.array(number, np.float32))


def _mean(graph: Graph, value: Value) -> Value:
    return graph.add("ReduceMean", [value], {"keepdims": 0}).output


def divergence(graph: Graph, logits: Value, teacher: Value, temperature: float = 1.0) -> Value:
    """KL(teacher || student) of distributions over the last axis, in nats, times the square of the temperature.

    `logits` and `teacher` are logits of one shape, softened by `temperature` (Hinton et al. 2015). The mean is over all
    axes but the last.
    """
    soft = _scalar(graph, 1.0 / temperature)
    student, target = (graph.add("Mul", [value, soft]).output for value in (logits, teacher))
    log_q = graph.add("LogSoftmax", [student], {"axis": -1}).output
    log_p = graph.add("LogSoftmax", [target], {"axis": -1}).output
    p = graph.add("Softmax", [target], {"axis": -1}).output
    difference = graph.add("Sub", [log_p, log_q]).output
    inner = graph.add("Mul", [p, difference]).output
    axes = graph.constant(np.array([-1], np.int64))
    each = graph.add("ReduceSum", [inner, axes], {"keepdims": 0}).output
    return graph.add("Mul", [_mean(graph, each), _scalar(graph, temperature**2)]).output


def binary_divergence(graph: Graph, logits: Value, teacher: Value, temperature: float = 1.0) -> Value:
    """KL(teacher || student) of a yes or no in each element, in nats, times the square of the temperature.

    `logits` and `teacher` are what a sigmoid reads. By log sigmoid(x) = -softplus(-x), p log(p / q) is
    p (softplus(-s) - softplus(-t)), and that of the no has the signs turned. The mean is over all elements.
    """
    soft = _scalar(graph, 1.0 / temperature)
    s, t = (graph.add("Mul", [value, soft]).output for value in (logits, teacher))
    p = graph.add("Sigmoid", [t]).output
    not_p = graph.add("Sigmoid", [graph.add("Neg", [t]).output]).output
    parts = []
    for share, sign in ((p, "Neg"), (not_p, "Identity")):
        ends = (graph.add("Softplus", [graph.add(sign, [value]).output]).output for value in (s, t))
        parts.append(graph.add("Mul", [share, graph.add("Sub", list(ends)).output]).output)
    both = graph.add("Add", parts).output
    return graph.add("Mul", [_mean(graph, both), _scalar(graph, temperature**2)]).output


def squared_error(graph: Graph, answer: Value, teacher: Value, scale: Value | float = 1.0) -> Value:
    """The mean squared difference of two values of one shape, over `scale`: the teacher's own mean square, say."""
    difference = graph.add("Sub", [answer, teacher]).output
    error = _mean(graph, graph.add("Mul", [difference, difference]).output)
    if isinstance(scale, Value):
        return graph.add("Div", [error, scale]).output
    return error if scale == 1.0 else graph.add("Mul", [error, _scalar(graph, 1.0 / scale)]).output


def weighted(graph: Graph, *terms: tuple[float, Value]) -> Value:
    """The sum of losses, each times its weight."""
    parts = [
        value if weight == 1.0 else graph.add("Mul", [value, _scalar(graph, weight)]).output for weight, value in terms
    ]
    return parts[0] if len(parts) == 1 else graph.add("Sum", parts).output
