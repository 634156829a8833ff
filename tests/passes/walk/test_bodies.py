"""Layers inside If, Loop and Scan are pruned and factorised by their weights alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from real_models import FLOAT, Maker, samples, with_body

from optc.compiler import Build, compile
from optc.ir.onnx.writer import to_bytes
from optc.passes.base import Layer, Outcome, Override


def weighted(op: str, weight: np.ndarray) -> onnx.ModelProto:
    """`with_body` with `weight` as the weight inside its bodies."""
    model = with_body(op)
    for node in model.graph.node:
        for attribute in node.attribute:
            for tensor in attribute.g.initializer:
                tensor.CopyFrom(numpy_helper.from_array(weight.astype(np.float32), tensor.name))
    return model


def built(model: onnx.ModelProto, passes: str) -> Build:
    """With the layers around the body kept."""
    kept = [Override(match="MatMul*", skips=("prune", "svd"))]
    return compile(model, passes, data=samples(40, x=(16,)), overrides=kept, guard=False, check=False)


def inside(build: Build) -> list[Layer]:
    return [one for step in build.report.steps for one in step.report.layers if one.detail.get("inputs") == "not seen"]


def noise(build: Build, model: onnx.ModelProto) -> float:
    """Of the outputs on other samples, as a share of their power."""
    feeds = samples(16, 2, x=(16,))
    models = to_bytes(build.graph), model.SerializeToString()
    y, t = (onnxruntime.InferenceSession(one).run(None, feeds)[0] for one in models)
    return float(np.sum((y - t) ** 2) / np.sum(t**2))


@pytest.mark.parametrize("op", ["Loop", "If", "Scan"])
def test_half_of_a_weight_goes(op: str) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((48, 48)) / 7
    weight[rng.random((48, 48)) < 0.5] *= 1e-3
    model = weighted(op, weight)
    build = built(model, "prune:ratio=0.5")
    layers = inside(build)
    assert len(layers) == (2 if op == "If" else 1)
    assert all(layer.outcome is Outcome.DONE and layer.detail["sparsity"] == 0.5 for layer in layers)
    assert noise(build, model) < 1e-3
    assert any("by their weights alone" in note for step in build.report.steps for note in step.report.notes)


@pytest.mark.parametrize("op", ["Loop", "If", "Scan"])
def test_two_of_four_stay(op: str) -> None:
    build = built(weighted(op, np.random.default_rng(0).standard_normal((48, 48)) / 7), "prune:kind=nm")
    bodies = [graph for graph in build.graph.graphs() if graph is not build.graph]
    constants = [value for graph in bodies for value in graph.constants]
    weights = [v.numpy() for v in constants if v.constant is not None and v.constant.size == 48 * 48]
    assert weights
    for weight in weights:
        assert weight is not None
        assert ((np.asarray(weight).T.reshape(48, 12, 4) != 0).sum(2) == 2).all()


@pytest.mark.parametrize("op", ["Loop", "If", "Scan"])
def test_a_weight_of_low_rank_is_split(op: str) -> None:
    rng = np.random.default_rng(0)
    model = weighted(op, rng.standard_normal((48, 8)) @ rng.standard_normal((8, 48)) / 20)
    build = built(model, "svd:error=0.001:align=4")
    assert [layer.detail["rank"] for layer in inside(build)] == [8] * (2 if op == "If" else 1)
    assert noise(build, model) < 1e-3


def convolved(op: str, weight: np.ndarray) -> onnx.ModelProto:
    """A convolution, plain or transposed, in both branches of an If."""
    make = Maker()
    h = make.add("Tanh", "x")
    branches = []
    for out in ("o0", "o1"):
        info = helper.make_tensor_value_info(out, FLOAT, None)
        tensor = numpy_helper.from_array(weight.astype(np.float32), f"{out}.w")
        node = helper.make_node(op, [h, tensor.name], [out], pads=[1] * 4, strides=[2, 2])
        branches.append(helper.make_graph([node], out, [], [info], [tensor]))
    positive = make.add("Greater", make.add("ReduceSum", "x", keepdims=0), make.constant(0, np.float32))
    h = make.add("If", positive, then_branch=branches[0], else_branch=branches[1])
    return make.build({"x": ["N", 16, 6, 6]}, {"y": h})


SHAPE = (32, 16, 3, 3)
KERNELS = {
    "prune:ratio=0.5": lambda rng: np.where(rng.random(SHAPE) < 0.5, 1e-4, 1.0) * rng.standard_normal(SHAPE),
    "svd:ratio=0.7:align=8": lambda rng: (rng.standard_normal((32, 8)) @ rng.standard_normal((8, 144))).reshape(SHAPE),
    "depthwise:rank=1": lambda rng: rng.standard_normal((32, 16, 1, 1)) * rng.standard_normal((1, 16, 3, 3)),
}


@pytest.mark.parametrize("passes", KERNELS)
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_convolutions_in_bodies_are_changed_by_their_weights(op: str, passes: str) -> None:
    weight = KERNELS[passes](np.random.default_rng(0)) / 12
    transposed = op == "ConvTranspose"
    model = convolved(op, weight.swapaxes(0, 1) if transposed else weight)
    build = compile(model, passes, data=samples(24, x=(16, 6, 6)), guard=False, check=False)
    layers = [one for step in build.report.steps for one in step.report.layers]
    if transposed and passes.startswith("depthwise"):
        assert {layer.outcome for layer in layers} == {Outcome.SKIPPED}
        return
    assert [layer.outcome for layer in layers] == [Outcome.DONE] * 2
    feeds = samples(8, 2, x=(16, 6, 6))
    y, t = (onnxruntime.InferenceSession(one).run(None, feeds)[0]
            for one in (to_bytes(build.graph), model.SerializeToString()))  # fmt: skip
    assert np.sum((y - t) ** 2) < 1e-6 * np.sum(t**2)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_convolutions_in_bodies_are_stored_in_eight_bits(op: str) -> None:
    weight = np.random.default_rng(0).standard_normal((16, 16, 3, 3)) / 12
    model = convolved(op, weight)
    build = compile(model, "quant", data=samples(24, x=(16, 6, 6)), check=False, guard=False)
    assert len(to_bytes(build.graph)) < 0.4 * len(model.SerializeToString())
