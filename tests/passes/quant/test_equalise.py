"""Equalisation: the same function, and tensors whose channels fill their range."""

from __future__ import annotations

import numpy as np
import pytest
from quantized import cleaned

from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.models import zoo
from optc.passes.base import Context, TargetFacts
from optc.passes.quant.calibrate import Seen
from optc.passes.quant.equivalent.equalise import _parts, _Tensor, equalise
from optc.passes.quant.equivalent.homogeneous import FROZEN, scale_classes
from optc.passes.quant.layers import find_layers
from optc.runtime.session import Session
from optc.runtime.sources import load_samples


def chain(between: str, depthwise: bool = False) -> Graph:
    """conv -> `between` -> conv, with channels of very different size in the middle."""
    rng = np.random.default_rng(0)
    graph = Graph("chain", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 8, 8)))
    weight = rng.normal(size=(8, 3, 3, 3)) * np.geomspace(1, 0.03, 8)[:, None, None, None]
    parts = [x, graph.constant(weight.astype(np.float32)), graph.constant(np.zeros(8, np.float32))]
    y = graph.add("Conv", parts, {"pads": [1] * 4}, name="first", outputs=["y"]).output
    ends = [graph.constant(np.asarray(v, np.float32)) for v in (0.0, 6.0)] if between == "Clip" else []
    z = graph.add(between, [y, *ends], outputs=["z"]).output
    if depthwise:
        kernel = graph.constant(rng.normal(size=(8, 1, 3, 3)).astype(np.float32))
        z = graph.add("Conv", [z, kernel], {"group": 8, "pads": [1] * 4}, name="depthwise", outputs=["d"]).output
    last = graph.constant(rng.normal(size=(4, 8, 1, 1)).astype(np.float32))
    graph.add_output(graph.add("Conv", [z, last], name="last").output, "out", TensorType(DType.FLOAT, ("N", 4, 8, 8)))
    infer(graph)
    return graph


def scaled(graph: Graph, samples: dict[str, np.ndarray]) -> int:
    held_out = load_samples(samples, graph)
    return equalise(graph, find_layers(graph)[0], Seen(graph, Context(TargetFacts("test"), threads=1), held_out))


@pytest.mark.parametrize("between", ["Relu", "Clip", "Identity"])
@pytest.mark.parametrize("depthwise", [False, True])
def test_channels_fill_the_range_and_answers_stay(between: str, depthwise: bool) -> None:
    graph = chain(between, depthwise)
    x = {"x": np.random.default_rng(1).normal(size=(16, 3, 8, 8)).astype(np.float32)}
    middle = next(v for node in graph for v in node.outputs if v.name == "z")
    want, before = Session(graph, outputs=[graph.outputs[0].value, middle], threads=1).run(x)
    assert scaled(graph, x) >= 4
    scaled_output, after = Session(graph, outputs=[graph.outputs[0].value, middle], threads=1).run(x)
    assert scaled_output == pytest.approx(want, abs=1e-4 * float(np.abs(want).max()))
    spread = [np.ptp(np.log(np.abs(a).max(axis=(0, 2, 3)))) for a in (before, after)]
    assert spread[1] < 0.7 * spread[0]
    assert np.abs(after).max() <= np.abs(before).max() * 1.0001


def test_tensors_that_share_a_class_are_weighed_together_and_frozen_channels_tie_none() -> None:
    classes = {
        Value("a"): [1, 2],
        Value("b"): [FROZEN, 3],
        Value("c"): [FROZEN, 4, 5],
        Value("d"): [5, 2],
        Value("e"): [0],
    }
    ones = np.ones(3)
    tensors = {v: _Tensor(np.asarray(c), -ones, ones, ones) for v, c in classes.items()}
    parts = _parts(tensors, [], 6)
    names = {id(t): value.name for value, t in tensors.items()}
    assert [[names[id(t)] for t in part.tensors] for part in parts] == [["a", "c", "d"], ["b"]]
    assert [part.classes().tolist() for part in parts] == [[1, 2, 4, 5], [3]]


def test_an_operator_that_does_not_commute_freezes_its_channels() -> None:
    graph = chain("Sigmoid")
    x = {"x": np.random.default_rng(1).normal(size=(4, 3, 8, 8)).astype(np.float32)}
    assert scaled(graph, x) == 0


def test_summands_share_their_factors_and_outputs_are_frozen() -> None:
    graph = cleaned("digits_resnet")
    classes = scale_classes(graph, find_layers(graph)[0])
    add = next(node for node in graph if node.op == "Add")
    first, second = (classes.of[v] for v in add.inputs if v is not None)
    assert np.array_equal(first, second)
    assert (first != FROZEN).any()
    assert all((classes.of.get(o.value, np.zeros(1)) == FROZEN).all() for o in graph.outputs)


@pytest.mark.parametrize("name", ["digits_dscnn", "digits_resnet"])
def test_trained_networks_answer_the_same(name: str) -> None:
    graph = cleaned(name)
    samples = zoo.samples(name, "calib")
    few = {key: array[:64] for key, array in samples.items()}
    want = Session(graph, threads=1).run(few)[0]
    assert scaled(graph, few) > 0
    assert Session(graph, threads=1).run(few)[0] == pytest.approx(want, abs=1e-3 * float(np.abs(want).max()))
