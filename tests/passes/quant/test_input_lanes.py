"""Channels of zeros behind those of an image: the same function, for its kernel, and where it may not be."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from facts import facts_of
from quantized import quantized, runtime_ops
from walked import Net

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.verify.verify import verify
from optc.passes.base import Context
from optc.passes.quant import profit
from optc.passes.quant.equivalent.input_lanes import fill_inputs
from optc.passes.quant.layers import find_layers
from optc.passes.quant.quant import Quant
from optc.runtime.session import Session

COLOURS = 3


def network(*, size: int = 28, outputs: int = 16, kernel: int = 3, readers: int = 1, before: str = "") -> Graph:
    """Convolutions of an image, added, and a large layer behind them; `before` names what comes first."""
    net = Net(channels=COLOURS, size=size)
    x = net.x
    match before:
        case "shift":
            x = net.add("Mul", x, net.graph.constant(np.full((1, COLOURS, 1, 1), 0.5, np.float32)))
        case "layer":
            x = net.conv(x, COLOURS, COLOURS, 1)
        case "transpose":  # rows and columns; as that of images whose channels come last
            x = net.add("Transpose", x, perm=[0, 1, 3, 2])
    y = net.conv(x, outputs, COLOURS, kernel, strides=[2, 2])
    for _ in range(readers - 1):
        y = net.add("Add", y, net.conv(x, outputs, COLOURS, kernel, strides=[2, 2]))
    y = net.add("Relu", y)
    infer(net.graph)
    return net.done(net.conv(net.conv(y, 512, outputs, 3), 64, 512, 3))


def samples(count: int = 24, size: int = 28) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(count, COLOURS, size, size)).astype(np.float32)}


def filled(graph: Graph, lanes: int = 4) -> int:
    count = fill_inputs(graph, find_layers(graph)[0], lanes)
    infer(graph, fresh=True)
    verify(graph)
    return count


@pytest.mark.parametrize(("readers", "first"), [(1, ""), (2, ""), (1, "shift")])
def test_filling_changes_no_answer(readers: int, first: str) -> None:
    graph = network(readers=readers, before=first)
    before = Session(graph, threads=1).run(samples(4))[0]
    assert filled(graph) == readers
    assert [node.op for node in graph].count("Pad") == 1
    assert all(layer.channels % 4 == 0 for layer in find_layers(graph)[0].values())
    np.testing.assert_allclose(Session(graph, threads=1).run(samples(4))[0], before, atol=1e-5)
    assert not filled(graph)


@pytest.mark.parametrize(
    "why",
    [{"size": 24}, {"outputs": 8}, {"outputs": 18}, {"kernel": 7}, {"before": "layer"}, {"before": "transpose"}],
    ids=str,
)
def test_what_the_kernel_would_not_gain_by_stays(why: dict[str, int | str]) -> None:
    assert filled(network(**why)) == 0  # type: ignore[arg-type]


def test_what_would_add_much_stays() -> None:
    net = Net(channels=COLOURS, size=28)
    assert filled(net.done(net.conv(net.x, 16, COLOURS))) == 0


def test_codes_are_filled_not_floats(tmp_path: Path) -> None:
    answers = []
    for lanes in (4, 1):
        graph = network()
        report = quantized(graph, samples(), input_lanes=lanes)
        assert any("channels of zeros" in note for note in report.notes) is (lanes == 4)
        pads = [node for node in graph if node.op == "Pad"]
        assert [node.inputs[0].producer.op for node in pads] == ["QuantizeLinear"] * (lanes == 4)  # type: ignore[union-attr]
        ops = runtime_ops(graph, tmp_path)
        assert (ops["QLinearConv"], ops["Conv"]) == (3, 0)
        answers.append(Session(graph, threads=1).run(samples())[0])
    step = np.diff(np.unique(answers[0])).min()  # the answer is on a grid
    assert np.abs(answers[0] - answers[1]).max() <= 1.01 * step


@pytest.mark.parametrize("activations", ["int16", "int4"])
def test_other_codes_than_those_of_eight_bits_are_not_moved(activations: Literal["int16", "int4"]) -> None:
    graph = network()
    quantized(graph, samples(), Quant(activations=activations, slower="int8"), input_lanes=4)
    assert all(node.op != "Pad" for node in graph)
    Session(graph, threads=1).run(samples(2))


def test_layers_are_timed_in_float_as_they_were() -> None:
    graph = network()
    before = str(graph)
    trial, twins = profit._trial(graph, {}, Context(facts_of(input_lanes=4), threads=1))
    assert [node.op for node in trial].count("Pad") == 1
    assert str(graph) == before
    assert all(twins[node] in trial for node in graph if node.op == "Conv")


def test_images_of_bytes_are_filled_with_the_code_of_zero() -> None:
    graph = network()
    images = np.random.default_rng(2).integers(0, 256, (24, COLOURS, 28, 28)).astype(np.float32)
    scale = np.asarray([0.017, 0.018, 0.019], np.float32).reshape(1, 3, 1, 1)
    data = {"x": (images - 120.0) * scale}
    floats = Session(graph, threads=1).run(data)[0]
    report = quantized(graph, data, input_lanes=4)
    assert any("channels of zeros" in note for note in report.notes)
    error = Session(graph, threads=1).run(data)[0] - floats
    assert 10 * np.log10(floats.var() / error.var()) > 35
