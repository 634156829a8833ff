"""Integer convolutions by their own operator, where graphs are small.

    DequantizeLinear(x) -+
    DequantizeLinear(w) -+-> Conv -> QuantizeLinear   ->   QLinearConv
    DequantizeLinear(b) -+

ONNX Runtime makes the second of the first as it loads the model, so kernels and numbers are the same; the file is
spared four nodes of some forty bytes a layer. Nothing that matters where layers have thousands of weights, and other
runtimes want the first: fires only where words are many (`has_many_words`), and only for a Conv whose answer is read as
codes alone, with scales and zero points that are constants.
"""

from __future__ import annotations

import numpy as np

from ..ir.graph import Graph, Node, Value
from ..ir.shapes.infer import infer
from ..ir.types import DType, TensorType

WORDS = 1 / 16
"""Share of the file that is no numbers, from which on it is worth saving on."""
CODES = (DType.UINT8, DType.INT8)


def has_many_words(graph: Graph) -> bool:
    """Whether nodes and names are a good part of the file."""
    from ..ir.onnx.writer import size

    numbers = sum(v.constant.nbytes for part in graph.graphs() for v in part.constants if v.constant is not None)
    whole = size(graph)
    return whole - numbers > WORDS * whole


def fuse_convolutions(graph: Graph) -> int:
    """Write the quantized convolutions of a small `graph` as QLinearConv; returns how many."""
    if graph.opset() < 10 or not has_many_words(graph):
        return 0
    infer(graph)  # passes leave the types of new codes to whoever asks
    zeros: dict[DType, Value] = {}
    convolutions = [node for node in graph if node.op == "Conv" and not node.domain]
    count = sum(_fuse(graph, node, zeros) for node in convolutions)
    graph.sweep()
    graph.sort()
    return count


def _fuse(graph: Graph, node: Node, zeros: dict[DType, Value]) -> bool:
    x, weight = (_decoder(node.input(i)) for i in range(2))
    bias = _decoder(node.input(2), constant=False)
    users = node.output.users
    if x is None or weight is None or len(users) != 1 or len(node.output.uses) != 1 or node.output.is_output:
        return False
    encoder = users[0]
    if encoder.op != "QuantizeLinear" or encoder.domain or encoder.inputs[0] is not node.output:
        return False
    if node.input(2) is not None and not _is_sum(bias, x, weight):
        return False
    kinds = [_codes_of(one, one.inputs[0]) for one in (x, weight)]
    answer = _codes_of(encoder, encoder.output)
    if any(kind not in CODES for kind in kinds) or answer is None or answer is not kinds[0]:
        return False
    if not (_single(x) and _single(encoder)) or (weight.get_int("axis", 1) != 0 and not _single(weight)):
        return False

    def zero(one: Node, dtype: DType) -> Value:
        zero_point = one.input(2)
        if zero_point is not None and np.asarray(zero_point.numpy()).any():
            return zero_point
        if dtype not in zeros:
            zeros[dtype] = graph.constant(np.zeros((), dtype.numpy), "zero")
        return zeros[dtype]

    inputs: list[Value | None] = []
    for one, kind in zip((x, weight), kinds, strict=True):
        assert kind is not None
        inputs += [one.inputs[0], one.inputs[1], zero(one, kind)]
    inputs += [encoder.inputs[1], zero(encoder, answer)]
    inputs += [] if bias is None else [bias.inputs[0]]
    # The next convolution is known by it to read codes.
    type = TensorType(answer, encoder.output.shape)
    fused = graph.add(
        "QLinearConv", inputs, node.attributes, outputs=[encoder.output.name], types=[type],
        name=node.name, origin=node.origin, before=encoder,
    )  # fmt: skip
    encoder.output.replace_uses(fused.output)
    return True


def _decoder(value: Value | None, *, constant: bool = True) -> Node | None:
    """The DequantizeLinear that makes `value`, its scale a constant where it is to be `constant`."""
    node = None if value is None else value.producer
    if node is None or node.op != "DequantizeLinear" or node.domain or node.get_int("block_size"):
        return None
    if constant and any(v is not None and v.constant is None for v in (node.input(1), node.input(2))):
        return None
    return node


def _single(node: Node) -> bool:
    scale, zero = node.input(1), node.input(2)
    parts = [v.constant for v in (scale, zero) if v is not None]
    return all(part is not None and part.size == 1 for part in parts)


def _codes_of(node: Node, codes: Value | None) -> DType | None:
    """The type of the codes that are made or read."""
    zero = node.input(2)
    return zero.dtype if zero is not None else None if codes is None else codes.dtype


def _is_sum(bias: Node | None, x: Node, weight: Node) -> bool:
    """Whether a bias is on the grid of the layer's sums."""
    if bias is None or bias.inputs[0] is None or bias.inputs[0].dtype is not DType.INT32:
        return False
    zero = bias.input(2)
    if zero is not None and (zero.constant is None or np.asarray(zero.constant.numpy()).any()):
        return False
    factors, bias_scale = [one.inputs[1] for one in (x, weight)], bias.inputs[1]
    assert bias_scale is not None
    if bias_scale.constant is None:  # the product that it is, computed at load (`load_time.py`)
        return (
            bias_scale.producer is not None
            and bias_scale.producer.op == "Mul"
            and set(bias_scale.producer.inputs) == set(factors)
        )
    scales = [np.asarray(scale.constant.numpy(), np.float64) for scale in (*factors, bias_scale)]  # type: ignore[union-attr]
    return bool(np.allclose(scales[0] * scales[1], scales[2], rtol=1e-6, atol=0.0))
