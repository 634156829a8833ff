"""The driver of layer-wise passes, by a pass that is nothing but hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from walked import context, distance, residual_net

from optc.passes import table
from optc.passes.base import Context, Outcome, Override, Report, option
from optc.passes.pipeline import Pipeline
from optc.passes.prune import Prune
from optc.passes.runner import run
from optc.passes.walk.choice import Choice
from optc.passes.walk.layer_pass import LayerPass
from optc.passes.walk.layerwise import ENOUGH, READS_INPUT, Layerwise, _with_enough
from optc.passes.walk.linear import Linear
from optc.passes.walk.readers import linear_layers
from optc.passes.walk.target import Array, LayerTarget
from optc.passes.walk.walk import Step


@dataclass(frozen=True, slots=True)
class Snap(LayerPass):
    """Weights on a grid of so many steps."""

    name: ClassVar[str] = "snap"
    steps: int = option(16, "steps up to the largest weight", low=1, layer=True)

    def layerwise(self, ctx: Context) -> Snapping:
        return Snapping(self, ctx)


class Snapping(Layerwise[Snap, Array]):
    def choose(self, step: Step, options: Snap, allotted: Choice[Array] | None) -> Choice[Array]:
        unit = np.abs(step.target.weight).max() / options.steps
        weight = np.round(step.target.weight / unit) * unit
        return Choice(1.0, step.target.error(weight), "snap", form=weight)

    def dense(self, form: Array) -> Array:
        return form

    def refit(self, layer: Linear, target: LayerTarget, form: Array) -> Array:
        unit = np.min(np.abs(form[form != 0.0]))
        return np.asarray(np.round(target.weight / unit) * unit)

    def write(self, layer: Linear, form: Array, bias: Array | None) -> None:
        layer.write(form, bias)


@pytest.fixture(autouse=True)
def _in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.TABLE, "snap", f"{__name__}:Snap")


def snapped(text: str, *overrides: Override) -> tuple[float, Report]:
    graph = residual_net()
    ctx = context(graph, 64)
    ctx.overrides = overrides
    (report,) = run(Pipeline.parse(text), graph, ctx)
    return distance(ctx.teacher, graph, ctx), report


def test_a_pass_is_its_hooks() -> None:
    far, report = snapped("snap:steps=6")
    near, _ = snapped("snap:steps=60")
    assert 0.0 < near < far / 4
    done = [layer for layer in report.layers if layer.outcome is Outcome.DONE]
    assert len(done) > 4
    assert all(0.0 < float(layer.detail["error"]) < 0.5 for layer in done)
    (first,) = [layer for layer in report.layers if layer.outcome is Outcome.SKIPPED]
    assert first.reason == READS_INPUT


def test_layers_have_options_of_their_own_and_are_kept() -> None:
    _, report = snapped("snap:steps=6", Override("head", keep=True), Override("conv2", passes={"snap": {"steps": 200}}))
    layers = {layer.name: layer for layer in report.layers}
    assert layers["head"].outcome is Outcome.SKIPPED
    assert "kept by" in layers["head"].reason
    assert float(layers["conv2"].detail["error"]) < 0.01 * float(layers["conv5"].detail["error"])


def test_a_choice_that_raises_skip_leaves_its_layer_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from optc.passes.base import Skip

    def refuse(self: Snapping, step: Step, options: Snap, allotted: object) -> Choice[Array]:
        raise Skip("not today")

    monkeypatch.setattr(Snapping, "choose", refuse)
    far, report = snapped("snap")
    assert far == 0.0
    assert {layer.reason for layer in report.layers} == {"not today", READS_INPUT}


def test_little_is_lost_on_few_samples_where_each_gives_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual_net()
    ctx = context(graph, 200)
    convolutions = {layer for layer in linear_layers(graph)[0] if layer.is_conv}
    head = next(layer for layer in linear_layers(graph)[0] if not layer.is_conv)
    some = _with_enough(ctx, convolutions)
    assert (ctx.fit is not None, some.fit is not None and some.fit.count) == (True, ENOUGH)
    monkeypatch.setattr("optc.passes.walk.layerwise.EACH", 1 + ENOUGH // head.shape[2])
    assert _with_enough(ctx, [head]) is ctx  # one row a sample
    few = context(graph, ENOUGH)
    assert _with_enough(few, convolutions) is few
    seen: list[int] = []
    monkeypatch.setattr(
        "optc.passes.walk.layerwise.walk", lambda graph, ctx, *rest, **more: seen.append(ctx.fit.count) or iter(())
    )
    Prune(error=0.01).run(graph, ctx)
    Prune(ratio=0.5).run(graph, ctx)
    assert seen == [200, 200]  # the head may change, too
    monkeypatch.setattr("optc.passes.walk.layerwise.EACH", 1)
    Prune(error=0.01).run(graph, ctx)
    assert seen[2:] == [ENOUGH]
