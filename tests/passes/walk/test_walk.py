"""The walk: sequential targets, each node executed once, skip paths, shared inputs, and layers that cannot be taken."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from walked import Net, context, distance, residual_net

from optc.errors import DataError
from optc.ir.attributes import AttributeValue
from optc.ir.graph import Graph, Node, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.ir.verify.verify import verify
from optc.passes.base import Context, Outcome, Report, TargetFacts
from optc.passes.depthwise import Depthwise
from optc.passes.prune import Prune
from optc.passes.svd import Svd
from optc.passes.walk import frontier
from optc.passes.walk.frontier import Frontier
from optc.passes.walk.moments import Moments
from optc.passes.walk.order import goals_of, in_order
from optc.passes.walk.readers import linear_layers
from optc.passes.walk.walk import _batch_size, walk, walkable
from optc.runtime.session import Session
from optc.runtime.sources import load_samples


def test_made_up_samples_are_believed_less() -> None:
    """The same samples, once as real ones: a fit to made-up ones stays nearer to the weights that it found."""
    moved = []
    for synthetic in (False, True):
        graph = residual_net()
        ctx = context(graph)
        assert ctx.fit is not None
        ctx.fit.synthetic = synthetic
        for step in walk(graph, ctx):
            weight = step.layer.weights()
            if not step.disturbed:
                step.settle(0.5 * weight)
                continue
            moved.append(float(np.sum((step.target.weight - weight) ** 2)))
            break
    assert moved[1] < 0.7 * moved[0]


def test_nothing_changed_means_nothing_to_repair() -> None:
    graph = residual_net()
    ctx = context(graph)
    steps = 0
    for step in walk(graph, ctx):
        steps += 1
        assert step.target.error(step.target.weight) < 1e-6
        np.testing.assert_allclose(step.target.weight, step.layer.weights(), atol=1e-3)
        step.settle()
    assert steps == len(linear_layers(graph)[0])
    assert distance(ctx.teacher, graph, ctx) < 1e-8


def test_later_layers_repair_what_earlier_ones_lost() -> None:
    lost = {}
    for repair in (False, True):
        graph = residual_net()
        ctx = context(graph, 256)
        for number, step in enumerate(walk(graph, ctx)):
            if number == 0:  # drop most of the first layer, crudely
                weight = step.layer.weights()
                weight[:, ::2] *= 0.2
                step.layer.write(weight, step.layer.bias())
            elif repair:
                step.settle()
        lost[repair] = distance(ctx.teacher, graph, ctx)
    assert lost[True] < 0.5 * lost[False]


def test_every_node_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those that are cheap to run again, of which there are none here."""
    monkeypatch.setattr(frontier, "IN_MEMORY", 0)
    graph = residual_net()
    ran: list[Node] = []
    compile_ = Frontier._compile

    def watch(self: Frontier, nodes: list[Node], *parts: Any, **pick: Any) -> object:
        ran.extend(nodes)
        return compile_(self, nodes, *parts, **pick)

    monkeypatch.setattr(Frontier, "_compile", watch)
    for _ in walk(graph, context(graph)):
        pass
    assert len(ran) == len(set(ran)) == len(graph) - 1  # all but the head itself, whose answer nobody reads


def test_a_layer_after_a_skip_makes_up_for_the_skip_path() -> None:
    graph = residual_net()
    ctx = context(graph, 256)
    for step in walk(graph, ctx):
        if step.layer.output.users[0].op == "Add" and step.layer.kernel == (3, 3):
            break
        bias = step.layer.bias()
        step.layer.write(step.layer.weights(), None if bias is None else bias + 0.5)
    else:
        pytest.fail("no layer is added to a skip path")
    # the shift of the skip value is taken into the bias of the layer that is added to it
    other = step.layer.bias()
    assert other is not None
    shift = step.target.bias(step.target.weight) - other
    assert np.abs(shift).max() > 0.1


@pytest.mark.parametrize(
    "passes",
    [
        [Prune(ratio=0.5)],
        [Prune(kind="nm")],
        [Svd(ratio=0.6, align=1)],
        [Svd(ratio=0.6, align=1, scope="global")],
        [Svd(ratio=0.6, align=1, form="spatial")],
        [Svd(ratio=0.6, align=1, form="tucker")],
        [Depthwise(rank=2)],
        [Depthwise(rank=2, form="pw-dw")],
        [Prune(ratio=0.3), Svd(ratio=0.7, align=1), Depthwise(rank=3)],
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", ["N", 1])
def test_passes_keep_the_graph_valid_and_near_the_teacher(passes: list, batch: str | int) -> None:
    graph = residual_net(batch=batch)
    ctx = context(graph, 64)
    for one in passes:
        report = one.run(graph, ctx)
        graph.sweep()
        graph.sort()
        infer(graph, fresh=True)
        verify(graph)
        assert report.count(Outcome.DONE)
        assert all(layer.reason for layer in report.layers if layer.outcome is not Outcome.DONE)
    assert distance(ctx.teacher, graph, ctx) < 0.9
    assert [o.name for o in graph.outputs] == ["out0"]


def test_all_taps_lose_nothing() -> None:
    graph = residual_net()
    ctx = context(graph, 256)
    Depthwise(rank=9, form="dw-pw").run(graph, ctx)
    assert distance(ctx.teacher, graph, ctx) < 1e-4


def test_svd_finds_the_rank_that_weights_really_have() -> None:
    graph = residual_net()
    for layer in linear_layers(graph)[0]:
        u, s, vt = np.linalg.svd(layer.weights()[0], full_matrices=False)
        layer.write(((u[:, :3] * s[:3]) @ vt[:3])[None], layer.bias())
    ctx = context(graph, 256)
    report = Svd(align=1, error=1e-3, form="channel").run(graph, ctx)
    done = [layer for layer in report.layers if layer.outcome is Outcome.DONE]
    assert len(done) >= 5
    assert all(int(layer.detail["rank"]) <= 3 for layer in done)
    assert distance(ctx.teacher, graph, ctx) < 0.02


def test_the_same_run_gives_the_same_bytes() -> None:
    from optc.ir.onnx.writer import to_bytes

    results = []
    for _ in range(2):
        graph = residual_net()
        Prune(ratio=0.5).run(graph, context(graph))
        graph.sweep()
        results.append(to_bytes(graph))
    assert results[0] == results[1]


def test_zeros_of_an_earlier_pass_stay_zero() -> None:
    graph = residual_net()
    ctx = context(graph)
    Prune(ratio=0.5).run(graph, ctx)
    masks = {layer.name: layer.weights() == 0.0 for layer in linear_layers(graph)[0]}
    for step in walk(graph, ctx):
        step.settle()
    for layer in linear_layers(graph)[0]:
        assert not layer.weights()[masks[layer.name]].any()


def test_global_scope_keeps_the_ratio_over_all_layers() -> None:
    graph = residual_net()
    Prune(ratio=0.6, scope="global").run(graph, context(graph, 128))
    inner = [layer for layer in linear_layers(graph)[0] if not layer.source.is_input]
    zeros = sum(int((layer.weights() == 0).sum()) for layer in inner)
    total = sum(layer.weights().size for layer in inner)
    assert 0.55 < zeros / total < 0.75


def test_layers_that_cannot_be_taken_say_why() -> None:
    net = Net(channels=4)
    shared = net.weight(4, 4, 1, 1)
    a = net.graph.add("Conv", [net.x, shared], name="first").output
    b = net.graph.add("Conv", [a, net.add("Neg", shared)], name="second").output
    computed = net.add("Relu", net.weight(4, 4, 1, 1))
    d = net.graph.add("Conv", [b, computed], name="computed").output
    bad = net.graph.constant(np.full((4, 4, 1, 1), np.nan, np.float32))
    e = net.graph.add("Conv", [d, bad], name="nan").output
    graph = net.done(e)
    layers, refused = linear_layers(graph)
    assert not layers
    assert {node.name: reason for node, reason in refused} == {
        "first": "its weight is shared with Neg 'v1', which reads it in another way",
        "second": "its weight is computed from constants when the model is loaded",
        "computed": "its weight is computed from constants when the model is loaded",
        "nan": "its weight is not finite",
    }
    report = Prune().run(graph, context(graph))
    assert report.count(Outcome.SKIPPED) == 4


def test_zero_weights_and_dead_channels_do_no_harm() -> None:
    net = Net()
    weight = np.zeros((8, 8, 3, 3), np.float32)
    a = net.graph.add("Conv", [net.x, net.graph.constant(weight)], {"pads": [1] * 4}, name="zero").output
    b = net.conv(net.add("Relu", a), 8, 8)
    c = net.conv(net.add("Add", b, net.x), 8, 8)
    graph = net.done(c)
    ctx = context(graph)
    for one in (Prune(ratio=0.2), Svd(ratio=0.8, align=1)):
        one.run(graph, ctx)
        graph.sweep()
        infer(graph, fresh=True)
    assert np.isfinite(distance(ctx.teacher, graph, ctx))


def test_products_with_and_without_a_bias() -> None:
    rng = np.random.default_rng(0)
    graph = Graph("tokens", opsets={"": 17})
    source = graph.add_input("x", TensorType(DType.FLOAT, ("N", "T", 12)))
    x = graph.add("Tanh", [source]).output

    def constant(*shape: int) -> Value:
        return graph.constant((rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32))

    q = graph.add("MatMul", [x, constant(12, 16)], name="q").output
    k = graph.add("Add", [constant(16), graph.add("MatMul", [x, constant(12, 16)], name="k").output]).output
    h = graph.add("Relu", [graph.add("Mul", [q, k]).output]).output
    out = graph.add("MatMul", [h, constant(16, 10)], name="out").output
    graph.add_output(out, "y", TensorType(DType.FLOAT, ("N", "T", 10)))
    for i, node in enumerate(graph):
        node.output.name = f"v{i}"
    infer(graph)
    data = rng.normal(size=(128, 5, 12)).astype(np.float32)
    facts = TargetFacts("onnx", measurable=False)
    ctx = Context(facts, teacher=graph.clone(), fit=load_samples({"x": data}, graph), threads=1)
    layers = {layer.name: layer for layer in linear_layers(graph)[0]}
    assert layers["q"].bias() is None
    assert layers["k"].bias() is not None
    for step in walk(graph, ctx):
        assert step.target.error(step.layer.weights()) < 1e-6
    before = len(graph)
    report = Svd(ratio=0.9, align=1, scope="layer").run(graph, ctx)
    assert report.count(Outcome.DONE) == 3
    infer(graph, fresh=True)
    verify(graph)
    assert len(graph) == before + 3
    assert distance(ctx.teacher, graph, ctx) < 0.5


@pytest.mark.parametrize("op", ["Add", "Relu"])
def test_a_layer_that_only_a_branch_reads_is_asked_for_its_own_output(op: str) -> None:
    net = Net()
    skip = net.conv(net.x, 8, 8)
    out = net.conv(net.add("Relu", skip), 8, 8)
    then, other = Graph("then"), Graph("else")
    inputs = [out, skip] if op == "Add" else [out]
    then.add_output(then.add(op, inputs, types=[out.type]).output, "then_y")
    other.add_output(other.add("Identity", [skip], types=[out.type]).output, "else_y")
    most = net.add("ReduceMax", net.x, keepdims=0)
    positive = net.add("Greater", most, net.graph.constant(np.float32(0)))
    graph = net.done(net.add("If", positive, then_branch=then, else_branch=other))
    infer(graph)
    ctx = context(graph)
    assert Prune(ratio=0.2).run(graph, ctx).count(Outcome.DONE) == 1
    for one in (Svd(ratio=0.9, align=1), Depthwise(rank=8)):
        one.run(graph, ctx)
        graph.sweep()
        graph.sort()
        infer(graph, fresh=True)
        verify(graph)
    assert distance(ctx.teacher, graph, ctx) < 0.5


def test_what_lies_before_a_sum_is_found_once_for_all_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(channels=4, size=2)
    x = net.x
    for _ in range(200):
        x = net.add("Add", net.conv(net.add("Relu", net.conv(x, 4, 4, 1)), 4, 4, 1), x)
    graph = net.done(x)
    groups = in_order(graph, linear_layers(graph)[0])
    read: list[Node] = []
    monkeypatch.setattr(Node, "captures", property(lambda node: read.append(node) or ()))
    assert sum(goal.sum is not None for group in goals_of(groups) for goal in group) == 200
    assert len(read) <= 3 * len(graph)


def test_a_product_of_constants_is_no_layer_to_walk() -> None:
    """It was too large to fold: a sum that it goes into is asked for of the other summand alone."""
    rng = np.random.default_rng(0)
    graph = Graph("positions", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 6, 8)))

    def product(a: Value, *shape: int, name: str) -> Value:
        weight = graph.constant((rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32))
        return graph.add("MatMul", [a, weight], name=name, outputs=[name]).output

    places = graph.constant(rng.normal(size=(1, 6, 4)).astype(np.float32), "places")
    summed = graph.add("Add", [product(x, 8, 16, name="first"), product(places, 4, 16, name="projected")]).output
    graph.add_output(product(graph.add("Relu", [summed]).output, 16, 5, name="last"), "y")
    infer(graph)
    ctx = context(graph)
    report = Prune(ratio=0.1).run(graph, ctx)
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert reasons["projected"] == "its input is constant"
    assert Svd(ratio=0.9, align=1).run(graph, ctx).count(Outcome.DONE)
    graph.sweep()
    assert distance(ctx.teacher, graph, ctx) < 0.5


def test_no_samples_is_a_data_error() -> None:
    graph = residual_net()
    with pytest.raises(DataError, match="--data"):
        next(walk(graph, Context(TargetFacts("onnx", measurable=False))))


def test_a_pass_that_finds_nothing_changes_nothing() -> None:
    from optc.ir.onnx.writer import to_bytes

    graph = residual_net()
    before = to_bytes(graph)
    for one in (Svd(error=0.0), Depthwise(error=0.0), Prune(error=0.0)):
        report = one.run(graph, context(graph))
        assert not report.changed
        assert to_bytes(graph) == before


def test_too_few_samples_are_said_and_survived() -> None:
    graph = residual_net()
    ctx = context(graph, 2)
    report = Prune(ratio=0.5).run(graph, ctx)
    assert any("too few rows" in note for note in report.notes)
    assert np.isfinite(distance(ctx.teacher, graph, ctx))
    many = residual_net()
    assert not Prune(ratio=0.5).run(many, context(many, 512)).notes


def test_the_cost_of_a_walk_is_told_in_forward_passes() -> None:
    from optc.passes.pipeline import Pipeline
    from optc.passes.runner import run

    graph = residual_net()
    ctx = context(graph)
    cleaned, split, again = run(Pipeline.parse("clean,svd:ratio=0.8:align=1,clean"), graph, ctx)
    assert split.forwards is not None
    assert split.forwards > 1
    assert cleaned.forwards is again.forwards is None


def test_a_step_leaves_no_moments_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are d x d each, and whoever takes the step needs some of that size of its own."""
    alive: list[weakref.ref[Moments]] = []

    class Watched(Moments):
        def __init__(self, groups: int, inputs: int, outputs: int) -> None:
            super().__init__(groups, inputs, outputs)
            alive.append(weakref.ref(self))

    monkeypatch.setattr("optc.passes.walk.collect.Moments", Watched)
    graph = residual_net()
    for step in walk(graph, context(graph)):
        assert alive
        assert all(moments() is None for moments in alive), step.layer.name


def test_open_sizes_count_as_large_as_they_are() -> None:
    """Answers of 64 x 512 x 512 floats take 64 MiB a sample, whether or not the model says so."""
    for size in (512, "H"):
        net = Net(channels=1, size=size)  # type: ignore[arg-type]
        graph = net.done(net.conv(net.x, 64, 1, 1))
        samples = load_samples({"x": np.zeros((20, 1, 512, 512), np.float32)}, graph)
        ctx = Context(TargetFacts("onnx"), fit=samples, threads=1)
        assert _batch_size(graph, ctx, linear_layers(graph)[0], 16) == 2, size


def test_a_walk_goes_no_further_than_what_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual_net()
    layers = [step.layer for step in walk(graph, context(graph))]
    third = layers[2]
    assert [step.layer for step in walk(graph, context(graph), layers, changing=[third])] == [third]
    seen = []
    for step in walk(graph, context(graph), layers, changing=[third]):
        seen.append(step.layer)
        if step.layer is third:
            step.settle(0.5 * step.layer.weights())
        else:
            assert step.disturbed
    assert seen == layers[2:]  # once something has changed there is something to repair
    monkeypatch.setattr(Session, "run", lambda *_: pytest.fail("nothing may change, so nothing needs to run"))
    assert not list(walk(graph, context(graph), layers, changing=[]))


@pytest.mark.parametrize(
    ("op", "domain", "attributes", "shape"),
    [
        ("Einsum", "", {"equation": "nij,jk->nik"}, (40, 60)),
        ("FusedMatMul", "com.microsoft", {"alpha": 0.5}, (40, 60)),
        ("LSTM", "", {"hidden_size": 16}, (1, 64, 40)),
    ],
)
def test_weights_that_are_in_no_layer_are_said_to_be_left(
    op: str, domain: str, attributes: dict[str, AttributeValue], shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    graph = Graph("g", opsets={"": 17, "com.microsoft": 1})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 40)))
    weight = graph.constant(rng.normal(size=shape).astype(np.float32))
    rest = [graph.constant(rng.normal(size=(1, 64, 16)).astype(np.float32))] if op == "LSTM" else []
    node = graph.add(op, [x, weight, *rest], attributes, domain=domain, name="whole")
    small = graph.constant(np.ones((4, 4), np.float32))
    graph.add("Einsum", [x, small], {"equation": "nij,kl->ni"}, name="small")
    graph.add_output(node.output, "y", None)
    report = Report()
    assert not walkable(graph, report)
    assert [(layer.name, layer.outcome) for layer in report.layers] == [("whole", Outcome.SKIPPED)]
    assert op in report.layers[0].reason
