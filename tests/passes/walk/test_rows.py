"""Rows that not every batch has, and rows that a network picks itself."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from real_models import Maker, experts, samples
from walked import Net, context

from optc.compiler import Build, compile
from optc.compiler.model import read
from optc.ir.onnx.writer import to_bytes
from optc.passes.base import Context, Layer, Outcome, TargetFacts
from optc.passes.walk.pairing import selections
from optc.passes.walk.readers import linear_layers
from optc.passes.walk.walk import walk
from optc.runtime.sources import load_samples

LOSSY = ("prune", "prune:kind=nm", "prune:kind=channels", "svd:ratio=0.5", "depthwise", "quant", "quant:weights=int4",
         "quant:activations=dynamic", "quant:activations=none")  # fmt: skip


def layers_of(build: Build) -> list[Layer]:
    """What became of the layers, of all lossy passes."""
    return [layer for step in build.report.steps for layer in step.report.layers]


@pytest.mark.parametrize("passes", LOSSY)
@pytest.mark.parametrize("threshold", [1.5, 1e9])
def test_layers_that_some_or_all_samples_do_not_reach(passes: str, threshold: float) -> None:
    """A sample in a few has rows for the expert, or none has."""
    build = compile(experts(threshold=threshold), passes, data=samples(24, x=(8, 16)), guard=False, check=False)
    feeds = samples(4, 2, x=(8, 16))
    (y,) = onnxruntime.InferenceSession(to_bytes(build.graph)).run(None, feeds)
    (t,) = onnxruntime.InferenceSession(experts(threshold=threshold).SerializeToString()).run(None, feeds)
    assert np.sum((y - t) ** 2) < 0.5 * np.sum(t**2)
    if threshold == 1e9 and passes.startswith("quant"):
        unreached = [layer for layer in layers_of(build) if "no sample reaches" in layer.reason]
        assert len(unreached) == 2 or passes != "quant"


@pytest.mark.parametrize("passes", LOSSY)
def test_experts_whose_rows_change_with_the_router(passes: str) -> None:
    model = experts()
    build = compile(model, passes, data=samples(24, x=(8, 16)), guard=False, check=False)
    feeds = samples(8, 2, x=(8, 16))
    (y,) = onnxruntime.InferenceSession(to_bytes(build.graph)).run(None, feeds)
    (t,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    assert np.sum((y - t) ** 2) < 0.5 * np.sum(t**2)


def test_rows_of_another_selection_are_not_paired() -> None:
    """The router is turned round, so that every expert is given other tokens than the teacher gave it: each is then to
    stay what it is, though the numbers of rows are equal by construction of the scores."""
    make = Maker()
    h = make.add("MatMul", "x", make.weight(16, 24))
    scores = make.add("Reshape", make.add("MatMul", h, make.weight(24, 1)), make.constant([-1], np.int64))
    rows = make.add("Reshape", h, make.constant([-1, 24], np.int64))
    picked = make.add("TopK", scores, make.constant([20], np.int64), outputs=2).replace(".0", ".1")
    mine = make.add("Gather", rows, picked)
    y = make.add("Gemm", mine, make.weight(12, 24), make.weight(12), transB=1)
    graph = read(make.build({"x": ["N", 16]}, {"y": y}))
    layers = linear_layers(graph)[0]
    first, router, expert = layers
    assert [value.producer.op for value in selections(graph, [x.node for x in layers])[expert.source]] == ["TopK"]
    data = load_samples(samples(400, x=(16,)), graph)
    ctx = Context(TargetFacts("onnx", measurable=False), teacher=graph.clone(), fit=data, threads=1)
    for step in walk(graph, ctx, layers, batch=40):
        if step.layer is router:
            step.settle(-step.layer.weights())
        elif step.layer is expert:
            np.testing.assert_allclose(step.target.weight, expert.weights(), atol=1e-3)
            assert step.target.floor < 1e-6 * step.target.energy
    assert first is not expert


def test_a_selection_that_stays_pairs_the_rows() -> None:
    """Where the same rows are selected, the layer behind makes up for what the one before lost."""
    make = Maker()
    h = make.add("MatMul", "x", make.weight(16, 16))
    total = make.add("ReduceSum", "x", make.constant([1], np.int64), keepdims=0)
    at = make.add("NonZero", make.add("Greater", total, make.constant(0.0, np.float32)))
    mine = make.add("Gather", h, make.add("Squeeze", at, make.constant([0], np.int64)))
    y = make.add("Gemm", mine, make.weight(12, 16), make.weight(12), transB=1)
    graph = read(make.build({"x": ["N", 16]}, {"y": y}))
    layers = linear_layers(graph)[0]
    first, second = layers
    data = load_samples(samples(400, x=(16,)), graph)
    ctx = Context(TargetFacts("onnx", measurable=False), teacher=graph.clone(), fit=data, threads=1)
    for step in walk(graph, ctx, layers, batch=40):
        if step.layer is first:
            step.settle(0.5 * step.layer.weights())
        else:
            np.testing.assert_allclose(step.target.weight, 2.0 * second.weights(), rtol=0.05, atol=0.1)


def test_values_without_a_type() -> None:
    """What operators of other domains make has no type: the one that was seen there is taken."""
    net = Net()
    graph = net.done(net.conv(net.add("Relu", net.conv(net.x, 16, 8)), 4, 16))
    ctx = context(graph)
    for node in graph:
        for value in node.outputs:
            value.type = None
    assert len(list(walk(graph, ctx))) == 2


@pytest.mark.parametrize("passes", ["prune", "prune:kind=channels", "svd", "depthwise", "quant:activations=dynamic"])
@pytest.mark.parametrize("size", [1e14, 1e28])
def test_weights_that_overflow(passes: str, size: float) -> None:
    """One weight so large that squares of what it makes are no numbers: that layer is named, the others go on."""
    net = Net(channels=8, size=6)
    a = net.conv(net.x, 16, 8)
    numbers = np.array(a.producer.inputs[1].numpy())
    numbers[3, 2, 1, 1] = size
    a.producer.set_input(1, net.graph.constant(numbers))
    b = net.conv(net.add("Relu", a), 16, 16)
    c = net.conv(net.x, 16, 8, 3)
    d = net.conv(net.add("Relu", c), 16, 16)
    graph = net.done(b, d)
    build = compile(graph, passes, data=samples(32, x=(8, 6, 6)), guard=False, check=False)
    layers = layers_of(build)
    assert layers
    if passes == "prune":
        assert [x.outcome for x in layers].count(Outcome.DONE) >= 1


@pytest.mark.parametrize("passes", ["prune", "prune,svd,quant"])
def test_of_one_sample_nobody_can_judge_by_little_is_lost(passes: str) -> None:
    """Three rows of 32 numbers: weights that these rows do not see were free to go, a third of the answer with them."""
    make = Maker()
    h = make.add("Relu", make.add("MatMul", make.add("Tanh", "x"), make.weight(32, 64)))
    model = make.build({"x": ["N", "T", 32]}, {"y": make.add("MatMul", h, make.weight(64, 16))})
    build = compile(model, passes, data=samples(1, 3, x=(3, 32)), check=False)
    feeds = samples(8, 2, x=(3, 32))
    y, t = (onnxruntime.InferenceSession(one).run(None, feeds)[0]
            for one in (to_bytes(build.graph), model.SerializeToString()))  # fmt: skip
    assert np.sum((y - t) ** 2) < 0.02 * np.sum(t**2)
