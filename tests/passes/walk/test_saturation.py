"""What a saturating activation forgives: each round lowers the error behind it, and only where it can."""

from __future__ import annotations

import numpy as np
import pytest

from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, TargetFacts
from optc.passes.prune import Prune
from optc.passes.svd.channel import channel_split
from optc.passes.walk import saturation as module
from optc.passes.walk.moments import Moments
from optc.passes.walk.saturation import ROWS, SPACE, Range, Saturation, eased, range_after, rows_to_keep
from optc.passes.walk.target import LayerTarget, fit_target
from optc.runtime.sources import load_samples


def problem(low: float, high: float) -> tuple[Saturation, LayerTarget]:
    """A layer of 6 outputs and 20 inputs with a summand of its own, and its target."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 20)) @ rng.normal(size=(20, 20)) / 4.0 + 0.3).astype(np.float32)
    weight = rng.normal(size=(6, 20)) / 4.0
    other = rng.normal(size=(4000, 6)).astype(np.float32) * 0.5
    own = (x @ weight.T - 0.4).astype(np.float32)
    moments = Moments(1, 20, 6)
    moments.add(x, own)
    return Saturation(Range(low, high), 1, lambda _: (x, own + other, other)), fit_target(
        weight[None], moments.statistics()
    )


def shown(saturation: Saturation, target: LayerTarget, weight: np.ndarray) -> float:
    """The mean squared error behind the activation."""
    x, a, other = saturation.read(0)
    assert other is not None
    y = x @ weight.reshape(target.weight.shape)[0].T + target.bias(weight) + other
    low, high = saturation.range.low, saturation.range.high
    return float(np.mean((np.clip(a, low, high) - np.clip(y, low, high)) ** 2))


@pytest.mark.parametrize(("low", "high"), [(0.0, np.inf), (0.0, 0.8), (-np.inf, 0.5)])
def test_a_split_fitted_to_eased_targets_shows_less_error(low: float, high: float) -> None:
    saturation, start = problem(low, high)

    def fitted(target: LayerTarget) -> np.ndarray:
        a, b = channel_split(target.weight[0], target.hessian[0]).factors(2)
        return a @ b

    plain = fitted(start)
    form, target = eased(saturation, start, plain, lambda one: one, lambda target, _: fitted(target))
    assert shown(saturation, target, form) < 0.985 * shown(saturation, start, plain)


def test_rounds_never_raise_the_bound() -> None:
    saturation, start = problem(0.0, np.inf)
    x, a, other = saturation.read(0)
    assert other is not None
    weight, target, last = start.weight * 0.5, start, np.inf
    for _ in range(6):
        y = x @ weight[0].T + target.bias(weight) + other
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
    form, target = eased(None, start, 3, lambda one: start.weight, lambda target, one: one + 1)
    assert form == 3
    assert target is start


def after(op: str, *inputs: float | None, **attributes: float) -> tuple[Graph, Value]:
    graph = Graph("one", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    value = graph.add("Neg", [x]).output
    bounds = [None if i is None else graph.constant(np.float32(i), "bound") for i in inputs]
    graph.add_output(graph.add(op, [value, *bounds], attributes).output, "y")
    return graph, value


def test_ranges() -> None:
    for bounds, expected in (
        (after("Relu"), Range(0.0, np.inf)),
        (after("Clip", 0.0, 6.0), Range(0.0, 6.0)),
        (after("Clip", None, 6.0), Range(-np.inf, 6.0)),
        (after("Clip", min=-1.0, max=1.0), Range(-1.0, 1.0)),
        (after("Sigmoid"), None),
    ):
        assert range_after(bounds[1]) == expected


def test_no_range_where_another_node_reads_the_value() -> None:
    graph, value = after("Relu")
    graph.add_output(graph.add("Abs", [value]).output, "z")
    assert range_after(value) is None


def test_rows_fit_on_disk_and_are_four_an_input() -> None:
    assert rows_to_keep(144, 16) == ROWS
    kept = rows_to_keep(4608, 512)
    assert 4 * 4608 <= kept < ROWS
    assert kept * 4 * (4608 + 1024) <= SPACE
    assert rows_to_keep(6000, 2048) == 0


def pruned(one: Prune) -> list[np.ndarray]:
    """The weights of a stem and two layers, each before a Relu, after pruning."""
    rng = np.random.default_rng(0)
    graph = Graph("net", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 6, 6)))
    for name in ("stem", "a", "b"):
        inputs = [graph.constant((rng.normal(size=shape) / 6.0).astype(np.float32)) for shape in ((8, 8, 3, 3), (8,))]
        conv = graph.add("Conv", [value, *inputs], {"pads": [1] * 4}, outputs=[name], name=name).output
        value = graph.add("Relu", [conv]).output
    graph.add_output(value, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    # Channels alike, so that the inputs that stay have something to make up for.
    data = (rng.normal(size=(32, 1, 6, 6)) + 0.5 * rng.normal(size=(32, 8, 6, 6))).astype(np.float32)
    one.run(graph, Context(TargetFacts("onnx"), fit=load_samples({"x": data}, graph), threads=1))
    return [node.inputs[1].numpy() for node in graph if node.op == "Conv"]  # type: ignore[union-attr]


@pytest.mark.parametrize(("one", "same"), [(Prune(kind="nm"), True), (Prune(ratio=0.5), False)])
def test_groups_are_fitted_without_easing(one: Prune, same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = pruned(one)
    assert all(np.mean(weight == 0.0) == 0.5 for weight in kept[1:])
    monkeypatch.setattr(module, "ROUNDS", 0)
    assert all(np.array_equal(a, b) for a, b in zip(kept, pruned(one), strict=True)) is same


def test_easing_that_does_not_hold_elsewhere_is_left_out() -> None:
    """What four of five batches teach is wrong for the fifth, which the layer answers exactly."""
    saturation, start = problem(0.0, np.inf)
    x, _, _ = saturation.read(0)
    exact = (x @ start.weight[0].T + start.bias(start.weight)).astype(np.float32)
    batches = [(x[i::5], exact[i::5] if i == 4 else np.full_like(exact[i::5], -5.0), None) for i in range(5)]
    torn = Saturation(saturation.range, 5, lambda batch: batches[batch])
    assert not np.allclose(torn.ease(start, start.weight, start).weight, start.weight, atol=0.01)
    form, target = eased(torn, start, start.weight, lambda one: one, lambda target, _: target.weight)
    assert target is start
    assert form is start.weight
