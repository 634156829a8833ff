"""What the evaluation of a node would take, from the shapes and elements of its inputs alone.

Types that the model records count for nothing here: they are an exporter's word, and a hostile one lies.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ...errors import ModelError
from ...ir.allowance import memory
from ...ir.macs import macs
from ...ir.node import Node
from ...ir.shapes.onnx_inference import onnx_facts
from ...ir.shapes.rules import RULES, Call, Cannot, Fact
from ...ir.tensor import ArrayTensor
from ...ir.types import DType
from .fill import Array

_OF_DATA = frozenset({"Compress", "NonZero", "Unique"})
"""Operators whose result has as many rows as the data says, and never more than the data has elements times rank."""


def cost(node: Node, inputs: Sequence[Array | None], opset: int) -> tuple[int, int] | None:
    """Bytes of the outputs and multiply-accumulates; `None` where they do not follow from the inputs."""
    present = [a for a in inputs if a is not None]
    if node.op in _OF_DATA:
        return sum(8 * max(1, a.ndim) * max(a.size, 1) * len(node.outputs) for a in present), 0
    try:
        facts = [None if a is None else _fact(a) for a in inputs]
        outputs = _facts(Call(node, facts, opset, opset, itertools.count(), {}))
    except (Cannot, ModelError, ArithmeticError, LookupError, TypeError, ValueError):
        return None
    if len(outputs) < len(node.outputs):
        return None
    shapes: list[tuple[int, ...] | None] = []
    total = 0
    for fact in outputs:
        shape = tuple(s for s in fact.shape or () if isinstance(s, int))
        if fact.shape is None or len(shape) < len(fact.shape) or fact.dtype in (DType.UNDEFINED, DType.STRING):
            return None
        shapes.append(shape)
        total += memory(fact.dtype, shape)
    try:
        work = macs(node, [None if a is None else a.shape for a in inputs], shapes)
    except (LookupError, ArithmeticError, TypeError, ValueError):
        return None
    return total, work


def _fact(array: Array) -> Fact:
    dtype = DType.STRING if array.dtype == object else DType.of(array.dtype)
    return Fact(dtype, array.shape, tensor=None if dtype is DType.STRING else ArrayTensor(array, dtype))


def _facts(call: Call) -> list[Fact]:
    rule = RULES.get(("", call.node.op))
    if rule is not None:
        try:
            return rule(call)
        except Cannot:
            pass
    return onnx_facts(call)
