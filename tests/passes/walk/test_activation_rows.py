"""Rows that a step of the walk keeps for the activation behind its layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from walked import Net, context

from optc.ir.graph import Value
from optc.passes.walk.frontier import Frontier
from optc.passes.walk.walk import walk
from optc.runtime.sources import load_samples
from optc.storage.spill import Data


def test_rows_for_the_activation_come_from_everywhere_in_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 64th row of batches of 8 images of 8 x 8 would be the same corner of each image."""
    monkeypatch.setattr("optc.passes.walk.collect.rows_to_keep", lambda width, answers: 40)
    net = Net(channels=1, size=8)
    graph = net.done(net.add("Relu", net.conv(net.x, 4, 1, 1)))
    ctx = context(graph, 40)
    place = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    samples = load_samples({"x": np.repeat(place, 40, axis=0)}, graph)
    steps = walk(graph, replace(ctx, fit=samples))
    step = next(steps)
    assert step.saturation is not None
    met = np.concatenate([step.saturation.read(batch)[0] for batch in range(step.saturation.count)])
    assert len(np.unique(met)) > 20


def test_rows_taken_anew_are_those_that_would_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches of 3 x 3 at all positions are larger than the value, so they are taken from it again."""
    taken: list[int] = []
    at_hand = Frontier.at_hand

    def counted(one: Frontier, values: Sequence[Value], batch: int) -> dict[Value, Data]:
        taken.append(batch)
        return at_hand(one, values, batch)

    def rows() -> list[np.ndarray]:
        net = Net(channels=4, size=8)
        inner = net.add("Relu", net.conv(net.x, 4, 4))
        graph = net.done(net.add("Relu", net.add("Add", net.conv(inner, 4, 4), inner)))
        arrays: list[np.ndarray] = []
        for step in walk(graph, context(graph, 40)):
            assert step.saturation is not None
            for batch in range(step.saturation.count):
                arrays += [part for part in step.saturation.read(batch) if part is not None]
        return arrays

    monkeypatch.setattr(Frontier, "at_hand", counted)
    anew = rows()
    assert taken
    taken.clear()
    monkeypatch.setattr(Frontier, "keeps", lambda one, value: False)
    kept = rows()
    assert not taken
    assert len(anew) == len(kept)
    for one, other in zip(anew, kept, strict=True):
        np.testing.assert_array_equal(one, other)
