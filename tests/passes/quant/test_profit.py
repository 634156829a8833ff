"""Layers that do not pay: the cut against every assignment, and what is left float then."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from facts import facts_of
from quantized import quantized

from optc.ir.graph import Graph, Node
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, Outcome
from optc.passes.quant import Quant, profit
from optc.passes.quant.layers import find_layers
from optc.passes.quant.qdq.placement import place
from optc.runtime import latency
from optc.runtime.latency import Latency
from optc.runtime.sources import load_samples


def chain(length: int = 5) -> Graph:
    """Convolutions one after the other, with a second branch from the first to the last."""
    rng = np.random.default_rng(0)
    graph = Graph("chain", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4, 8, 8)))
    first = None
    for i in range(length):
        weight = graph.constant(rng.normal(size=(4, 4, 3, 3)).astype(np.float32) / 6, f"w{i}")
        x = graph.add("Conv", [x, weight], {"pads": [1] * 4}, name=f"conv{i}").output
        first = first or x
    graph.add_output(graph.add("Add", [x, first], name="sum").output, "y", TensorType(DType.FLOAT, ("N", 4, 8, 8)))
    infer(graph)
    return graph


def samples() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(40, 4, 8, 8)).astype(np.float32)}


@pytest.mark.parametrize("seed", range(8))
def test_the_cut_is_the_cheapest_of_all_assignments(seed: int) -> None:
    graph = chain()
    layers, _ = find_layers(graph)
    data = load_samples(samples(), graph)
    ctx = Context(facts_of(), fit=data, held_out=data, threads=1)
    rng = np.random.default_rng(seed)
    floats: dict[Node, float] = {node: 1e-5 * rng.random() for node in layers}
    codes: dict[Node, float] = {node: 1e-5 * rng.random() for node in layers}
    plan = place(graph, layers)
    nodes = list(layers)
    change = profit.CALL + profit.ELEMENT * 4 * 8 * 8

    def cost(integer: tuple[bool, ...]) -> float:
        total = sum(codes[n] if i else floats[n] for n, i in zip(nodes, integer))
        edges = sum(a != b for a, b in itertools.pairwise(integer))
        # The input is encoded, and what the sum reads is decoded, by the first and by the last.
        return total + change * (edges + integer[0] + integer[0] + integer[-1])

    best = min(itertools.product([False, True], repeat=len(nodes)), key=cost)
    slow = profit._cut(graph, plan, floats, codes, next(data.batches(1)), ctx)
    assert cost(tuple(n not in slow for n in nodes)) == pytest.approx(cost(best))


def test_layers_that_do_not_pay_run_in_float_and_are_stored_in_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain()
    monkeypatch.setattr(
        profit, "slower_layers", lambda graph, layers, kept, ctx: {n: "slow" for n in layers if n.name in ("conv0",)}
    )
    report = quantized(graph, samples(), Quant())
    slow = [layer for layer in report.layers if layer.name == "conv0"]
    assert [(layer.outcome, layer.reason, layer.detail) for layer in slow] == [
        (Outcome.SKIPPED, "slow", {"weight_bits": 8})
    ]
    assert report.count(Outcome.DONE) == 4
    conv = next(node for node in graph if node.name == "conv0")
    assert conv.inputs[0] is graph.inputs[0]
    large = {v.constant.dtype for v in graph.constants if v.constant is not None and v.constant.size >= 100}
    assert large <= {DType.INT8, DType.UINT8}


def test_what_is_measured_decides_only_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> dict[Node, str]:
        raise AssertionError("nothing may be measured")

    monkeypatch.setattr(profit, "slower_layers", fail)
    assert quantized(chain(), samples(), Quant(), measurable=False).count(Outcome.DONE) == 5
    assert quantized(chain(), samples(), Quant(slower="int8")).count(Outcome.DONE) == 5


def test_measuring_answers_for_every_layer_that_it_takes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profit, "LEAST", 0.0)
    graph = chain()
    report = quantized(graph, samples(), Quant())
    named = [layer.name for layer in report.layers if layer.op == "Conv" and "island" not in layer.detail]
    assert sorted(named) == [f"conv{i}" for i in range(5)]


def test_who_shares_the_weight_of_a_slow_layer_is_left_float_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain()
    first, last = (next(node for node in graph if node.name == name) for name in ("conv0", "conv4"))
    last.set_input(1, first.inputs[1])
    layers, _ = find_layers(graph)
    data = load_samples(samples(), graph)
    ctx = Context(facts_of(), fit=data, held_out=data, threads=1)
    monkeypatch.setattr(profit, "LEAST", 0.0)
    monkeypatch.setattr(profit, "PAYS", 1e9)
    monkeypatch.setattr(profit, "GAIN", 1e9)
    monkeypatch.setattr(profit, "_cut", lambda graph, *rest: {node for node in graph if node.name == "conv0"})
    monkeypatch.setattr(latency, "latency", lambda *_, **__: (Latency(1.0, 0.5, 0.5, 0.5, 5, 1.0, 1.0),) * 2)
    slow = profit.slower_layers(graph, layers, {}, ctx)
    assert [node.name for node in layers if node in slow] == ["conv0", "conv4"]
