"""What a saturating activation forgives: each round lowers the error behind it, and only where it can."""

from __future__ import annotations

import numpy as np
import pytest

from optc.ir.graph import Graph, Value
from optc.ir.types import DType, TensorType
from optc.passes.regression import Target, fit_target
from optc.passes.saturation import MEMORY, ROWS, Range, Saturation, eased, range_after, rows_to_keep
from optc.passes.svd.channel import channel_split
from optc.runtime.moments import Moments


def problem(low: float, high: float) -> tuple[Saturation, Target]:
    """A layer of 6 outputs and 20 inputs with a summand of its own, and its target."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 20)) @ rng.normal(size=(20, 20)) / 4.0 + 0.3).astype(np.float32)
    weight = rng.normal(size=(6, 20)) / 4.0
    other = rng.normal(size=(4000, 6)).astype(np.float32) * 0.5
    own = (x @ weight.T - 0.4).astype(np.float32)
    moments = Moments(1, 20, 6)
    moments.add(x, own)
    return Saturation(Range(low, high), x, own + other, other), fit_target(weight[None], moments.statistics())


def shown(saturation: Saturation, target: Target, weight: np.ndarray) -> float:
    """The mean squared error behind the activation."""
    y = saturation.inputs @ weight.reshape(target.weight.shape)[0].T + target.bias(weight) + saturation.other
    low, high = saturation.range.low, saturation.range.high
    return float(np.mean((np.clip(saturation.teacher, low, high) - np.clip(y, low, high)) ** 2))


@pytest.mark.parametrize(("low", "high"), [(0.0, np.inf), (0.0, 0.8), (-np.inf, 0.5)])
def test_a_split_fitted_to_eased_targets_shows_less_error(low: float, high: float) -> None:
    saturation, start = problem(low, high)

    def fitted(target: Target) -> np.ndarray:
        a, b = channel_split(target.weight[0], target.hessian[0]).factors(2)
        return a @ b

    plain = fitted(start)
    made, target = eased(saturation, start, plain, lambda one: one, lambda target, _: fitted(target))
    assert shown(saturation, target, made) < 0.985 * shown(saturation, start, plain)


def test_rounds_never_raise_the_bound() -> None:
    saturation, start = problem(0.0, np.inf)
    weight, target, last = start.weight * 0.5, start, np.inf
    for _ in range(6):
        y = saturation.inputs @ weight[0].T + target.bias(weight) + saturation.other
        a = saturation.teacher
        bound = float(np.mean(np.where(a > 0, (a - y) ** 2, np.maximum(y, 0) ** 2)))
        assert bound <= last * (1 + 1e-6)
        last = bound
        target = saturation.ease(target, weight, start)
        weight = target.weight  # the structure is all weights: the bound's own minimum


def test_an_activation_that_never_saturates_changes_nothing() -> None:
    saturation, start = problem(-1e6, 1e6)
    target = saturation.ease(start, start.weight * 0.7, start)
    np.testing.assert_array_equal(target.weight, start.weight)
    np.testing.assert_array_equal(target.target_mean, start.target_mean)


def test_without_rows_the_fit_stays() -> None:
    _, start = problem(0.0, np.inf)
    made, target = eased(None, start, 3, lambda one: start.weight, lambda target, one: one + 1)
    assert made == 3
    assert target is start


def after(op: str, *inputs: float | None, **attributes: float) -> tuple[Graph, Value]:
    graph = Graph("one", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    value = graph.add("Neg", [x]).output
    bounds = [None if i is None else graph.constant(np.float32(i), "bound") for i in inputs]
    graph.add_output(graph.add(op, [value, *bounds], attributes).output, "y")
    return graph, value


def test_ranges() -> None:
    for found, expected in (
        (after("Relu"), Range(0.0, np.inf)),
        (after("Clip", 0.0, 6.0), Range(0.0, 6.0)),
        (after("Clip", None, 6.0), Range(-np.inf, 6.0)),
        (after("Clip", min=-1.0, max=1.0), Range(-1.0, 1.0)),
        (after("Sigmoid"), None),
    ):
        assert range_after(found[1]) == expected


def test_no_range_where_another_node_reads_the_value() -> None:
    graph, value = after("Relu")
    graph.add_output(graph.add("Abs", [value]).output, "z")
    assert range_after(value) is None


def test_rows_fit_into_memory_and_are_four_an_input() -> None:
    assert rows_to_keep(144, 16) == ROWS
    kept = rows_to_keep(1800, 200)
    assert 4 * 1800 <= kept < ROWS
    assert kept * 4 * (1800 + 400) <= MEMORY
    assert rows_to_keep(4608, 512) == 0
