"""Multiply-accumulates of one node, counted as the papers count them.

Only products count: convolutions, matrix products, recurrent layers, attention. A bias, an activation, a normalisation
or a pooling counts nothing. Integer forms (QLinearConv, MatMulInteger, …) count as much as their float ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from .node import Node
from .shapes.rules.products import einsum_sizes
from .shapes.symbols import Size

Sizes: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = "list[Sizes | None]"
Count: TypeAlias = Callable[[Node, Shapes, Shapes], int]
"""(node, shapes of inputs, shapes of outputs) -> multiply-accumulates."""


class _Unknown(Exception):
    pass


def macs(node: Node, inputs: Shapes, outputs: Shapes) -> int:
    """Multiply-accumulates of one run of `node`; 0 where it makes no products or a rank is unknown."""
    count = _COUNTS.get((node.domain, node.op))
    if count is None:
        return 0
    try:
        return count(node, inputs, outputs)
    except _Unknown:
        return 0


def integer(node: Node) -> bool:
    """Whether the node's products are of integers: an integer operator, or one between DequantizeLinear nodes, which
    runtimes turn into one."""
    if node.op in _INTEGER:
        return True
    operands = [v.producer for v in node.inputs[:2] if v is not None]
    return len(operands) == 2 and all(p is not None and p.op == "DequantizeLinear" for p in operands)


_INTEGER = (
    *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
    *("QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention"),
)


def _at(shapes: Shapes, index: int) -> Sizes:
    shape = shapes[index] if index < len(shapes) else None
    if shape is None:
        raise _Unknown
    return shape


def _conv(weight: int) -> Count:
    """Every output element is a sum over the weight's input channels and window."""
    return lambda node, inputs, outputs: math.prod(_at(outputs, 0)) * math.prod(_at(inputs, weight)[1:])


def _conv_transpose(node: Node, inputs: Shapes, outputs: Shapes) -> int:
    """Every input element is spread over the weight's output channels and window."""
    return math.prod(_at(inputs, 0)) * math.prod(_at(inputs, 1)[1:])


def _matmul(right: int) -> Count:
    def count(node: Node, inputs: Shapes, outputs: Shapes) -> int:
        left = _at(inputs, 0)
        _at(inputs, right)
        inner = left[-2] if node.get_int("transA") and len(left) > 1 else left[-1]
        return math.prod(_at(outputs, 0)) * inner

    return count


def _einsum(node: Node, inputs: Shapes, outputs: Shapes) -> int:
    """A product over all labels, for each operand after the first; nothing where one operand is only rearranged."""
    shapes: list[tuple[Size, ...]] = [_at(inputs, i) for i in range(len(inputs))]
    sizes, _ = einsum_sizes(node.get_string("equation"), shapes)
    return (len(shapes) - 1) * math.prod(s for s in sizes.values() if isinstance(s, int))


def _recurrent(gates: int) -> Count:
    def count(node: Node, inputs: Shapes, outputs: Shapes) -> int:
        x, weight, recurrence = _at(inputs, 0), _at(inputs, 1), _at(inputs, 2)
        hidden = recurrence[2]
        return x[0] * x[1] * weight[0] * gates * hidden * (weight[2] + hidden)

    return count


def _attention(node: Node, inputs: Shapes, outputs: Shapes) -> int:
    """Scores Q K' and their product with V: batch x heads x queries x keys x (head size of K + head size of V)."""
    q, k, v = (_at(inputs, i) for i in range(3))
    heads = q[1] if len(q) == 4 else node.get_int("q_num_heads", 1)
    size_k = q[3] if len(q) == 4 else q[2] // heads
    size_v = v[3] if len(v) == 4 else v[2] // max(1, node.get_int("kv_num_heads", 1))
    past = inputs[4][2] if len(inputs) > 4 and inputs[4] is not None else 0
    return q[0] * heads * q[-2] * (k[-2] + past) * (size_k + size_v)


def _dynamic_lstm(node: Node, inputs: Shapes, outputs: Shapes) -> int:
    """As LSTM, with weights (directions, inputs, 4 hidden) and (directions, hidden, 4 hidden)."""
    x, weight, recurrence = _at(inputs, 0), _at(inputs, 1), _at(inputs, 2)
    return x[0] * x[1] * (math.prod(weight) + math.prod(recurrence))


def _projected_attention(past: int) -> Count:
    """Q, K and V by one matrix, then scores and their product with V; the past is (2, batch, heads, length, size)."""

    def count(node: Node, inputs: Shapes, outputs: Shapes) -> int:
        x, weight = _at(inputs, 0), _at(inputs, 1)
        rows, length = math.prod(x[:-1]), x[-2]
        sizes = node.get_ints("qkv_hidden_sizes") or (weight[1] // 3,) * 3
        before = inputs[past] if past < len(inputs) else None
        keys = length + (0 if before is None else before[3])
        return rows * x[-1] * weight[1] + rows * keys * (sizes[0] + sizes[2])

    return count


def _multi_head(node: Node, inputs: Shapes, outputs: Shapes) -> int:
    q, result = _at(inputs, 0), _at(outputs, 0)
    width = q[2] * q[4] if len(q) == 5 else q[2]
    k = inputs[1] if len(inputs) > 1 else None
    keys = q[1] if k is None else k[2] if len(k) == 4 else k[1]
    past = inputs[6] if len(inputs) > 6 else None
    return q[0] * q[1] * (keys + (0 if past is None else past[2])) * (width + result[-1])


def _grouped_attention(node: Node, inputs: Shapes, outputs: Shapes) -> int:
    """Over the keys that are stored, where their number is known, and those of the input otherwise."""
    result = _at(outputs, 0)
    past = inputs[3] if len(inputs) > 3 else None
    keys = result[1] + (0 if past is None else past[2])
    return 2 * math.prod(result) * keys


def _experts(node: Node, inputs: Shapes, outputs: Shapes) -> int:
    """Each token goes through the matrices of `k` experts."""
    tokens = math.prod(_at(inputs, 0)[:-1])
    matrices = [inputs[i] for i in (2, 4, 6) if i < len(inputs)]
    return tokens * node.get_int("k", 1) * sum(math.prod(m[1:]) for m in matrices if m is not None and len(m) == 3)


def _matmul_n_bits(node: Node, inputs: Shapes, outputs: Shapes) -> int:
    return math.prod(_at(outputs, 0)) * node.get_int("K")


_COUNTS: dict[tuple[str, str], Count] = {
    **{("", op): _conv(1) for op in ("Conv", "ConvInteger", "DeformConv")},
    ("", "QLinearConv"): _conv(3),
    ("", "ConvTranspose"): _conv_transpose,
    **{("", op): _matmul(1) for op in ("MatMul", "MatMulInteger", "Gemm")},
    ("", "QLinearMatMul"): _matmul(3),
    ("", "Einsum"): _einsum,
    ("", "LSTM"): _recurrent(4),
    ("", "GRU"): _recurrent(3),
    ("", "RNN"): _recurrent(1),
    ("", "Attention"): _attention,
    **{("com.microsoft", op): _conv(1) for op in ("FusedConv", "NhwcFusedConv")},
    ("com.microsoft.nchwc", "Conv"): _conv(1),
    **{("com.microsoft", op): _matmul(1) for op in ("FusedMatMul", "FusedGemm", "GemmFastGelu", "TransposeMatMul")},
    ("com.microsoft", "MatMulIntegerToFloat"): _matmul(1),
    ("com.microsoft", "DynamicQuantizeMatMul"): _matmul(1),
    ("com.microsoft", "QGemm"): _matmul(3),
    **{("com.microsoft", op): _matmul_n_bits for op in ("MatMulNBits", "MatMulBnb4")},
    ("com.microsoft", "DynamicQuantizeLSTM"): _dynamic_lstm,
    ("com.microsoft", "Attention"): _projected_attention(4),
    ("com.microsoft", "QAttention"): _projected_attention(8),
    ("com.microsoft", "MultiHeadAttention"): _multi_head,
    ("com.microsoft", "GroupQueryAttention"): _grouped_attention,
    ("com.microsoft", "MoE"): _experts,
}
