"""Values that are made again rather than kept: which they are, and that the walk meets the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from walked import Net, context

from optc.ir.graph import Graph, Value
from optc.ir.types import DType, TensorType
from optc.passes.base import Context
from optc.passes.walk import frontier
from optc.passes.walk.again import effort_of, size_of
from optc.passes.walk.frontier import Frontier
from optc.passes.walk.target import LayerTarget
from optc.passes.walk.walk import walk
from optc.storage.spill import Spill


def widening() -> tuple[Graph, Context]:
    """Three inverted residuals: 4 channels widened to 24 over 16 x 16 positions, a depthwise layer, and back."""
    net = Net(channels=4, size=16)
    value = net.conv(net.x, 4, 4)
    for _ in range(3):
        wide = net.add("Relu", net.conv(value, 24, 4, 1))
        inner = net.add("Relu", net.conv(wide, 24, 1, 3, group=24))
        value = net.add("Add", value, net.conv(inner, 4, 24, 1))
    graph = net.done(value)
    return graph, context(graph, count=40)


def targets(graph: Graph, ctx: Context) -> list[LayerTarget]:
    """The target of each layer of a walk that halves the small weights of every layer."""
    seen = []
    for step in walk(graph, ctx, rows=512):
        seen.append(step.target)
        weight = step.target.weight
        step.settle(np.where(np.abs(weight) < np.median(np.abs(weight)), 0.5 * weight, weight))
    return seen


def kept_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    append = Spill.append

    def counted(spill: Spill, key: object, array: np.ndarray) -> None:
        if isinstance(key, Value):
            sizes.append(array.nbytes)
        append(spill, key, array)  # type: ignore[arg-type]

    monkeypatch.setattr(Spill, "append", counted)
    return sizes


def alike(one: Sequence[LayerTarget], other: Sequence[LayerTarget]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.hessian, b.hessian, rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(a.weight, b.weight, rtol=2e-2, atol=2e-3)


def test_wide_values_between_narrow_ones_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = kept_bytes(monkeypatch)
    monkeypatch.setattr(frontier, "STORED", 0)
    monkeypatch.setattr(frontier, "IN_MEMORY", 0)
    everything = targets(*widening())
    whole, sizes[:] = sum(sizes), []
    monkeypatch.setattr(frontier, "STORED", 64)
    monkeypatch.setattr(frontier, "IN_MEMORY", 64)
    again = targets(*widening())
    assert 0 < sum(sizes) < 0.4 * whole
    alike(again, everything)


def test_a_wrong_record_of_positions_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontier, "STORED", 64)
    monkeypatch.setattr(frontier, "IN_MEMORY", 64)
    right = targets(*widening())
    for wrong in ((24, 15, 17), (24, 16, 8), (24, 32, 32)):
        graph, ctx = widening()
        for node in graph:
            if node.op == "Relu":
                node.output.type = TensorType(DType.FLOAT, ("N", *wrong))
        alike(targets(graph, ctx), right)


def test_what_is_random_is_never_made_again() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8)))
    kind = TensorType(DType.FLOAT, ("N", 8))
    relu = graph.add("Relu", [x], types=[kind])
    noise = graph.add("RandomNormalLike", [relu.output], types=[kind])
    graph.add_output(noise.output, "y", kind)
    assert size_of(relu.output) == 32
    assert effort_of([relu]) == 128
    assert effort_of([relu, noise]) == math.inf
    relu.output.type = TensorType(DType.FLOAT, ("N", None))
    assert size_of(relu.output) is None
    assert effort_of([relu]) == math.inf


def test_a_frontier_keeps_what_is_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, ctx = widening()
    assert ctx.fit is not None
    nodes = list(graph)
    assert [node.op for node in nodes[:5]] == ["Conv", "Conv", "Relu", "Conv", "Relu"]
    with Spill() as kept:
        one = Frontier(graph, ctx.fit, 8, kept, 1)
        monkeypatch.setattr(frontier, "IN_MEMORY", 0)
        list(one.advance([nodes[2].output], lambda batch, values: None))
        assert one.keeps(nodes[2].output)
        monkeypatch.setattr(frontier, "IN_MEMORY", 1000)
        list(one.advance([nodes[4].output], lambda batch, values: None))
        assert not one.keeps(nodes[4].output)
        assert nodes[4].output not in kept
