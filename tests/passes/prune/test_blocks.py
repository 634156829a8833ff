"""Block pruning: what a branch does goes into its neighbours, what is worth least goes first, and why others stay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from facts import facts_of
from walked import Net, distance, residual_net

from optc.compiler.compilation import compile_with
from optc.compiler.locked import Locked
from optc.compiler.options import Options
from optc.errors import SpecError
from optc.ir.cost import cost
from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.verify.verify import verify
from optc.passes.base import Context, Outcome, Override, Report
from optc.passes.prune import Prune
from optc.passes.prune.blocks import BlockKind
from optc.passes.structure import saving
from optc.passes.structure.order import EditJudge
from optc.runtime.sources import load_samples


def context(graph: Graph, *overrides: Override) -> Context:
    shape = [size if isinstance(size, int) else 64 for size in graph.inputs[0].shape or ()]
    data = np.random.default_rng(1).normal(size=(64, *shape[1:])).astype(np.float32)
    fit, held_out = load_samples({"x": data}, graph).split(16)
    return Context(facts_of(measurable=False), graph.clone(), fit, held_out, overrides=overrides, threads=1)


def run(graph: Graph, ctx: Context, **options: object) -> Report:
    report = Prune(kind="blocks", **options).run(graph, ctx)  # type: ignore[arg-type]
    infer(graph, fresh=True)
    verify(graph)
    return report


def done(report: Report) -> list[str]:
    return [layer.name for layer in report.layers if layer.outcome is Outcome.DONE]


def reasons(report: Report) -> dict[str, str]:
    return {layer.name: layer.reason for layer in report.layers if layer.outcome is Outcome.SKIPPED}


def linear_branch() -> Graph:
    """A branch without an activation beside what a convolution makes: both are one convolution."""
    net = Net()
    a = net.conv(net.x, 8, 8, 3)
    b = net.add("Add", a, net.conv(net.conv(a, 12, 8, 1), 8, 12, 1))
    return net.done(net.conv(net.add("Relu", b), 12, 8))


def behind_activations() -> Graph:
    """A layer that reads what no layer ends in, and whose answer two activations stand behind."""
    net = Net()
    a = net.add("MaxPool", net.add("Relu", net.conv(net.x, 8, 8)), kernel_shape=[2, 2])
    b = net.add("Tanh", net.add("Relu", net.conv(a, 8, 8)))
    flat = net.add("Flatten", net.add("GlobalAveragePool", b))
    return net.done(net.graph.add("Gemm", [flat, net.weight(5, 8)], {"transB": 1}, name="head").output)


def two_branches(quiet: float) -> Graph:
    """Two residual branches, of which the first says `quiet` times as much as the second."""
    net = Net()
    value = net.conv(net.x, 8, 8)
    for scale in (quiet, 1.0):
        inner = net.add("Relu", net.conv(value, 24, 8))
        answer = net.conv(inner, 8, 24)
        weight = answer.producer.inputs[1]  # type: ignore[union-attr]
        assert weight is not None
        weight.constant = (net.graph.constant((scale * weight.numpy()).astype(np.float32))).constant  # type: ignore[operator]
        value = net.add("Add", answer, value)
    return net.done(net.conv(net.add("Relu", value), 12, 8))


def test_what_is_linear_in_what_stays_is_taken_up_by_the_layer_before() -> None:
    graph = linear_branch()
    ctx = context(graph)
    report = run(graph, ctx, ratio=0.1)
    assert len(done(report)) == 1
    assert len(graph) == 3
    assert ctx.teacher is not None
    assert distance(ctx.teacher, graph, ctx) < 1e-4


@pytest.mark.parametrize("quiet", [0.05, 20.0])
def test_the_branch_that_says_least_goes_first(quiet: float) -> None:
    graph = two_branches(quiet)
    ctx = context(graph)
    first, second = (node.label for node in graph if node.op == "Add")
    report = run(graph, ctx, ratio=0.2)
    assert done(report) == [first if quiet < 1.0 else second]
    assert reasons(report)[second if quiet < 1.0 else first] == "others lose less for what they save"
    assert ctx.teacher is not None
    assert cost(graph).macs <= 0.8 * cost(ctx.teacher).macs
    assert any(note.startswith("removed ") and note.endswith(" of the macs") for note in report.notes)


def test_as_many_as_are_safe_go_by_default() -> None:
    quiet = two_branches(1e-3)
    assert len(done(run(quiet, context(quiet)))) == 1
    loud = two_branches(30.0)
    report = run(loud, context(loud), ratio=None)
    agreed = [reason for reason in reasons(report).values() if "agree" in reason]
    assert agreed


@pytest.mark.parametrize(("net", "op"), [(residual_net, "Add"), (behind_activations, "Conv")])
def test_repair_is_worth_something(net: Callable[[], Graph], op: str) -> None:
    graph, plain = net(), net()
    name = [name for name, edit in BlockKind().named(graph).items() if edit.node.op == op][-1]
    ctx = context(graph, Override(name, passes={"prune": {"remove": True}}))
    run(graph, ctx, ratio=0.0)
    BlockKind().named(plain)[name].apply(plain)
    assert ctx.teacher is not None
    assert distance(ctx.teacher, graph, ctx) < 0.7 * distance(ctx.teacher, plain, ctx)


def test_an_override_removes_one_block_and_another_keeps_one() -> None:
    graph = two_branches(1.0)
    first, second = (node.label for node in graph if node.op == "Add")
    report = run(graph, context(graph, Override(second, passes={"prune": {"remove": True}})), ratio=0.0)
    assert done(report) == [second]
    graph = two_branches(0.01)
    report = run(graph, context(graph, Override(first, keep=True)), ratio=0.2)
    assert done(report) == [second]
    assert reasons(report)[first] == f"kept by match={first}"


def test_what_the_clock_decides_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"x": np.random.default_rng(0).normal(size=(40, 8, 6, 6)).astype(np.float32)}
    options = Options(data=data, passes="prune:kind=blocks:ratio=0.2", threads=1, guard=False, check=False)
    build = compile_with(two_branches(0.05), options)
    (report,) = [step.report for step in build.report.steps if step.report.spec.startswith("prune")]
    assert report.notes[0].endswith("of the latency")

    def never(*_: object) -> None:
        raise AssertionError("the clock was asked")

    monkeypatch.setattr(saving, "_in_turns", never)
    monkeypatch.setattr("optc.runtime.profile.node_seconds", never)
    again = compile_with(two_branches(0.05), replace(options, lock=Locked(rulings=build.report.rulings)))
    assert to_bytes(again.graph) == to_bytes(build.graph)


def test_answers_that_are_not_finite_judge_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = two_branches(0.05)
    monkeypatch.setattr(EditJudge, "loss", lambda *_: math.inf)
    report = run(graph, context(graph), ratio=0.3)
    assert not done(report)
    assert "nothing tells what it would lose: answers are not finite" in reasons(report).values()


def test_channels_have_no_latency_of_their_own() -> None:
    graph = residual_net()
    with pytest.raises(SpecError, match="of=latency is for kind=blocks"):
        Prune(kind="channels", of="latency", ratio=0.5).run(graph, context(graph))


def test_a_model_without_blocks_says_so() -> None:
    net = Net()
    graph = net.done(net.conv(net.x, 12, 8))
    report = run(graph, context(graph), ratio=0.5)
    assert not report.layers
    assert report.notes == ["no block can be removed: none has the shape of what would stand for it"]
