"""Transposed convolutions on the walk: seen from their outputs they are linear layers like any other."""

from __future__ import annotations

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.ir.verify.verify import verify
from optc.passes.base import Context, Outcome, Pass, Report, TargetFacts
from optc.passes.depthwise import Depthwise
from optc.passes.prune import Prune
from optc.passes.svd import Svd
from optc.passes.walk.readers import linear_layer
from optc.runtime.session import Session
from optc.runtime.sources import load_samples

GEOMETRIES = {
    "plain": {},
    "kernel = stride": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "overlapping": {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    "uneven": {"strides": [2, 3], "pads": [0, 1, 1, 0], "dilations": [2, 1]},
    "same upper": {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    "same lower": {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
    "valid": {"strides": [2, 2], "auto_pad": "VALID"},
    "grouped": {"strides": [2, 2], "group": 2},
    "depthwise": {"strides": [2, 2], "group": 4},
    "shape told": {"strides": [2, 2], "output_shape": [10, 11]},
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_rows_times_weights_are_the_answer(name: str) -> None:
    attributes = GEOMETRIES[name]
    rng = np.random.default_rng(0)
    kernel = attributes.get("kernel_shape", [3, 3])
    weight = rng.normal(size=(4, 4 // attributes.get("group", 1), *kernel)).astype(np.float32)
    graph = Graph("up", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4, 5, 5)))
    bias = graph.constant(rng.normal(size=4).astype(np.float32))
    node = graph.add("ConvTranspose", [x, graph.constant(weight), bias], attributes, name="up")
    graph.add_output(node.output, "y", TensorType(DType.FLOAT, None))
    data = rng.normal(size=(2, 4, 5, 5)).astype(np.float32)
    (answer,) = Session(graph, threads=1).run({"x": data})
    layer = linear_layer(node)
    at = np.arange(answer[0, 0].size)
    groups, n, d = layer.shape
    rows = layer.inputs(data, at, answer.shape).reshape(-1, groups, d)
    shift = layer.bias()
    assert shift is not None
    products = np.einsum("gnd,pgd->pgn", layer.weights(), rows).reshape(len(rows), groups * n) + shift
    np.testing.assert_allclose(products, layer.targets(answer, at), rtol=1e-4, atol=1e-4)
    layer.write(layer.weights(), layer.bias())
    np.testing.assert_array_equal(layer.weight.numpy(), weight)


def decoder() -> Graph:
    """A tiny segmentation net: down, a bottleneck, and up again by transposed convolutions."""
    rng = np.random.default_rng(0)
    graph = Graph("decoder", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 12, 12)))
    layers = (
        ("Conv", "down", (12, 3, 3, 3), {"strides": [2, 2], "pads": [1] * 4}),
        ("Conv", "middle", (16, 12, 3, 3), {"pads": [1] * 4}),
        ("ConvTranspose", "up", (16, 12, 4, 4), {"strides": [2, 2], "pads": [1] * 4}),
        ("Conv", "head", (2, 12, 1, 1), {}),
    )
    for op, name, shape, attributes in layers:
        weight = rng.normal(size=shape)
        if name == "up":  # of rank 4 across its outputs
            left, right = rng.normal(size=(12, 4)), rng.normal(size=(16, 4, 4, 4))
            weight = np.einsum("nr,crhw->cnhw", left, right)
        data = (weight * 4.0 / np.linalg.norm(weight)).astype(np.float32)
        shift = rng.normal(size=shape[op == "ConvTranspose"]).astype(np.float32) * 0.1
        inputs = [value, graph.constant(data), graph.constant(shift)]
        value = graph.add(op, inputs, attributes, outputs=[f"{name}.y"], name=name).output
        if name != "head":
            value = graph.add("Relu", [value]).output
    graph.add_output(value, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    return graph


def ran(one: Pass) -> tuple[Graph, Report, float]:
    """The decoder after the pass, its report, and the relative error that it has now."""
    graph = decoder()
    data = np.random.default_rng(1).normal(size=(48, 3, 12, 12)).astype(np.float32)
    facts = TargetFacts("onnx", measurable=False)
    ctx = Context(facts, teacher=graph.clone(), fit=load_samples({"x": data}, graph), threads=1)
    report = one.run(graph, ctx)
    graph.sweep()
    graph.sort()
    infer(graph, fresh=True)
    verify(graph)
    a, b = (Session(g, threads=1).run({"x": data})[0].astype(float) for g in (decoder(), graph))
    return graph, report, float(np.sum((a - b) ** 2) / np.sum((a - a.mean()) ** 2))


def outcome(report: Report, name: str) -> Outcome:
    return next(layer.outcome for layer in report.layers if layer.name == name)


def test_its_weights_are_pruned_and_repair_what_came_before() -> None:
    graph, report, error = ran(Prune(ratio=0.5))
    assert outcome(report, "up") is Outcome.DONE
    up = next(node for node in graph if node.name == "up").inputs[1]
    assert up is not None
    weight = up.numpy()
    assert weight is not None
    assert np.mean(weight == 0.0) == pytest.approx(0.5, abs=0.01)
    plain = decoder()  # the same masks, nothing fitted
    for node in plain:
        if node.op in ("Conv", "ConvTranspose"):
            twin = next(other for other in graph if other.name == node.name).inputs[1]
            old = node.inputs[1]
            assert twin is not None
            assert old is not None
            kept = np.where(twin.numpy() == 0.0, 0.0, old.numpy()).astype(np.float32)
            node.set_input(1, plain.constant(kept))
    data = np.random.default_rng(1).normal(size=(48, 3, 12, 12)).astype(np.float32)
    a, b = (Session(g, threads=1).run({"x": data})[0].astype(float) for g in (decoder(), plain))
    assert error < 0.7 * float(np.sum((a - b) ** 2) / np.sum((a - a.mean()) ** 2))


def test_n_of_m_groups_run_over_its_input_channels() -> None:
    graph, report, _ = ran(Prune(kind="nm"))
    assert outcome(report, "up") is Outcome.DONE
    up = next(node for node in graph if node.name == "up").inputs[1]
    assert up is not None
    weight = up.numpy()
    assert weight is not None
    assert (np.count_nonzero(weight.reshape(4, 4, -1), axis=1) <= 2).all()


def test_channels_that_it_reads_and_makes_go() -> None:
    graph, report, error = ran(Prune(kind="channels", ratio=0.25, align=1, scope="layer"))
    shapes = {node.name: v.constant.shape for node in graph if (v := node.input(1)) is not None and v.constant}
    assert shapes["up"] == (12, 9, 4, 4)
    assert error < 0.3
    assert outcome(report, "up") is Outcome.DONE


def test_it_is_split_across_its_outputs() -> None:
    graph, report, error = ran(Svd(error=0.001, align=1))
    assert outcome(report, "up") is Outcome.DONE
    assert error < 0.01
    assert [node.op for node in graph if node.name.startswith("up.")] == ["ConvTranspose", "Conv"]


def test_it_is_not_separated_and_says_so() -> None:
    _, report, _ = ran(Depthwise(rank=3))
    assert [x.reason for x in report.layers if x.name == "up"] == [
        "transposed convolution: only plain ones are separated"
    ]
