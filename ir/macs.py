"""Multiply-accumulates of one node, counted as the papers count them.

Only products count: convolutions, matrix products, recurrent layers, attention. A bias, an activation, a normalisation
or a pooling counts nothing. Integer forms (QLinearConv, MatMulInteger, …) count as much as their float ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from .node import Node
from .shape_rules.products import einsum_sizes
from .symbols import Size

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
    *("QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
)


def _at(shapes: Shapes, index: int) -> Sizes:
    found = shapes[index] if index < len(shapes) else None
    if found is None:
        raise _Unknown
    return found


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
    ("com.microsoft", "FusedConv"): _conv(1),
    **{("com.microsoft", op): _matmul(1) for op in ("FusedMatMul", "FusedGemm", "MatMulIntegerToFloat")},
    ("com.microsoft", "DynamicQuantizeMatMul"): _matmul(1),
    ("com.microsoft", "QGemm"): _matmul(3),
    ("com.microsoft", "MatMulNBits"): _matmul_n_bits,
}
