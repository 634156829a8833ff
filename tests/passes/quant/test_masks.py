"""The first layers of a model whose output is a mask: left float where the mask needs them exact, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from facts import facts_of
from quantized import quantized

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, Outcome
from optc.passes.quant import Quant, profit
from optc.passes.quant.layers import find_layers
from optc.passes.quant.masks import fewest
from optc.passes.quant.scheme import Form, Scheme
from optc.passes.quant.wide import wide_weights
from optc.runtime.session import Session
from optc.runtime.sources import load_samples


def segments(loud: float, *, end: str = "Sigmoid", heard: float = 1e-3) -> Graph:
    """x [N, 2, 12, 12] -> a mask [N, 1, 12, 12] of what its second channel shows, however loud the first one is, of
    which so much is `heard`."""
    rng = np.random.default_rng(0)
    graph = Graph("segments", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 2, 12, 12)))
    first = rng.normal(size=(8, 2, 1, 1)) * np.array([heard / loud, 1.0])[None, :, None, None]
    for number, weight in enumerate((first, rng.normal(size=(8, 8, 3, 3)) / 9, rng.normal(size=(1, 8, 3, 3)) / 2)):
        pads = [weight.shape[-1] // 2] * 4
        x = graph.add(
            "Conv", [x, graph.constant(weight.astype(np.float32))], {"pads": pads}, name=f"conv{number}"
        ).output
        x = graph.add("Relu", [x]).output if number < 2 else x
    infer(graph)
    if end == "GlobalAveragePool":
        x = graph.add("Flatten", [graph.add(end, [x]).output]).output
    graph.add_output(graph.add("Sigmoid", [x]).output, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    return graph


def feeds(loud: float, count: int = 48) -> dict[str, np.ndarray]:
    x = np.random.default_rng(1).normal(size=(count, 2, 12, 12)).astype(np.float32)
    return {"x": x * np.array([loud, 1.0], np.float32)[:, None, None]}


@pytest.mark.parametrize(
    ("loud", "end", "spared"), [(100.0, "", {"conv0"}), (1.0, "", set()), (100.0, "GlobalAveragePool", set())]
)
def test_the_first_layers_are_left_float_where_a_mask_needs_them(loud: float, end: str, spared: set[str]) -> None:
    graph = segments(loud, end=end or "Sigmoid")
    teacher = Session(graph.clone())
    report = quantized(graph, feeds(loud))
    assert {layer.name for layer in report.layers if layer.outcome is Outcome.SKIPPED} == spared
    if not end:
        masks = [session.run(feeds(loud, 64))[0] > 0.5 for session in (teacher, Session(graph))]
        assert (masks[0] & masks[1]).sum() > 0.95 * (masks[0] | masks[1]).sum()
    if spared:
        assert "mask" in next(layer.reason for layer in report.layers if layer.name == "conv0")


@pytest.mark.parametrize("needed", range(1, 30))
def test_the_fewest_that_reach_the_aim_are_sought_in_few_trials(needed: int) -> None:
    tried: list[int] = []

    def share(count: int) -> float:
        tried.append(count)
        return float(count >= needed)

    count = fewest(share, 20)
    assert count == 20 if needed > 20 else needed <= count <= needed * 1.25 + 1
    assert len(tried) <= 8


def shared(loud: float) -> Graph:
    """`segments`, the first layer of which another one shares, on an input of its own, that a score is made of."""
    graph = segments(loud)
    first = next(node for node in graph if node.name == "conv0")
    z = graph.add_input("z", TensorType(DType.FLOAT, ("N", 2, 12, 12)))
    twin = graph.add("Conv", [z, first.inputs[1]], first.attributes, name="twin").output
    pooled = graph.add("Flatten", [graph.add("GlobalAveragePool", [graph.add("Relu", [twin]).output]).output]).output
    graph.add_output(pooled, "score", TensorType(DType.FLOAT, None))
    graph.sort()
    infer(graph)
    return graph


def test_who_reads_the_weight_of_a_layer_left_float_is_float_too_and_it_is_stored_once() -> None:
    graph = shared(100.0)
    report = quantized(graph, {**feeds(100.0), "z": feeds(1.0)["x"]})
    bits = {layer.name: layer.detail for layer in report.layers if layer.outcome is Outcome.SKIPPED}
    assert set(bits) == {"conv0", "twin"}
    assert len({detail["weight_bits"] for detail in bits.values()}) == 1
    kinds = [v.constant.dtype for v in graph.constants if v.constant is not None and v.constant.shape == (8, 2, 1, 1)]
    assert kinds in ([DType.INT8], [DType.FLOAT16])


@pytest.mark.parametrize(("heard", "halves"), [(1.0, 1), (1e-3, 0)])
def test_weights_that_a_mask_needs_are_stored_in_sixteen_bits(heard: float, halves: int) -> None:
    graph = segments(100.0, heard=heard)
    teacher = Session(graph.clone())
    report = quantized(graph, feeds(100.0), Quant(activations="none"))
    sixteen = [layer.name for layer in report.layers if layer.detail.get("bits") == 16]
    assert sixteen == ["conv0"][:halves]
    assert sum(v.dtype is DType.FLOAT16 for v in graph.constants) == halves
    assert any("as float16, since a mask needs them" in note for note in report.notes) == bool(halves)
    masks = [session.run(feeds(100.0, 64))[0] > 0.5 for session in (teacher, Session(graph))]
    assert (masks[0] & masks[1]).sum() > 0.97 * (masks[0] | masks[1]).sum()


def test_weights_of_sixteen_bits_are_no_more_than_a_share_of_all() -> None:
    graph = segments(100.0, heard=1.0)
    layers = list(find_layers(graph)[0].values())
    data = load_samples(feeds(100.0), graph)
    ctx = Context(facts_of(), fit=data, held_out=data, threads=1)
    schemes = {layer.node: Scheme(Form.STORED) for layer in layers}
    first = layers[0].weight
    assert wide_weights(graph, layers[:1], 10 * 64, schemes, ctx) == {first}  # whichever of the others are stored here
    assert not wide_weights(graph, layers, 64, schemes, ctx)


def test_a_layer_that_a_mask_needs_is_left_float_beside_slow_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few of the layers the clock left in integers: the share is that of the work of all."""
    monkeypatch.setattr(
        profit, "slower_layers", lambda graph, layers, *_: {n: "slow" for n in layers if n.name != "conv0"}
    )
    report = quantized(segments(100.0), feeds(100.0), Quant())
    skipped = {layer.name: layer.reason for layer in report.layers if layer.outcome is Outcome.SKIPPED}
    assert set(skipped) == {"conv0", "conv1", "conv2"}
    assert "mask" in skipped["conv0"]
