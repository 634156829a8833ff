"""Layers that are out are told at a glance: no walk is made for them, and it would have said the same."""

from __future__ import annotations

import numpy as np
import pytest
from walked import context, residual_net

from optc.passes.base import Outcome, Report
from optc.passes.depthwise import Depthwise
from optc.passes.depthwise.layers import Separate
from optc.passes.svd import Svd
from optc.passes.svd.layers import Factorise
from optc.passes.walk import layerwise
from optc.passes.walk.frontier import Frontier
from optc.passes.walk.glance import glance
from optc.passes.walk.readers import linear_layers


def _done(report: Report) -> set[str]:
    return {layer.name for layer in report.layers if layer.outcome is Outcome.DONE}


@pytest.mark.parametrize("one", [Svd(error=1e-7, align=1), Depthwise(error=1e-7)], ids=str)
def test_where_no_layer_can_no_walk_is_made(one: Svd | Depthwise, monkeypatch: pytest.MonkeyPatch) -> None:
    def advance(*arguments: object, **options: object) -> None:
        raise AssertionError("walked")

    monkeypatch.setattr(Frontier, "advance", advance)
    graph = residual_net()
    report = one.run(graph, context(graph, 64))
    assert not report.changed
    assert {layer.name for layer in report.layers} == {layer.name for layer in linear_layers(graph)[0]}
    assert all(layer.reason for layer in report.layers)


@pytest.mark.parametrize("error", [0.01, 0.05, 0.2])
@pytest.mark.parametrize(("kind", "hooks"), [(Svd, Factorise), (Depthwise, Separate)])
def test_the_same_layers_are_done_without_it(
    kind: type[Svd | Depthwise], hooks: type, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optc.passes.walk.layer_time._measured", lambda *arguments: 0.5)
    one = Svd(error=error, align=1) if kind is Svd else Depthwise(error=error)
    graph, other = residual_net(), residual_net()
    with_it = one.run(graph, context(graph, 64))
    monkeypatch.setattr(hooks, "glances", False)
    assert _done(with_it) == _done(one.run(other, context(other, 64)))


def test_a_step_has_the_moments_of_what_the_layer_reads() -> None:
    graph = residual_net()
    ctx = context(graph, 64)
    layers = linear_layers(graph)[0]
    steps = {step.layer: step for step in glance(graph, ctx, layers)}
    walked = {step.layer: step for step in layerwise.walk(graph, ctx, layers)}
    assert steps.keys() == walked.keys()
    for layer, step in steps.items():
        other = walked[layer]
        assert np.array_equal(step.target.weight, layer.weights())
        assert step.target.energy == pytest.approx(other.target.energy, rel=0.3)
        assert (step.positions, step.input[1:]) == (other.positions, other.input[1:])
        zero = np.zeros_like(step.target.weight)
        assert step.target.error(zero) == pytest.approx(1.0, abs=0.1)


def test_layers_that_stay_before_anything_was_changed_are_not_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual_net()
    layers = linear_layers(graph)[0]
    ends = {layers[1], layers[-1]}
    steps = [step.layer for step in layerwise.walk(graph, context(graph, 64), layers, changing=ends)]
    assert set(steps) == ends
