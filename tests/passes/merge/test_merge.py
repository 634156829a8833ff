"""Two layers that follow each other become one: exactly where they are linear, by a line where they are not."""

from __future__ import annotations

import pytest
from equivalence import assert_equivalent, feeds
from walked import Net, context, distance

from optc.ir.cost import cost
from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.verify.verify import verify
from optc.passes.base import Context, Outcome, Override, Report
from optc.passes.merge import Merge
from optc.passes.merge.pairs import Pairs


def product(net: Net, op: str, x: Value, n: int, d: int, *, bias: bool = True) -> Value:
    if op == "Gemm":
        inputs = [x, net.weight(n, d), *([net.weight(n)] if bias else [])]
        return net.graph.add("Gemm", inputs, {"transB": 1, "alpha": 0.5}, name=f"gemm{len(net.graph)}").output
    y = net.graph.add("MatMul", [x, net.weight(d, n)], name=f"matmul{len(net.graph)}").output
    return net.add("Add", y, net.weight(n)) if bias else y


def convolutions(first: dict[str, object], second: dict[str, object], k: int, m: int, groups: int = 1) -> Graph:
    """Two convolutions of k and m taps a side, the first of `groups`, with nothing between them."""
    net = Net()
    inner = net.conv(net.x, 24, 8 // groups, k, **{"group": groups, **first})
    return net.done(net.conv(inner, 6, 24, m, **second))


def products(first: str, second: str) -> Graph:
    net = Net()
    flat = net.add("Flatten", net.add("GlobalAveragePool", net.x))
    return net.done(product(net, second, product(net, first, flat, 24, 8), 6, 24))


def activated(op: str = "Relu") -> Graph:
    net = Net()
    inner = net.add(op, net.conv(net.x, 24, 8, 1, pads=[0] * 4))
    return net.done(net.conv(inner, 8, 24, 1, pads=[0] * 4))


EXACT = {
    "a pointwise one behind": convolutions({}, {"pads": [0] * 4}, 3, 1),
    "a pointwise one behind, strided": convolutions({"strides": [2, 2]}, {"pads": [0] * 4, "strides": [2, 1]}, 3, 1),
    "a pointwise one before": convolutions({"pads": [0] * 4}, {"pads": [0] * 4, "strides": [2, 2]}, 1, 3),
    "two kernels, unpadded behind": convolutions({"pads": [1, 0, 2, 1]}, {"pads": [0] * 4}, 2, 2),
    "groups before": convolutions({}, {"pads": [0] * 4}, 1, 1, groups=4),
    "gemm, gemm": products("Gemm", "Gemm"),
    "matmul, matmul": products("MatMul", "MatMul"),
    "matmul, gemm": products("MatMul", "Gemm"),
    "gemm, matmul": products("Gemm", "MatMul"),
}


def run(graph: Graph, ctx: Context, **options: object) -> Report:
    report = Merge(**options).run(graph, ctx)  # type: ignore[arg-type]
    infer(graph, fresh=True)
    verify(graph)
    return report


@pytest.mark.parametrize("name", EXACT)
def test_what_is_linear_is_exact_without_any_fit(name: str) -> None:
    original, graph = EXACT[name].clone(), EXACT[name].clone()
    (edit,) = Pairs(graph, context(graph)).named(graph).values()
    edit.apply(graph)
    infer(graph, fresh=True)
    verify(graph)
    assert len(graph) < len(original)
    assert_equivalent(original, graph, feeds(original), ulps=256.0)


@pytest.mark.parametrize("name", [name for name in EXACT if "mm" in name or "matmul" in name])
def test_the_pass_merges_products_with_and_without_a_bias_node(name: str) -> None:
    original, graph = EXACT[name].clone(), EXACT[name].clone()
    report = run(graph, context(graph), ratio=0.1)
    assert [layer.outcome for layer in report.layers] == [Outcome.DONE]
    assert_equivalent(original, graph, feeds(original), ulps=1024.0)


def test_a_line_stands_for_an_activation_and_the_layer_is_fitted() -> None:
    graph, ctx = activated(), context(activated())
    node = [node for node in graph if node.op == "Conv"][-1]
    wanted = Override(node.name, passes={"merge": {"join": True}})
    report = run(graph, Context(ctx.target, ctx.teacher, ctx.fit, threads=1, overrides=(wanted,)), ratio=0.0)
    assert [layer.outcome for layer in report.layers] == [Outcome.DONE]
    assert [node.op for node in graph] == ["Conv"]
    assert ctx.teacher is not None
    assert distance(ctx.teacher, graph, ctx) < 0.6
    unfitted = activated()
    (edit,) = Pairs(unfitted, ctx).named(unfitted).values()
    edit.apply(unfitted)
    assert distance(ctx.teacher, graph, ctx) <= distance(ctx.teacher, unfitted, ctx) * 1.001


def test_the_share_asked_for_is_saved_by_what_loses_least() -> None:
    net = Net()
    linear = net.conv(net.conv(net.x, 24, 8, 3), 8, 24, 1, pads=[0] * 4)
    graph = net.done(net.conv(net.add("Relu", net.conv(linear, 24, 8, 3)), 8, 24, 1, pads=[0] * 4))
    ctx = context(graph)
    report = run(graph, ctx, ratio=0.2)
    done = [layer.name for layer in report.layers if layer.outcome is Outcome.DONE]
    assert done == ["conv1"]
    assert ctx.teacher is not None
    assert cost(graph).macs <= 0.8 * cost(ctx.teacher).macs
    assert distance(ctx.teacher, graph, ctx) < 1e-8
    assert report.notes[0].startswith("merging saved ")


def test_what_takes_longer_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, ctx = convolutions({}, {"pads": [0] * 4}, 3, 1), context(convolutions({}, {"pads": [0] * 4}, 3, 1))
    monkeypatch.setattr(Pairs, "left", lambda *_: 1.25)
    report = run(graph, ctx, ratio=0.2)
    assert [layer.reason for layer in report.layers] == ["what would stand for it takes 1.25 times as much macs"]


@pytest.mark.parametrize(
    ("first", "second", "k", "m"),
    [
        ({"dilations": [2, 2]}, {"pads": [0] * 4}, 3, 1),
        ({"strides": [2, 2]}, {}, 3, 3),
        ({}, {"pads": [1] * 4}, 3, 1),
    ],
    ids=["dilated", "strided before a kernel", "padded behind a kernel"],
)
def test_what_cannot_be_one_layer_is_left(first: dict[str, object], second: dict[str, object], k: int, m: int) -> None:
    graph = convolutions(first, second, k, m)
    assert not Pairs(graph, context(graph)).named(graph)


def test_what_would_be_larger_than_both_is_left() -> None:
    graph = convolutions({}, {"pads": [0] * 4}, 5, 1, groups=8)
    assert not Pairs(graph, context(graph)).named(graph)


def test_what_others_read_is_left() -> None:
    net = Net()
    inner = net.conv(net.x, 24, 8, 1, pads=[0] * 4)
    graph = net.done(net.conv(inner, 6, 24, 1, pads=[0] * 4), net.add("Relu", inner))
    assert not Pairs(graph, context(graph)).named(graph)
