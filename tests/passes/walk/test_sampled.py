"""Positions picked inside of the teacher's graph are those that would be picked of its answers."""

from __future__ import annotations

import numpy as np
import pytest
from facts import facts_of
from walked import residual_net

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context
from optc.passes.walk import sampled
from optc.passes.walk.sampled import Sampled, can_pick
from optc.passes.walk.walk import walk
from optc.runtime.session import Session
from optc.runtime.sources import load_samples

X = np.random.default_rng(0).normal(size=(23, 8, 6, 6)).astype(np.float32)
RNG = np.random.default_rng(1)


def test_what_is_picked_is_what_the_value_holds_there() -> None:
    graph = residual_net()
    first, second, *_ = (node.output for node in graph if node.op == "Conv")
    positions = {3: np.asarray([0, 7, 35]), 4: np.asarray([5])}
    session = Sampled(graph, [(3, first), (4, first), (4, second)], [second], 1)
    picked, whole = session.run({"x": X[:2]}, positions)
    a, b = Session(graph, outputs=[first, second]).run({"x": X[:2]})
    np.testing.assert_array_equal(whole[second], b)
    for (number, value), array in picked.items():
        flat = (a if value is first else b).reshape(2, -1, 36)
        np.testing.assert_array_equal(array, flat[:, :, positions[number]].transpose(0, 2, 1))


def test_only_shapes_that_are_told_beforehand_are_picked() -> None:
    graph = residual_net()
    conv = next(node.output for node in graph if node.op == "Conv")
    assert can_pick(graph, conv, (5, 16, 6, 6), 5)
    assert not can_pick(graph, conv, (5, 16, 6, 6), 1), "it has more than one answer a sample"
    assert not can_pick(graph, conv, (5, 16, 7, 6), 5), "it came out otherwise than was inferred"
    assert not can_pick(graph, graph.outputs[0].value, (5, 5), 5)


def test_a_walk_sees_the_same_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    def targets() -> list[np.ndarray]:
        graph = residual_net()
        ctx = Context(facts_of(), teacher=graph.clone(), fit=load_samples({"x": X}, graph), threads=1)
        arrays = []
        for step in walk(graph, ctx, rows=300):
            step.layer.write(0.9 * step.target.weight, None)
            arrays += [step.target.weight, step.target.hessian, step.target.target_mean, np.asarray(step.output)]
        return arrays

    counts: list[int] = []
    create = Sampled.__init__

    def counted(one: Sampled, graph: object, picks: list[object], *more: object) -> None:
        counts.append(len(picks))
        create(one, graph, picks, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Sampled, "__init__", counted)
    inside = targets()
    assert counts[0] == 0
    assert counts[1] == 7, "every convolution is picked from the second batch on"
    monkeypatch.setattr(sampled, "can_pick", lambda *arguments: False)
    for one, other in zip(inside, targets(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("op", ["Clip", "Relu"])
def test_picks_of_different_sizes_are_taken_whoever_else_reads_the_value(op: str) -> None:
    graph = Graph("net", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, ("N", 16, 6, 6)))
    convs = []
    for _ in range(4):
        weight = graph.constant(RNG.normal(0, 0.1, (16, 16, 3, 3)).astype(np.float32))
        conv = graph.add("Conv", [value, weight], {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}).output
        convs.append(conv)
        bounds = [graph.constant(np.float32(end)) for end in (0.0, 6.0)] if op == "Clip" else []
        value = graph.add(op, [conv, *bounds]).output
    graph.add_output(value, "y", TensorType(DType.FLOAT, ("N", 16, 6, 6)))
    infer(graph)
    x = RNG.normal(0, 1, (2, 16, 6, 6)).astype(np.float32)
    at = {number: np.arange(0, 36, 1 + number) for number in range(4)}
    picked, _ = Sampled(graph, list(enumerate(convs)), [], 1).run({"x": x}, at)
    whole = Session(graph, outputs=convs).run({"x": x})
    for (number, _), array in picked.items():
        wanted = whole[number].reshape(2, 16, 36)[:, :, at[number]].transpose(0, 2, 1)
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-5)
