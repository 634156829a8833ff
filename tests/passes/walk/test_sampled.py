"""Positions picked inside of the teacher's graph are those that would be picked of its answers."""

from __future__ import annotations

import numpy as np
import pytest
from facts import facts_of
from walked import residual_net

from optc.passes.base import Context
from optc.passes.walk import sampled
from optc.passes.walk.sampled import Sampled, can_pick
from optc.passes.walk.walk import walk
from optc.runtime.session import Session
from optc.runtime.sources import load_samples

X = np.random.default_rng(0).normal(size=(23, 8, 6, 6)).astype(np.float32)


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
        np.testing.assert_array_equal(array, flat[:, :, positions[number]])


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
