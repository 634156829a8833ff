"""Networks in which channels are coupled in every way that is known, each a function that writes it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, Shape, TensorType

CASES: dict[str, Callable[[Net], Value]] = {}


class Net:
    """A graph written one node a line; weights are seeded by their shape and place."""

    def __init__(self, shape: Shape = ("N", 6, 8, 8), opset: int = 18) -> None:
        self.graph = Graph("net", opsets={"": opset})
        self.x = self.graph.add_input("x", TensorType(DType.FLOAT, shape))
        self.count = 0

    def weight(self, *shape: int) -> Value:
        self.count += 1
        rng = np.random.default_rng((self.count, *shape))
        return self.graph.constant((0.1 + abs(rng.standard_normal(shape))).astype(np.float32), f"w{self.count}")

    def ints(self, *values: int) -> Value:
        return self.graph.constant(np.array(values, np.int64))

    def __call__(self, op: str, *inputs: Value | None, outputs: int = 1, **attributes: object) -> Value:
        return self.graph.add(op, inputs, attributes, outputs=outputs, name=f"{op}.{len(self.graph)}").output  # type: ignore[arg-type]

    def conv(self, x: Value, read: int, outputs: int, kernel: int = 1, group: int = 1) -> Value:
        pads = [kernel // 2] * 4
        weight = self.weight(outputs, read // group, kernel, kernel)
        return self("Conv", x, weight, self.weight(outputs), group=group, pads=pads)

    def finish(self, y: Value) -> Graph:
        self.graph.add_output(y, "y")
        infer(self.graph)
        self.graph.outputs[0].type = y.type
        return self.graph


def case(function: Callable[[Net], Value]) -> Callable[[Net], Value]:
    CASES[function.__name__] = function
    return function


@case
def residual(n: Net) -> Value:
    a = n("Relu", n.conv(n.x, 6, 8, 3))
    b = n.conv(n("Relu", n.conv(a, 8, 12, 3)), 12, 8, 3)
    return n.conv(n("Add", a, b), 8, 5)


@case
def depthwise_with_multiplier(n: Net) -> Value:
    a = n.conv(n.x, 6, 8)
    return n.conv(n("Clip", n.conv(a, 8, 16, 3, group=8)), 16, 5)


@case
def grouped(n: Net) -> Value:
    a = n.conv(n.x, 6, 12)
    return n.conv(n("Relu", n.conv(a, 12, 8, 3, group=2)), 8, 5)


@case
def shuffle(n: Net) -> Value:
    a = n.conv(n.conv(n.x, 6, 12), 12, 12, 1, group=3)
    b = n("Transpose", n("Reshape", a, n.ints(0, 3, 4, 8, 8)), perm=[0, 2, 1, 3, 4])
    return n.conv(n.conv(n("Reshape", b, n.ints(0, -1, 8, 8)), 12, 12, 3, group=12), 12, 5)


@case
def concat_of_branches(n: Net) -> Value:
    a = n("Relu", n.conv(n.x, 6, 4))
    b, c = n.conv(a, 4, 6), n.conv(a, 4, 8, 3)
    return n.conv(n("Concat", b, n.x, c, axis=1), 20, 5)


@case
def split_in_parts(n: Net) -> Value:
    a = n.conv(n.x, 6, 10)
    parts = n.graph.add("Split", [a, n.ints(4, 6)], {"axis": 1}, outputs=2)
    return n("Add", n.conv(parts.outputs[0], 4, 5), n.conv(parts.outputs[1], 6, 5))


@case
def split_evenly_for_a_gate(n: Net) -> Value:
    a = n.conv(n.x, 6, 12)
    parts = n.graph.add("Split", [a], {"axis": 1, "num_outputs": 2}, outputs=2)
    return n.conv(n("Mul", parts.outputs[0], n("Sigmoid", parts.outputs[1])), 6, 5)


@case
def split_into_uneven_rest(n: Net) -> Value:
    a = n.conv(n.x, 6, 12)
    parts = n.graph.add("Split", [a], {"axis": 1, "num_outputs": 2}, outputs=2)
    return n("Add", n.conv(parts.outputs[0], 6, 5), n.conv(n("Relu", parts.outputs[1]), 6, 5))


@case
def sliced(n: Net) -> Value:
    a = n.conv(n.x, 6, 10)
    b = n("Slice", a, n.ints(2, 1), n.ints(-1, 8), n.ints(1, 2), n.ints(1, 2))
    return n.conv(n("Relu", b), 7, 5)


@case
def padded_shortcut(n: Net) -> Value:
    a = n.conv(n.x, 6, 4)
    wide = n("Pad", n("Slice", a, n.ints(0), n.ints(99), n.ints(2), n.ints(2)), n.ints(0, 2, 0, 0, 0, 2, 0, 0))
    b = n("Conv", n("Relu", a), n.weight(8, 4, 3, 3), strides=[2, 1], pads=[1, 1, 1, 1])
    return n.conv(n("Add", wide, b), 8, 5)


@case
def picked(n: Net) -> Value:
    a = n.conv(n.x, 6, 8)
    return n.conv(n("Relu", n("Gather", a, n.ints(7, 0, 3, 3, -2), axis=1)), 5, 5)


@case
def squeeze_and_excite(n: Net) -> Value:
    a = n("HardSwish", n.conv(n.x, 6, 12))
    s = n.conv(n("Relu", n.conv(n("GlobalAveragePool", a), 12, 3)), 3, 12)
    return n.conv(n("Mul", a, n("HardSigmoid", s)), 12, 5)


@case
def flattened(n: Net) -> Value:
    a = n("MaxPool", n("Relu", n.conv(n.x, 6, 4)), kernel_shape=[2, 2], strides=[2, 2])
    b = n("Relu", n("Gemm", n("Flatten", a), n.weight(7, 64), n.weight(7), transB=1))
    return n("Gemm", b, n.weight(7, 5), n.weight(1, 5))


@case
def reshaped_and_summed(n: Net) -> Value:
    a = n("Reshape", n("Relu", n.conv(n.x, 6, 4)), n.ints(-1, 4, 64))
    b = n("ReduceMean", n("Transpose", a, perm=[0, 2, 1]), n.ints(1), keepdims=0)
    return n("Unsqueeze", n("ReduceSum", n("Unsqueeze", b, n.ints(2)), n.ints(1), keepdims=0), n.ints(1))


@case
def norms(n: Net) -> Value:
    a = n("BatchNormalization", n.conv(n.x, 6, 8), *(n.weight(8) for _ in range(4)))
    b = n("PRelu", n("InstanceNormalization", a, n.weight(8), n.weight(8)), n.weight(8, 1, 1))
    return n.conv(n("Div", n("Mul", b, n.weight(1, 8, 1, 1)), n.weight(1)), 8, 5)


@case
def transposed_convolutions(n: Net) -> Value:
    a = n("ConvTranspose", n.conv(n.x, 6, 8), n.weight(8, 6, 2, 2), n.weight(6), strides=[2, 2])
    return n.conv(n("ConvTranspose", n("Relu", a), n.weight(6, 1, 2, 2), n.weight(6), group=6), 6, 5)


@case
def resampled(n: Net) -> Value:
    a = n("DepthToSpace", n.conv(n.x, 6, 16), blocksize=2)
    b = n("SpaceToDepth", n("DepthToSpace", n.conv(n.x, 6, 16), blocksize=2, mode="CRD"), blocksize=2)
    c = n("Resize", n.conv(b, 16, 3), None, None, n.graph.constant(np.array([2, 3, 16, 16], np.int64)))
    return n.conv(n("Concat", a, n("Expand", c, n.ints(1, 3, 1, 1)), axis=1), 7, 5)


@case
def upsampled(n: Net) -> Value:
    scales = n.graph.constant(np.array([1, 1, 2, 2], np.float32))
    a = n("Resize", n.conv(n.x, 6, 4), None, scales)
    return n.conv(n("Tile", a, n.ints(1, 2, 1, 1)), 8, 5)


@case
def shared_weight(n: Net) -> Value:
    w = n.weight(6, 6, 1, 1)
    a = n("Conv", n("Relu", n("Conv", n.conv(n.x, 6, 6), w)), w)
    return n.conv(a, 6, 5)


@case
def quantized(n: Net) -> Value:
    a, scale = n("Relu", n.conv(n.x, 6, 8)), n.weight(8)
    return n.conv(n("DequantizeLinear", n("QuantizeLinear", a, scale, axis=1), scale, axis=1), 8, 5)


@case
def weights_on_the_left(n: Net) -> Value:
    a = n("Relu", n("MatMul", n.weight(9, 8), n("Squeeze", n("Gather", n.x, n.ints(2), axis=1), n.ints(1))))
    return n("MatMul", n.weight(5, 9), a)


@case
def attention(n: Net) -> Value:
    x = n("Reshape", n.x, n.ints(0, 48, 8))
    heads = n.ints(0, 0, 4, 3)

    def project() -> Value:
        row = n("Add", n("MatMul", x, n.weight(8, 12)), n.weight(12))
        return n("Transpose", n("Reshape", row, heads), perm=[0, 2, 1, 3])

    q, k, v = project(), project(), project()
    scores = n("Softmax", n("MatMul", n("Mul", q, n.weight(1)), n("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    mixed = n("Reshape", n("Transpose", n("MatMul", scores, v), perm=[0, 2, 1, 3]), n.ints(0, 0, 12))
    stream = n("Add", x, n("MatMul", mixed, n.weight(12, 8)))
    normal = n("LayerNormalization", stream, n.weight(8), n.weight(8))
    return n("Add", normal, n("MatMul", n("Gelu20", n("MatMul", normal, n.weight(8, 16))), n.weight(16, 8)))


@case
def fused_attention(n: Net) -> Value:
    x = n("Reshape", n.x, n.ints(0, 48, 8))
    row = n("Add", n("MatMul", x, n.weight(8, 36)), n.weight(36))
    parts = n("Transpose", n("Reshape", row, n.ints(0, 0, 3, 4, 3)), perm=[2, 0, 3, 1, 4])
    q, k, v = (n("Gather", parts, n.graph.constant(np.array(i, np.int64)), axis=0) for i in range(3))
    scores = n("Softmax", n("MatMul", q, n("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    mixed = n("Reshape", n("Transpose", n("MatMul", scores, v), perm=[0, 2, 1, 3]), n.ints(0, 0, 12))
    return n("MatMul", mixed, n.weight(12, 8))
