"""ONNX Runtime's operators on codes as what they stand for: DequantizeLinear, the operator on floats, QuantizeLinear.

    QLinearAdd, QLinearConcat, QLinearGlobalAveragePool, ... (com.microsoft), QLinearMatMul whose scales are computed

Does not fire where channels stand last, nor where a scale of more than one number is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ....ir.attributes import Attribute
from ....ir.graph import Graph, Node, Value
from .writer import Writer

_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")


@dataclass(frozen=True, slots=True)
class _Form:
    """The operator on floats, how many operands it has (each is codes, a scale and a zero point), and the attributes
    that they share."""

    op: str
    operands: int = 1
    shared: tuple[str, ...] = ()


_FORMS = {
    "QLinearAdd": _Form("Add", 2),
    "QLinearAveragePool": _Form("AveragePool", 1, _POOL),
    "QLinearGlobalAveragePool": _Form("GlobalAveragePool"),
    "QLinearLeakyRelu": _Form("LeakyRelu", 1, ("alpha",)),
    "QLinearMatMul": _Form("MatMul", 2),
    "QLinearMul": _Form("Mul", 2),
    "QLinearSigmoid": _Form("Sigmoid"),
}


def part(graph: Graph) -> int:
    """Part all such operators of `graph`; returns how many."""
    count = 0
    for node in list(graph):
        if node.domain in ("", "com.microsoft"):
            count += _concat(node) if node.op == "QLinearConcat" else _part(node)
    return count


def _part(node: Node) -> bool:
    form = _FORMS.get(node.op)
    if form is None or (node.domain == "") != (node.op == "QLinearMatMul") or node.get_int("channels_last"):
        return False
    groups = [node.inputs[3 * k : 3 * k + 3] for k in range(form.operands)]
    answer = node.inputs[3 * form.operands :]
    if node.op == "QLinearMatMul" and all(scale is not None and scale.constant is not None for _, scale, _ in groups):
        return False  # `spread` knows scales for each column, too
    if not all(_is_number(scale) for _, scale, *_ in groups) or not answer or not _is_number(answer[0]):
        return False
    attributes = {name: node.attributes[name] for name in form.shared if name in node.attributes}
    return _replace(node, form.op, groups, answer, attributes)


def _concat(node: Node) -> bool:
    groups = [node.inputs[at : at + 3] for at in range(2, len(node.inputs), 3)]
    if not all(_is_number(scale) for _, scale, *_ in groups) or not _is_number(node.inputs[0]):
        return False
    return _replace(node, "Concat", groups, node.inputs[:2], {"axis": node.get_int("axis")})


def _is_number(scale: Value | None) -> bool:
    shape = None if scale is None else scale.static_shape
    return shape in ((), (1,))


def _replace(
    node: Node,
    op: str,
    groups: Sequence[tuple[Value | None, ...]],
    answer: tuple[Value | None, ...],
    attributes: Mapping[str, Attribute | int],
) -> bool:
    write = Writer(node)
    floats = [write.add("DequantizeLinear", *group) for group in groups]
    result = write.add(op, *floats, name=node.name, **attributes)
    return write.put(write.add("QuantizeLinear", result, *answer))
