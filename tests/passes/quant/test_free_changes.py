"""Changes that keep the function: means absorbed, factors turned; kept where the quantized model answers better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from facts import facts_of

from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context
from optc.passes.quant import calibrate
from optc.passes.quant.calibrate import Seen
from optc.passes.quant.equivalent.absorb import absorb
from optc.passes.quant.equivalent.rotate import rotate
from optc.passes.quant.layers import find_layers
from optc.passes.quant.trial import Trial
from optc.runtime.session import Session
from optc.runtime.sources import load_samples

FEEDS = {"x": np.random.default_rng(1).normal(size=(24, 6, 5, 5)).astype(np.float32)}
Made = Callable[[Graph, Value], Value]


def network(*ops: Made, classes: int = 4) -> Graph:
    """x [N, 6, 5, 5] through `ops`."""
    graph = Graph("network", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 6, 5, 5)))
    for op in ops:
        x = op(graph, x)
        infer(graph)
    graph.add_output(x, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    return graph


def conv(outputs: int, *, size: int = 1, pad: int = 0, bias: float = 0.0, seed: int = 0, spread: float = 1.0) -> Made:
    """A convolution whose outputs have means of about `bias` times 1, 2, ... and inputs weighed down to `spread`."""

    def convolution(graph: Graph, x: Value) -> Value:
        rng = np.random.default_rng(seed)
        channels = x.shape[1]  # type: ignore[index]
        weight = rng.normal(size=(outputs, channels, size, size)) / np.sqrt(channels * size * size)
        weight *= np.geomspace(1, spread, outputs)[:, None, None, None]
        shift = graph.constant(bias * np.arange(outputs, dtype=np.float32))
        parts = [x, graph.constant(weight.astype(np.float32)), shift]
        return graph.add("Conv", parts, {"pads": [pad] * 4}, name=f"conv{seed}").output

    return convolution


def op(name: str, **attributes: int) -> Made:
    return lambda graph, x: graph.add(name, [x], attributes).output


def gemm(graph: Graph, x: Value) -> Value:
    rng = np.random.default_rng(9)
    weight = rng.normal(size=(int(x.shape[1]), 3)).astype(np.float32)  # type: ignore[arg-type, index]
    return graph.add("Gemm", [x, graph.constant(weight)], name="gemm").output


def twice(graph: Graph, x: Value) -> Value:
    """x and a convolution of it, added."""
    return graph.add("Add", [x, conv(8, bias=-2.0, seed=5)(graph, x)]).output


def context(graph: Graph) -> Context:
    samples = load_samples(FEEDS, graph)
    return Context(facts_of(), fit=samples, held_out=samples, threads=1)


def seen(graph: Graph) -> Seen:
    ctx = context(graph)
    assert ctx.fit is not None
    return Seen(graph, ctx, ctx.fit)


def answers(graph: Graph) -> np.ndarray:
    return np.asarray(Session(graph, threads=1).run(FEEDS)[0])


def absorbed(graph: Graph) -> int:
    want = answers(graph)
    count = absorb(graph, find_layers(graph)[0], seen(graph))
    assert answers(graph) == pytest.approx(want, abs=1e-4 * float(np.abs(want).max()))
    return count


@pytest.mark.parametrize(
    "ops",
    [
        (conv(8, bias=5.0), conv(4, seed=1)),
        (conv(8, bias=5.0), op("Relu"), conv(4, seed=1)),
        (conv(8, bias=5.0), op("Identity"), conv(4, size=3, seed=1)),
        (conv(8, bias=3.0), op("GlobalAveragePool"), op("Flatten", axis=1), gemm),
        (conv(8, size=3, bias=3.0), op("Flatten", axis=1), gemm),
        (conv(8, bias=3.0), twice, conv(4, seed=2)),
    ],
    ids=["direct", "relu", "kernel", "pool", "flatten", "sum"],
)
def test_means_go_where_they_cost_nothing(ops: tuple[Made, ...]) -> None:
    graph = network(*ops)
    assert absorbed(graph) >= 5
    first = next(node for node in graph if node.op == "Conv")
    means = np.asarray(Session(graph, outputs=[first.output], threads=1).run(FEEDS)[0]).mean(axis=(0, 2, 3))
    assert np.abs(means).max() < 5.0


@pytest.mark.parametrize(
    "ops",
    [
        (conv(8, bias=5.0), conv(4, size=3, pad=1, seed=1)),
        (conv(8, bias=5.0), op("Sigmoid"), conv(4, seed=1)),
        (conv(8, bias=-5.0), op("Relu"), conv(4, seed=1)),
        (conv(8, bias=5.0),),
        (conv(8, bias=3.0), twice, op("Relu"), conv(4, size=3, pad=1, seed=2)),
    ],
    ids=["padding", "sigmoid", "below zero", "output", "sum in front of a relu"],
)
def test_means_stay_where_they_are_needed(ops: tuple[Made, ...]) -> None:
    assert absorbed(network(*ops)) == 0


def test_channels_between_factors_are_turned_until_they_are_alike() -> None:
    graph = network(conv(8, spread=0.01, size=3, pad=1), conv(12, seed=1))
    want = answers(graph)
    middle = next(iter(graph)).output

    def spread() -> float:
        power = np.square(np.asarray(Session(graph, outputs=[middle], threads=1).run(FEEDS)[0])).mean(axis=(0, 2, 3))
        return float(power.max() / power.min())

    before = spread()
    assert rotate(find_layers(graph)[0], seen(graph), 0) == 1
    assert answers(graph) == pytest.approx(want, abs=1e-4)
    assert spread() < 0.05 * before


def test_only_factors_with_nothing_in_between_are_turned() -> None:
    graph = network(conv(8), op("Relu"), conv(8, seed=1), twice, conv(4, seed=2))
    assert rotate(find_layers(graph)[0], seen(graph), 0) == 0


def test_channels_that_are_alike_are_not_turned() -> None:
    graph = network(conv(8, size=3, pad=1), conv(12, seed=1))
    first = next(iter(graph))
    middle = np.asarray(Session(graph, outputs=[first.output], threads=1).run(FEEDS)[0])
    weight, bias = (np.asarray(value.numpy()) for value in first.inputs[1:] if value is not None)
    size = np.sqrt(np.square(middle).mean(axis=(0, 2, 3), keepdims=False))
    first.set_input(1, graph.constant(weight / size[:, None, None, None]))
    first.set_input(2, graph.constant(bias / size))
    assert rotate(find_layers(graph)[0], seen(graph), 0) == 0


def test_channels_are_seen_in_one_run_until_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network(conv(8), conv(4, seed=1))
    first, second = (node.output for node in graph)
    runs: list[list[Value]] = []
    measure = calibrate.channel_statistics

    def counted(graph: Graph, axes: dict[Value, int], *rest: Any) -> list[calibrate.Channels]:
        runs.append(list(axes))
        return measure(graph, axes, *rest)

    monkeypatch.setattr(calibrate, "channel_statistics", counted)
    ctx = context(graph)
    assert ctx.fit is not None
    seen = Seen(graph, ctx, ctx.fit, lambda: {second: 1})
    alone = measure(graph, {second: 1}, ctx, "", ctx.fit)[0]
    seen.channels({first: 1})
    assert seen.channels({second: 1})[0].square == pytest.approx(alone.square)
    assert runs == [[second, first]]
    seen.forget()
    seen.channels({first: 1})
    assert len(runs) == 2


@pytest.mark.parametrize("helps", [True, False])
def test_a_change_stays_only_if_the_quantized_model_answers_better(helps: bool) -> None:
    """One channel a thousand times the others: scaling it down in the middle helps, scaling it up does not."""
    graph = network(conv(8, seed=0), conv(4, seed=1))
    first, second = (node for node in graph)
    factor = np.ones(8, np.float32)
    factor[0] = 100.0

    def scale(by: np.ndarray) -> int:
        for node, shape, number in ((first, (8, 1, 1, 1), by), (second, (1, 8, 1, 1), 1 / by)):
            weight = np.asarray(node.inputs[1].numpy(), np.float32)  # type: ignore[union-attr]
            node.set_input(1, graph.constant(weight * number.reshape(shape)))
        return 1

    if helps:
        scale(factor)
    layers = find_layers(graph)[0]
    before = [node.inputs for node in layers]
    trial = Trial(graph, context(graph), {})
    kept = trial.keeps(layers, lambda: scale(1 / factor if helps else factor))
    assert kept == int(helps)
    assert ([node.inputs for node in layers] == before) == (not helps)


def test_what_changes_nothing_is_not_tried() -> None:
    graph = network(conv(8), conv(4, seed=1))
    trial = Trial(graph, context(graph), {})
    assert trial.keeps(find_layers(graph)[0], lambda: 0) == 0
    assert trial._loss is None


@pytest.mark.parametrize(("kind", "wide"), [("Sigmoid", True), ("Softmax", False)])
def test_ranges_are_widened_where_more_than_one_decision_a_sample_is_better_for_it(
    kind: str, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    graph.add_output(graph.add(kind, [x], types=[TensorType(DType.FLOAT, ("N", 4))]).output, "y")
    samples = load_samples({"x": np.zeros((8, 4), np.float32)}, graph)
    trial = Trial(graph, Context(facts_of(), fit=samples, held_out=samples), {})
    monkeypatch.setattr(Trial, "_measured", lambda self, rule="mse": {"mse": 1.0, "minmax": 0.5}[rule])
    assert trial.widest() is wide
    monkeypatch.setattr(Trial, "_measured", lambda self, rule="mse": {"mse": 1.0, "minmax": 0.95}[rule])
    assert not trial.widest()
