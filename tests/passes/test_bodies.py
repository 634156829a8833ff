"""Layers inside If, Loop and Scan are pruned and factorised by their weights alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from optc.compiler import Build, compile
from optc.ir.onnx.writer import to_bytes
from optc.passes.base import Layer, Outcome, Override

from ..real_models import samples, with_body


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


def test_what_the_graph_around_reads_too_stays() -> None:
    build = built(with_body("Loop"), "prune:ratio=0.5")
    reasons = [one.reason for step in build.report.steps for one in step.report.layers]
    assert "it is inside the body of a control-flow operator" in reasons
