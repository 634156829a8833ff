"""Layers in blocks of channels: the same answers and gradients as in plain order, whatever the window and the sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from optc.ir.attributes import AttributeValue
from optc.ir.gradient.differentiate import differentiate
from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.runtime.session import bare
from optc.runtime.training.blocked import block_convolutions, channel_block

IMAGE = (12, 11)
LAYERS: dict[str, tuple[tuple[int, ...], dict[str, AttributeValue]]] = {
    # weight (its input channels are told by the group), attributes
    "dense": ((24, 20, 3, 3), {"pads": (1, 1, 1, 1)}),
    "few-channels": ((20, 3, 3, 3), {"pads": (1, 1, 1, 1)}),
    "odd-outputs": ((7, 16, 3, 2), {"pads": (0, 1, 1, 0)}),
    "strided": ((16, 32, 3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
    "dilated": ((16, 16, 3, 3), {"pads": (2, 2, 2, 2), "dilations": (2, 2)}),
    "same": ((16, 16, 4, 4), {"auto_pad": "SAME_UPPER"}),
    "depthwise": ((20, 1, 3, 3), {"pads": (1, 1, 1, 1), "group": 20}),
    "depthwise-strided": ((16, 1, 3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2), "group": 16}),
    "depthwise-strided-late": ((16, 1, 3, 3), {"pads": (0, 0, 1, 1), "strides": (2, 2), "group": 16}),
    "depthwise-leftover": ((16, 1, 2, 2), {"strides": (3, 3), "group": 16}),
    "depthwise-dilated": ((16, 1, 3, 3), {"pads": (2, 2, 2, 2), "dilations": (2, 2), "group": 16}),
    "depthwise-5": ((32, 1, 5, 5), {"pads": (2, 2, 2, 2), "group": 32}),
}
PLAIN: dict[str, tuple[tuple[int, ...], dict[str, AttributeValue]]] = {
    "grouped": ((16, 8, 3, 3), {"group": 2}),
    "pointwise": ((16, 16, 1, 1), {}),
    "odd-channels": ((16, 22, 3, 3), {}),
    "depthwise-odd": ((18, 1, 3, 3), {"group": 18}),
}


@pytest.fixture(scope="module")
def block() -> int:
    if not channel_block():
        pytest.skip("this ONNX Runtime has no layout in blocks")
    return channel_block()


def layer(shape: Sequence[int], attributes: dict[str, AttributeValue], behind: str) -> tuple[Graph, list[Value]]:
    """A layer of one kind, with its inputs: the image, the weight, the bias and what is added."""
    graph = Graph("layer", opsets={"": 17})
    group = attributes.get("group", 1)
    assert isinstance(group, int)
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", shape[1] * group, *IMAGE)))
    weight = graph.add_input("w", TensorType(DType.FLOAT, tuple(shape)))
    bias = graph.add_input("b", TensorType(DType.FLOAT, (shape[0],)))
    y = graph.add("Conv", [x, weight, bias], {**attributes, "kernel_shape": tuple(shape[2:])}).output
    wrt = [x, weight, bias]
    if "add" in behind:
        infer(graph)
        assert y.shape is not None
        wrt.append(graph.add_input("z", TensorType(DType.FLOAT, y.shape)))
        y = graph.add("Add", [wrt[-1], y]).output
    if "relu" in behind:
        y = graph.add("Relu", [y]).output
    if "clip" in behind:
        y = graph.add("Clip", [y, graph.constant(np.float32(-0.5)), graph.constant(np.float32(1.0))]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT))
    infer(graph)
    return graph, wrt


def feeds(graph: Graph, samples: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    arrays = {}
    for value in graph.inputs:
        assert value.shape is not None
        sizes = [size if isinstance(size, int) else samples for size in value.shape]
        arrays[value.name] = random.standard_normal(sizes).astype(np.float32)
    return arrays


def answers(graph: Graph, wrt: Sequence[Value], block: int, samples: int = 3) -> tuple[list[np.ndarray], int]:
    """The layer's answer and the gradients of half of the sum of its squares; and how many layers were rewritten."""
    arrays = feeds(graph, samples)
    y = graph.outputs[0].value
    gradients = differentiate(graph, {y: y}, wrt, by_sample=block > 0)
    for i, value in enumerate(wrt):
        graph.add_output(gradients[value], f"g{i}", TensorType(DType.FLOAT))
    graph.sweep()
    count = block_convolutions(graph, block)
    return [np.asarray(a) for a in bare(graph, threads=1).run(None, arrays)], count


@pytest.mark.parametrize("behind", ["", "relu", "clip", "add", "add relu", "add clip"])
@pytest.mark.parametrize("name", LAYERS)
def test_answers_and_gradients_are_those_of_plain_order(name: str, behind: str, block: int) -> None:
    plain, _ = answers(*layer(*LAYERS[name], behind), 0)
    fast, count = answers(*layer(*LAYERS[name], behind), block)
    assert count >= 1
    for one, other in zip(plain, fast, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-3 * np.abs(one).max())


@pytest.mark.parametrize("name", PLAIN)
def test_other_layers_stay_as_they_are(name: str) -> None:
    graph, _ = layer(*PLAIN[name], "relu")
    assert block_convolutions(graph, 8) == 0
    assert [node.op for node in graph] == ["Conv", "Relu"]


def test_what_one_layer_leaves_in_blocks_the_next_one_reads_so(block: int) -> None:
    graph = Graph("chain", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 16, *IMAGE)))
    weights = [graph.add_input(f"w{i}", TensorType(DType.FLOAT, (16, 16, 3, 3))) for i in range(3)]

    def convolved(value: Value, weight: Value) -> Value:
        kind = TensorType(DType.FLOAT, ("N", 16, *IMAGE))
        return graph.add("Conv", [value, weight], {"pads": (1, 1, 1, 1)}, types=[kind]).output

    first = graph.add("Relu", [convolved(x, weights[0])]).output
    # Both sides of the sum are layers, and what is added is read again.
    total = graph.add("Add", [convolved(first, weights[1]), convolved(first, weights[2])]).output
    graph.add_output(graph.add("Relu", [total]).output, "y", TensorType(DType.FLOAT))
    graph.add_output(first, "first", TensorType(DType.FLOAT))
    infer(graph)
    arrays = feeds(graph, 2)
    plain = bare(graph, threads=1).run(None, arrays)
    assert block_convolutions(graph, block) == 3
    ops = [node.op for node in graph]
    # One more pair is of the sum's other side, which is made after it was asked for.
    assert not {"Relu", "Add"} & set(ops)
    assert ops.count("ReorderInput") == 2
    for one, other in zip(plain, bare(graph, threads=1).run(None, arrays), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-3)


def test_constant_weights_are_left_to_the_runtime() -> None:
    graph, _ = layer(*LAYERS["dense"], "")
    weight = graph.inputs[1]
    weight.replace_uses(graph.constant(np.ones(weight.static_shape or (), np.float32)))
    assert block_convolutions(graph, 8) == 0
