"""Blocks of another kind: a form gives back a block that it can be, the cheapest goes first, and why others stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from facts import facts_of
from walked import Net, distance

from optc.compiler.compilation import compile_with
from optc.compiler.locked import Locked
from optc.compiler.options import Options
from optc.errors import SpecError
from optc.ir.cost import cost
from optc.ir.graph import Graph, Value
from optc.ir.onnx.writer import to_bytes
from optc.ir.origin import Origin
from optc.ir.shapes.infer import infer
from optc.ir.verify.verify import verify
from optc.passes.base import Context, Outcome, Override, Report
from optc.passes.replace import Replace, kind
from optc.passes.structure import apart
from optc.runtime.sources import load_samples


def context(graph: Graph, *overrides: Override, held_out: bool = True) -> Context:
    data = np.random.default_rng(1).normal(size=(96, 8, 6, 6)).astype(np.float32)
    fit, judging = load_samples({"x": data}, graph).split(16)
    return Context(
        facts_of(measurable=False),
        graph.clone(),
        fit,
        judging if held_out else None,
        overrides=overrides,
        threads=1,
    )


def run(graph: Graph, ctx: Context, **options: object) -> Report:
    report = Replace(**options).run(graph, ctx)  # type: ignore[arg-type]
    infer(graph, fresh=True)
    verify(graph)
    return report


def done(report: Report) -> dict[str, dict[str, object]]:
    return {layer.name: dict(layer.detail) for layer in report.layers if layer.outcome is Outcome.DONE}


def reasons(report: Report) -> dict[str, str]:
    return {layer.name: layer.reason for layer in report.layers if layer.outcome is Outcome.SKIPPED}


def separable(net: Net, x: Value, n: int, c: int, **attributes: object) -> Value:
    return net.conv(net.conv(x, c, 1, group=c, **attributes), n, c, 1, pads=[0] * 4)


def twice(*, inner: int = 24, activated: bool = True) -> Graph:
    """A residual block of two convolutions, between two more."""
    net = Net()
    value = net.conv(net.x, 8, 8)
    hidden = net.conv(value, inner, 8)
    hidden = net.add("Relu", hidden) if activated else hidden
    value = net.add("Add", net.conv(hidden, 8, inner), value)
    return net.done(net.conv(net.add("Relu", value), 5, 8, 1, pads=[0] * 4))


def linear_block() -> Graph:
    """A pointwise convolution behind one over space: together one convolution."""
    net = Net()
    value = net.add("Relu", net.conv(net.x, 8, 8))
    inner = net.conv(net.conv(value, 24, 8, 3, strides=[2, 2]), 8, 24, 1, pads=[0] * 4)
    return net.done(net.conv(net.add("Relu", inner), 5, 8, 1, pads=[0] * 4), net.add("Relu", value))


def hidden_separable() -> Graph:
    """A chain that is a depthwise convolution and a pointwise one, in three layers."""
    net = Net()
    value = net.add("Relu", net.conv(net.x, 8, 8))
    inner = net.conv(separable(net, value, 24, 8), 8, 24, 1, pads=[0] * 4)
    return net.done(net.conv(net.add("Relu", inner), 5, 8, 1, pads=[0] * 4), net.add("Relu", value))


def hidden_bottleneck() -> Graph:
    """Dense filters over space that are each a row times a kernel."""
    graph = twice()
    node = [node for node in graph if node.op == "Conv"][1]
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(24, 8, 1)) * rng.normal(size=(24, 1, 9)) / 8
    node.set_input(1, graph.constant(weight.reshape(24, 8, 3, 3).astype(np.float32)))
    last = [node for node in graph if node.op == "Conv"][2]
    last.set_input(1, graph.constant((rng.normal(size=(8, 24, 1, 1)) / 5).astype(np.float32)))
    last.set_attribute("pads", [0] * 4)
    return graph


@pytest.mark.parametrize(
    ("graph", "form", "lost"),
    [
        (linear_block(), "conv", 1e-4),
        (hidden_separable(), "separable", 1e-4),
        (hidden_bottleneck(), "inverted", 2e-3),
    ],
    ids=["conv", "separable", "inverted"],
)
def test_a_form_gives_back_a_block_that_it_can_be(graph: Graph, form: str, lost: float) -> None:
    graph = graph.clone()
    ctx = context(graph)
    report = run(graph, ctx, form=form, ratio=0.1, expansion=3.0, steps=0)
    assert [detail["form"] for detail in done(report).values()] == [form]
    assert ctx.teacher is not None
    assert cost(graph).macs <= 0.9 * cost(ctx.teacher).macs
    assert distance(ctx.teacher, graph, ctx) < lost


def test_the_best_form_is_chosen_by_default() -> None:
    graph = hidden_separable()
    assert [detail["form"] for detail in done(run(graph, context(graph), ratio=0.1)).values()] == ["separable"]


def test_training_is_worth_something() -> None:
    errors = []
    for steps in (0, 120):
        graph = twice()
        ((_, detail),) = done(
            run(graph, context(graph), form="inverted", expansion=3.0, ratio=0.1, steps=steps)
        ).items()
        errors.append(float(str(detail["error"])))
    assert errors[1] < 0.9 * errors[0]


def test_an_override_names_the_block_and_its_form_and_another_keeps_one() -> None:
    graph = twice()
    last = [node.name for node in graph if node.op == "Conv"][2]
    for node in graph:
        node.origin = Origin.own(node.name)
    wanted = {"force": True, "form": "lowrank", "rank": 0.5}
    report = run(graph, context(graph, Override(last, passes={"replace": wanted})), ratio=0.0)
    assert {name: detail["form"] for name, detail in done(report).items()} == {last: "lowrank"}
    first, second = (node for node in graph if node.name.startswith(last))
    assert (first.name, second.name) == (f"{last}.0", f"{last}.1")
    assert last in second.origin.nodes
    assert last not in first.origin.nodes, "an override of the last layer is of the last one that stands for it"
    graph = twice()
    report = run(graph, context(graph, Override(last, keep=True)), ratio=0.3)
    assert not done(report)
    assert reasons(report)[last] == f"kept by match={last}"


def test_as_many_as_are_safe_go_by_default() -> None:
    graph = linear_block()
    report = run(graph, context(graph))
    assert [detail["form"] for detail in done(report).values()] == ["conv"]
    graph = twice()
    assert any("agree" in reason for reason in reasons(run(graph, context(graph))).values())


def test_what_takes_longer_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "share_left", lambda *_: 1.25)
    graph = twice()
    report = run(graph, context(graph), ratio=0.3)
    assert set(reasons(report).values()) == {
        "what would stand for it takes 1.25 times as much macs",
        "Conv and Add read what it answers, and nobody else reads into a block",
        "it stands alone between Add and the output, and a block is of convolutions and activations",
    }


def test_a_kernel_of_an_even_side_is_refused() -> None:
    graph = twice()
    with pytest.raises(SpecError, match="kernel=4: a kernel that keeps the size has an odd side"):
        run(graph, context(graph), kernel=4)


def test_a_wider_kernel_sees_what_two_layers_see() -> None:
    graph, wide = twice(activated=False), twice(activated=False)
    narrow_ctx, wide_ctx = context(graph), context(wide)
    run(graph, narrow_ctx, form="conv", ratio=0.1)
    run(wide, wide_ctx, form="conv", ratio=0.05, kernel=5)
    assert wide_ctx.teacher is not None
    assert narrow_ctx.teacher is not None
    assert distance(wide_ctx.teacher, wide, wide_ctx) < 0.3 * distance(narrow_ctx.teacher, graph, narrow_ctx)


def test_a_model_without_places_says_so() -> None:
    net = Net()
    graph = net.done(net.conv(net.x, 12, 8))
    report = run(graph, context(graph), ratio=0.5)
    assert [layer.reason for layer in report.layers] == [
        "it stands alone between the input and the output, and a block is of convolutions and activations"
    ]


def test_what_the_clock_decides_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"x": np.random.default_rng(0).normal(size=(64, 8, 6, 6)).astype(np.float32)}
    options = Options(data=data, passes="replace:ratio=0.2:steps=20", threads=1, guard=False, check=False)
    build = compile_with(twice(), options)
    (report,) = [step.report for step in build.report.steps if step.report.spec.startswith("replace")]
    assert done(report)

    def never(*_: object) -> None:
        raise AssertionError("the clock was asked")

    monkeypatch.setattr(apart, "_timed", never)
    monkeypatch.setattr("optc.runtime.profile.node_seconds", never)
    again = compile_with(twice(), replace(options, lock=Locked(rulings=build.report.rulings)))
    assert to_bytes(again.graph) == to_bytes(build.graph)
