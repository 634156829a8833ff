"""Depthwise channels filled up to whole vectors: the same function, and where it may not be."""

from __future__ import annotations

import numpy as np
import pytest
from quantized import quantized
from walked import Net

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.verify.verify import verify
from optc.passes.quant.equivalent import lanes
from optc.passes.quant.equivalent.lanes import fill_lanes
from optc.passes.quant.layers import find_layers
from optc.runtime.session import Session

CHANNELS = 40


def network() -> Net:
    return Net(channels=64, size=8)


def gated(*, concat: bool = False, constant: bool = False, output: bool = False) -> Graph:
    """Expanded, hard-swished, depthwise, gated; with what forbids it."""
    net = network()
    graph = net.graph
    x = graph.add("HardSigmoid", [net.conv(net.conv(net.x, 512, 64, 1), CHANNELS, 512, 1)]).output
    if constant:
        x = graph.add("Mul", [x, graph.constant(np.ones((CHANNELS, 1, 1), np.float32))]).output
    y = graph.add("Relu", [net.conv(x, CHANNELS, 1, group=CHANNELS)]).output
    factors = net.conv(graph.add("GlobalAveragePool", [y]).output, 8, CHANNELS, 1)
    y = graph.add("Mul", [y, graph.add("Sigmoid", [net.conv(factors, CHANNELS, 8, 1)]).output]).output
    infer(graph)
    if output:
        graph.add_output(y, "also")
    if concat:
        y = graph.add("Concat", [y, x], {"axis": 1}).output
        infer(graph)
    return net.done(net.conv(y, 512, CHANNELS * (1 + concat), 1))


@pytest.fixture
def small_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here all layers are small, and the channels are a large share of them."""
    monkeypatch.setattr(lanes, "GROWTH", 1.0)


def samples(count: int = 40) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(count, 64, 8, 8)).astype(np.float32)}


def filled(graph: Graph, at_a_time: int = 16) -> int:
    count = fill_lanes(graph, find_layers(graph)[0], at_a_time)
    infer(graph, fresh=True)
    verify(graph)
    return count


@pytest.mark.usefixtures("small_growth")
def test_filling_changes_no_answer() -> None:
    graph = gated()
    before = Session(graph, threads=1).run(samples(4))[0]
    assert filled(graph) == 1
    depthwise = next(node for node in graph if node.get_int("group", 1) > 1)
    assert depthwise.get_int("group") == 48
    assert depthwise.inputs[1].static_shape == (48, 1, 3, 3)  # type: ignore[union-attr]
    np.testing.assert_allclose(Session(graph, threads=1).run(samples(4))[0], before, atol=1e-5)
    assert not filled(graph)


@pytest.mark.usefixtures("small_growth")
def test_few_channels_are_not_multiplied() -> None:
    assert filled(gated(), at_a_time=64) == 0


@pytest.mark.usefixtures("small_growth")
@pytest.mark.parametrize("why", ["concat", "constant", "output"])
def test_channels_that_others_count_stay(why: str) -> None:
    graph = gated(**{why: True})
    assert filled(graph) == 0


def test_what_would_add_much_stays() -> None:
    net = network()
    x = net.conv(net.x, CHANNELS, 64, 1)
    graph = net.done(net.conv(net.conv(x, CHANNELS, 1, group=CHANNELS), 512, CHANNELS, 1))
    assert filled(graph) == 0
    assert filled(gated(), at_a_time=1) == 0


@pytest.mark.usefixtures("small_growth")
def test_a_quantized_network_is_filled_where_its_kernels_ask_for_it() -> None:
    for at_a_time, channels in ((16, 48), (1, CHANNELS)):
        graph = gated()
        floats = Session(graph, threads=1).run(samples())[0]
        report = quantized(graph, samples(), depthwise_lanes=at_a_time)
        assert any("filled up 1 depthwise" in note for note in report.notes) is (at_a_time > 1)
        assert any(node.get_int("group", 1) == channels for node in graph)
        error = Session(graph, threads=1).run(samples())[0] - floats
        assert 10 * np.log10(floats.var() / error.var()) > 30
