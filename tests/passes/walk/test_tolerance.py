"""How much a pass may lose on its own choice: the loosest amount that is safe, or nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from walked import context, distance, residual_net

from optc.ir.graph import Graph
from optc.passes.base import Context, Outcome, Report
from optc.passes.depthwise import Depthwise
from optc.passes.prune import Prune
from optc.passes.prune.weights import PruneWeights
from optc.passes.svd import Svd
from optc.passes.walk.layerwise import _sketched
from optc.passes.walk.tolerance import SAFE, loosest, safest
from optc.runtime.agreement import agreement


@pytest.mark.parametrize(("sketch", "tried"), [(0.94, []), (0.96, [0.001]), (0.98, [0.005]), (float("nan"), [0.005])])
def test_no_walk_is_made_at_a_tolerance_whose_sketch_is_far_from_safe(sketch: float, tried: list[float]) -> None:
    graph = residual_net()
    ctx = context(graph, 64)
    ctx.held_out = ctx.fit
    amounts: list[float] = []

    def run(trial: Graph, amount: float) -> Report:
        amounts.append(amount)
        return Report()

    def left(reason: str) -> Report:
        assert not tried, reason
        return Report()

    loosest(graph, ctx, run, lambda amount: sketch, left)
    assert amounts == tried


def test_a_sketch_tells_about_what_a_walk_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing makes up for what others lost, so it is off by more, but not by much; the graph stays as it is."""
    graph = residual_net()
    ctx = context(graph, 256)
    before = str(graph)
    copies: list[Graph] = []

    def judged(_: Context, copy: Graph) -> SimpleNamespace:
        copies.append(copy)
        return SimpleNamespace(cautious=1.0)

    monkeypatch.setattr(Context, "agreement", judged)
    for error in (0.001, 0.02):
        _sketched(Prune(error=error).layerwise(ctx), graph)
        walked = graph.clone()
        assert Prune(error=error).run(walked, ctx).changed
        off = distance(ctx.teacher, walked, ctx)
        assert 0.5 * off < distance(ctx.teacher, copies[-1], ctx) < 8 * off
    assert str(graph) == before


@pytest.mark.parametrize("one", [Prune(), Svd(align=1), Depthwise()], ids=str)
def test_a_pass_without_an_amount_loses_only_what_is_safe(one: Prune | Svd | Depthwise) -> None:
    graph = residual_net()
    ctx = context(graph, 128)
    assert ctx.fit is not None
    ctx.fit, ctx.held_out = ctx.fit.split(32)
    report = one.run(graph, ctx)
    share = agreement(ctx.teacher, graph, ctx.held_out).share
    assert report.layers
    assert share >= SAFE
    if report.changed:
        assert any("agreement" in note for note in report.notes)
    else:
        assert share > 0.9999


def test_where_no_tolerance_is_safe_the_graph_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual_net()
    monkeypatch.setattr(
        Context, "agreement", lambda ctx, trial: SimpleNamespace(cautious=1.0 if trial is graph else 0.5)
    )
    ctx = context(graph, 128)
    ctx.held_out = ctx.fit
    report = Prune().run(graph, ctx)
    assert {layer.outcome for layer in report.layers} == {Outcome.SKIPPED}  # its sketch told so
    assert any("far below 99.5 %" in layer.reason for layer in report.layers)
    monkeypatch.setattr(PruneWeights, "sketches", False)
    report = Prune().run(graph, ctx)
    assert not report.changed
    assert report.count(Outcome.REVERTED)
    assert distance(ctx.teacher, graph, ctx) == 0.0


@pytest.mark.parametrize(("least", "tried", "taken"), [(0, [1, 0], 8), (2, [1, 2], 2), (3, [1, 2, 3], 1)])
def test_the_loosest_safe_amount_is_found_by_bisection(least: int, tried: list[int], taken: float) -> None:
    graph = residual_net()
    ctx = context(graph, 32)
    ctx.held_out = ctx.fit
    amounts = (8.0, 4.0, 2.0, 1.0)
    trials: list[int] = []

    def run(trial: Graph, amount: float) -> Report:
        trials.append(amounts.index(amount))
        report = Report()
        report.done("head", "Gemm")
        head = next(node for node in trial if node.name == "head")
        head.set_attribute("alpha", 1.0 if trials[-1] >= least else -1.0)
        return report

    safe = safest(graph, ctx, amounts, run)
    assert (trials, safe.amount) == (tried, taken)
    assert safe.share is not None
    assert safe.share >= SAFE
    assert agreement(ctx.teacher, graph, ctx.held_out).share >= SAFE


def test_after_a_pass_that_was_told_to_lose_much_no_more_is_lost() -> None:
    graph = residual_net()
    ctx = context(graph, 32)
    ctx.held_out = ctx.fit
    head = next(node for node in graph if node.name == "head")
    head.set_attribute("alpha", -1.0)
    before = agreement(ctx.teacher, graph, ctx.held_out).cautious
    assert before < SAFE

    def run(trial: Graph, amount: float) -> Report:
        next(node for node in trial if node.name == "head").set_attribute("alpha", amount)
        report = Report()
        report.done("head", "Gemm")
        return report

    assert safest(graph, ctx, [-1.0], run).floor == before
    assert safest(graph, ctx, [-1.0], run).amount == -1.0
    assert safest(graph, ctx, [1.0], run).share == 1.0
