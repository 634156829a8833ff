"""The first layers of a model whose output is a mask: left float where the mask needs them exact, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from quantized import quantized

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Outcome
from optc.passes.quant.masks import _fewest
from optc.runtime.session import Session


def segments(loud: float, *, end: str = "Sigmoid") -> Graph:
    """x [N, 2, 12, 12] -> a mask [N, 1, 12, 12] of what its second channel shows, however loud the first one is."""
    rng = np.random.default_rng(0)
    graph = Graph("segments", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 2, 12, 12)))
    first = rng.normal(size=(8, 2, 1, 1)) * np.array([1e-3 / loud, 1.0])[None, :, None, None]
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

    count = _fewest(share, 20)
    assert count == 20 if needed > 20 else needed <= count <= needed * 1.25 + 1
    assert len(tried) <= 8
