"""Channel pruning: tensors shrink and fit, what is redundant goes for free, what cannot go is named with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from optc.ir.channels.coupled import CoupledChannels
from optc.ir.cost import cost
from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.ir.verify.verify import verify
from optc.models import zoo
from optc.passes.base import Context, Outcome, Report, TargetFacts
from optc.passes.clean import Clean
from optc.passes.prune import Prune
from optc.passes.walk import tolerance
from optc.runtime.agreement import agreement
from optc.runtime.samples import Samples
from optc.runtime.session import Session
from optc.runtime.sources import load_samples

FACTS = TargetFacts("test", channel_alignment=4)


class Net:
    """A small convolutional graph in the making, with random weights."""

    def __init__(self, *shape: int | str, seed: int = 0) -> None:
        self.graph = Graph("net", opsets={"": 17})
        self.x = self.graph.add_input("x", TensorType(DType.FLOAT, shape))
        self.rng = np.random.default_rng(seed)

    def conv(self, x: Value, weight: np.ndarray | Value, bias: np.ndarray | None = None, name: str = "") -> Value:
        w = weight if isinstance(weight, Value) else self.graph.constant(weight.astype(np.float32), f"{name}.w")
        size = w.constant.shape
        b = self.rng.normal(size=size[0]) if bias is None else bias
        inputs = (x, w, self.graph.constant(np.asarray(b, np.float32), f"{name}.b"))
        return self.graph.add("Conv", inputs, {"pads": [size[2] // 2] * 4}, name=name).output

    def weight(self, n: int, c: int, k: int = 3) -> np.ndarray:
        return self.rng.normal(size=(n, c, k, k)) / np.sqrt(c * k * k)

    def relu(self, x: Value) -> Value:
        return self.graph.add("Relu", (x,)).output

    def add(self, a: Value, b: Value) -> Value:
        return self.graph.add("Add", (a, b)).output

    def finish(self, y: Value) -> Graph:
        self.graph.add_output(y, "y")
        infer(self.graph)
        verify(self.graph)
        return self.graph


def pair(weight: np.ndarray, bias: np.ndarray, *shape: int | str) -> Graph:
    """conv1 (given), Relu, conv2."""
    net = Net(*(shape or ("N", weight.shape[1], 6, 6)), seed=1)
    hidden = net.relu(net.conv(net.x, weight, bias, "conv1"))
    return net.finish(net.conv(hidden, net.weight(5, len(weight)), name="conv2"))


def context(graph: Graph, count: int = 64, seed: int = 0, align: int = 4, **sizes: int) -> Context:
    shape = graph.inputs[0].shape
    assert shape is not None
    fixed = [size if isinstance(size, int) else sizes.get(size, 6) for size in shape]
    x = np.random.default_rng(seed).normal(size=(count, *fixed[1:])).astype(np.float32)
    fit, held_out = load_samples({graph.inputs[0].name: x}, graph).split(count // 4)
    return Context(TargetFacts("test", channel_alignment=align), graph.clone(), fit, held_out, threads=1)


def run(graph: Graph, ctx: Context, **options: object) -> Report:
    report = Prune(kind="channels", **{"scope": "layer"} | options).run(graph, ctx)  # type: ignore[arg-type]
    graph.sort()
    infer(graph, fresh=True)
    verify(graph)
    return report


def error(ctx: Context, graph: Graph) -> float:
    """Relative error of the outputs on the held-out samples."""
    assert ctx.teacher is not None
    assert ctx.held_out is not None
    feeds = next(ctx.held_out.batches(64))
    t, s = Session(ctx.teacher, threads=1).run(feeds)[0], Session(graph, threads=1).run(feeds)[0]
    assert t.shape == s.shape
    return float(np.sum((t - s) ** 2) / np.sum((t - t.mean()) ** 2))


def weight_of(graph: Graph, name: str) -> tuple[int, ...]:
    value = next(node for node in graph if node.name == name).inputs[1]
    assert value is not None
    assert value.constant is not None
    return value.constant.shape


def done(report: Report) -> dict[str, int]:
    return {x.name: int(x.detail["kept"]) for x in report.layers if x.outcome is Outcome.DONE}


def reasons(report: Report) -> dict[str, str]:
    return {x.name: x.reason for x in report.layers if x.outcome is not Outcome.DONE}


def test_dead_channels_go_and_nothing_changes() -> None:
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(8, 3, 3, 3)), rng.normal(size=8)
    dead = [0, 3, 4, 6]
    w[dead], b[dead] = 0.0, -1.0
    graph = pair(w, b)
    ctx = context(graph)
    report = run(graph, ctx, ratio=0.5)
    assert done(report) == {"conv1": 4}
    assert (weight_of(graph, "conv1"), weight_of(graph, "conv2")) == ((4, 3, 3, 3), (5, 4, 3, 3))
    assert error(ctx, graph) < 1e-9


def test_constant_channels_go_into_the_bias() -> None:
    """Zero padding makes a constant channel vary at the borders, so the reader is 1x1 here."""
    net = Net("N", 3, 6, 6)
    w, b = net.weight(8, 3), net.rng.normal(size=8)
    w[:4], b[:4] = 0.0, 2.0
    hidden = net.relu(net.conv(net.x, w, b, "conv1"))
    graph = net.finish(net.conv(hidden, net.weight(5, 8, 1), name="conv2"))
    ctx = context(graph)
    assert done(run(graph, ctx, ratio=0.5)) == {"conv1": 4}
    assert error(ctx, graph) < 1e-9


def test_duplicated_channels_go_and_their_twins_take_over() -> None:
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(8, 3, 3, 3)), rng.normal(size=8)
    w[4:], b[4:] = w[:4], b[:4]
    graph = pair(w, b)
    ctx = context(graph, 256)
    assert done(run(graph, ctx, ratio=0.5)) == {"conv1": 4}
    assert error(ctx, graph) < 1e-3


def test_the_refit_beats_taking_channels_away() -> None:
    rng = np.random.default_rng(0)
    graph = pair(rng.normal(size=(16, 3, 3, 3)), rng.normal(size=16))
    ctx = context(graph, 256)
    plain = graph.clone()
    run(graph, ctx, ratio=0.25)
    channels = CoupledChannels(plain)
    group = next(g for g in channels.groups if g.prunable)
    norm = np.abs(next(m for m in group.consumers).value.numpy()).sum(axis=(0, 2, 3))
    channels.prune({group: norm > np.sort(norm)[3]})
    assert error(ctx, graph) < 0.5 * error(ctx, plain)


@pytest.mark.parametrize("shape", [(1, 3, 6, 6), ("N", 3, "H", "W")])
def test_fixed_batch_of_one_and_dynamic_sizes(shape: tuple[int | str, ...]) -> None:
    rng = np.random.default_rng(0)
    graph = pair(rng.normal(size=(8, 3, 3, 3)), rng.normal(size=8), *shape)
    ctx = context(graph, 40, H=7, W=9)
    assert done(run(graph, ctx, ratio=0.5)) == {"conv1": 4}
    assert weight_of(graph, "conv2") == (5, 4, 3, 3)
    assert graph.inputs[0].shape == shape
    assert error(ctx, graph) < 1.0


def test_readers_that_share_a_weight_are_left_with_the_reason() -> None:
    net = Net("N", 3, 6, 6)
    hidden = net.relu(net.conv(net.x, net.weight(8, 3), name="conv1"))
    shared = net.graph.constant(net.weight(8, 8).astype(np.float32), "shared")
    second = net.relu(net.conv(hidden, shared, name="conv2"))
    third = net.relu(net.graph.add("ConvTranspose", [second, shared], name="conv3").output)
    graph = net.finish(net.conv(third, net.weight(2, 8), name="conv4"))
    report = run(graph, context(graph), ratio=0.5, groups="all")
    assert not done(report)
    assert any("which reads it in another way" in reason for reason in reasons(report).values())
    assert weight_of(graph, "conv1") == (8, 3, 3, 3)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_layers_that_share_a_bias_are_pruned_each_for_itself(scope: str) -> None:
    results = {}
    for tied in (False, True):
        net = Net("N", 3, 6, 6)
        hidden = net.relu(net.conv(net.x, net.weight(8, 3), np.full(8, 0.1), name="conv1"))
        hidden = net.relu(net.conv(hidden, net.weight(8, 8), np.full(8, 0.1), name="conv2"))
        graph = net.finish(net.conv(hidden, net.weight(4, 8), name="conv3"))
        if tied:
            first, second = (node for node in graph if node.name in ("conv1", "conv2"))
            second.set_input(2, first.inputs[2])
            graph.sweep()
        ctx = context(graph, 128)
        report = run(graph, ctx, ratio=0.5 if scope == "layer" else 0.3, scope=scope)
        results[tied] = done(report), error(ctx, graph)
    assert results[True] == results[False]
    assert results[True][0]


def residual(seed: int = 0) -> Graph:
    net = Net("N", 3, 6, 6, seed=seed)
    stream = net.relu(net.conv(net.x, net.weight(8, 3), name="stem"))
    for i in range(2):
        inner = net.relu(net.conv(stream, net.weight(16, 8), name=f"up{i}"))
        stream = net.relu(net.add(stream, net.conv(inner, net.weight(8, 16), name=f"down{i}")))
    return net.finish(net.conv(stream, net.weight(4, 8, 1), name="head"))


def test_streams_stay_whole_unless_asked_for() -> None:
    graph = residual()
    ctx = context(graph)
    report = run(graph, ctx, ratio=0.5)
    assert done(report) == {"up0": 8, "up1": 8}
    assert "residual stream" in reasons(report)["stem"]
    assert weight_of(graph, "stem") == (8, 3, 3, 3)
    assert error(ctx, graph) < 0.5


def test_streams_shrink_in_every_layer_at_once() -> None:
    graph = residual()
    ctx = context(graph)
    assert done(run(graph, ctx, ratio=0.5, groups="all")) == {"stem": 4, "up0": 8, "up1": 8}
    assert weight_of(graph, "stem") == (4, 3, 3, 3)
    assert weight_of(graph, "down1") == (4, 8, 3, 3)
    assert weight_of(graph, "head") == (4, 4, 1, 1)
    assert error(ctx, graph) < 1.0


def test_most_of_a_stream_goes_in_the_order_of_what_it_costs() -> None:
    """Two channels of the stream are all that matters to what reads it, and they are the ones that stay."""
    net = Net("N", 3, 6, 6)
    stem = net.weight(8, 3)
    w = net.weight(4, 8, 1)
    w[:, [i for i in range(8) if i not in (2, 5)]] *= 1e-3
    stream = net.relu(net.conv(net.x, stem, name="stem"))
    body = net.weight(8, 8)
    body[:, [i for i in range(8) if i not in (2, 5)]] *= 1e-3
    stream = net.relu(net.add(stream, net.conv(stream, body, name="body")))
    graph = net.finish(net.conv(stream, w, name="head"))
    ctx = context(graph, align=1)
    assert done(run(graph, ctx, ratio=0.75, groups="all")) == {"stem": 2}
    assert error(ctx, graph) < 0.01


def test_what_cannot_be_met_is_said() -> None:
    graph = residual()
    report = run(graph, context(graph), ratio=0.95, scope="global")
    assert any("removed no more than" in note for note in report.notes)
    little = residual()
    report = run(little, context(little, align=8), ratio=0.1)
    assert not report.changed
    assert "nearer to none" in reasons(report)["up0"]


@pytest.mark.parametrize(("of", "ratio"), [("macs", 0.3), ("params", 0.25)])
def test_the_allocator_meets_the_share_and_no_more_than_it_must(of: str, ratio: float) -> None:
    graph = residual()
    ctx = context(graph, align=1)
    before = cost(graph)
    report = run(graph, ctx, ratio=ratio, scope="global", of=of)
    after = cost(graph)
    left = after.macs / before.macs if of == "macs" else after.params / before.params
    assert 1 - ratio - 0.06 < left <= 1 - ratio + 0.005
    assert done(report)


def test_kept_counts_are_multiples_of_the_alignment() -> None:
    graph = residual()
    kept = done(run(graph, context(graph, align=8), ratio=0.4, scope="global"))
    assert kept
    assert all(count % 8 == 0 for count in kept.values())
    narrow = residual()
    report = run(narrow, context(narrow, align=32), ratio=0.5)
    assert not done(report)
    assert "go at a time" in reasons(report)["up0"]


def test_more_work_for_the_group_that_matters_less() -> None:
    """The first block's answer is worthless (its reader ignores it), so the allocator takes from there."""
    net = Net("N", 3, 6, 6)
    stream = net.relu(net.conv(net.x, net.weight(8, 3), name="stem"))
    for i, scale in enumerate((0.01, 1.0)):
        inner = net.relu(net.conv(stream, net.weight(16, 8), name=f"up{i}"))
        stream = net.relu(net.add(stream, net.conv(inner, scale * net.weight(8, 16), name=f"down{i}")))
    graph = net.finish(net.conv(stream, net.weight(4, 8, 1), name="head"))
    kept = done(run(graph, context(graph, 128, align=1), ratio=0.3, scope="global"))
    assert kept["up0"] < kept.get("up1", 16)


def test_the_choice_of_its_own_keeps_the_agreement_or_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual()
    ctx = context(graph)
    before = graph.clone()
    monkeypatch.setattr(tolerance, "SAFE", 1.5)
    report = run(graph, ctx)
    assert not report.changed
    assert "below 1" in reasons(report)["up0"]
    assert cost(graph).params == cost(before).params
    assert error(ctx, graph) == 0.0
    monkeypatch.setattr(tolerance, "SAFE", -1.0)
    assert done(run(graph, ctx))
    assert cost(graph).params < cost(before).params


def test_the_same_twice() -> None:
    def one() -> bytes:
        from optc.ir.onnx.writer import to_bytes

        graph = residual()
        run(graph, context(graph), ratio=0.3, scope="global")
        return to_bytes(graph)

    assert one() == one()


def digits(name: str, align: int = 8) -> tuple[Graph, Context, Samples]:
    graph = zoo.load(name)
    ctx = Context(TargetFacts("test", channel_alignment=align), threads=1)
    Clean().run(graph, ctx)
    infer(graph, fresh=True)
    ctx.teacher = graph.clone()
    ctx.fit, ctx.held_out = load_samples(zoo.samples(name, "calib"), graph).split(60)
    return graph, ctx, load_samples(zoo.samples(name, "test"), graph)


@pytest.mark.parametrize(
    ("name", "floor"), [("digits_resnet", 0.95), ("digits_dscnn", 0.9), ("digits_transformer", 0.95)]
)
def test_trained_networks_lose_a_quarter_and_still_agree(name: str, floor: float) -> None:
    graph, ctx, test = digits(name)
    before = cost(graph)
    report = run(graph, ctx, ratio=0.25, scope="global", of="params")
    after = cost(graph)
    assert done(report)
    assert after.params < 0.8 * before.params
    assert after.macs < before.macs
    assert ctx.teacher is not None
    assert agreement(ctx.teacher, graph, test, threads=1).share >= floor


def test_attention_heads_go_whole() -> None:
    graph, ctx, _ = digits("digits_transformer", align=1)
    report = run(graph, ctx, ratio=0.5)
    heads = [x for x in report.layers if x.detail.get("channels") == 4]
    assert heads
    assert all(x.outcome is Outcome.DONE and x.detail["kept"] == 2 for x in heads)


def test_a_trained_network_is_safe_on_its_own_choice() -> None:
    graph, ctx, test = digits("digits_resnet")
    before = cost(graph)
    report = run(graph, ctx)
    assert report.changed
    assert cost(graph).macs < before.macs
    assert ctx.teacher is not None
    assert agreement(ctx.teacher, graph, test, threads=1).share >= 0.96


def test_kit_keyword_spotter(kit: Path) -> None:
    from optc.ir.onnx.reader import load

    graph = load(kit / "models" / "kws_dscnn.onnx")
    ctx = Context(FACTS, threads=1)
    Clean().run(graph, ctx)
    graph.sort()
    infer(graph, fresh=True)
    ctx.teacher = graph.clone()
    data = np.load(kit / "data" / "kws.npz")
    ctx.fit, ctx.held_out = load_samples({graph.inputs[0].name: data["calib_x"]}, graph).split(40)
    before = cost(graph)
    run(graph, ctx, ratio=0.15, scope="global")
    assert cost(graph).macs <= 0.86 * before.macs
    assert agreement(ctx.teacher, graph, ctx.held_out, threads=1).share >= 0.85
