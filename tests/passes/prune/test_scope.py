"""A ratio of channels is spread over the model, unless a layer has one of its own."""

from __future__ import annotations

import numpy as np

from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, Override, TargetFacts
from optc.passes.prune import Prune
from optc.runtime.sources import load_samples


def uneven() -> Graph:
    """Two hidden layers: of the first's 16 channels 12 are copies of others, the second's are all different."""
    rng = np.random.default_rng(0)
    graph = Graph("uneven", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8)))
    first = np.tile(rng.standard_normal((8, 4)), (1, 4))
    for number, weight in enumerate((first, rng.standard_normal((16, 16)), rng.standard_normal((16, 4)))):
        constants = [graph.constant(np.asarray(a, np.float32)) for a in (weight, np.zeros(weight.shape[1]))]
        x = graph.add("Gemm", [x, *constants], name=f"layer{number}").output
        x.type = TensorType(DType.FLOAT, ("N", weight.shape[1]))
        if number < 2:
            x = graph.add("Relu", [x], types=[x.type]).output
    graph.add_output(x, "y")
    return graph


def kept(*overrides: Override) -> list[int]:
    graph = uneven()
    rows = np.random.default_rng(1).standard_normal((512, 8)).astype(np.float32)
    fit, held_out = load_samples({"x": rows}, graph).split(64)
    ctx = Context(
        TargetFacts("test", channel_alignment=1), graph.clone(), fit, held_out, overrides=overrides, threads=1
    )
    Prune(kind="channels", ratio=0.5).run(graph, ctx)
    return [node.inputs[1].constant.shape[1] for node in graph if node.op == "Gemm"][:2]  # type: ignore[union-attr]


def test_a_ratio_of_channels_is_spread_where_it_costs_least() -> None:
    first, second = kept()
    assert first < 8 < second


def test_a_layer_with_a_ratio_of_its_own_makes_ratios_those_of_layers() -> None:
    assert kept(Override("layer0", passes={"prune": {"ratio": 0.25}})) == [12, 8]


def test_a_refusal_names_the_share_that_was_tried() -> None:
    graph = uneven()
    rows = np.random.default_rng(1).standard_normal((512, 8)).astype(np.float32)
    fit, held_out = load_samples({"x": rows}, graph).split(64)
    ctx = Context(TargetFacts("test", channel_alignment=8), graph.clone(), fit, held_out, threads=1)
    report = Prune(kind="channels").run(graph, ctx)
    reasons = {layer.reason for layer in report.layers if "would leave an agreement" in layer.reason}
    assert reasons
    # Half of the channels of the one layer or of the other is the least that goes at a time.
    assert all(float(reason.split()[1].rstrip("%")) > 25 for reason in reasons)


def test_one_number_that_is_the_bias_of_all_outputs_stays_one() -> None:
    graph = uneven()
    for node in graph:
        if node.op == "Gemm":
            node.set_input(2, graph.constant(np.asarray([0.1], np.float32), "b"))
    rows = np.random.default_rng(1).standard_normal((512, 8)).astype(np.float32)
    fit, held_out = load_samples({"x": rows}, graph).split(64)
    report = Prune(ratio=0.3).run(graph, Context(TargetFacts("test"), graph.clone(), fit, held_out, threads=1))
    assert report.changed
    biases = [node.inputs[2].constant for node in graph if node.op == "Gemm"]  # type: ignore[union-attr]
    assert [bias.shape for bias in biases if bias is not None] == [(1,)] * 3
    assert any(bias.numpy()[0] != np.float32(0.1) for bias in biases if bias is not None)
