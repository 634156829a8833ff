"""Computing halves in single precision, where a machine has no arithmetic of halves.

An operator on float16 becomes the same on float32, as ONNX Runtime does it on CPUs: what passes from one to the next is
not rounded, so that results are nearer to those of exact arithmetic, and faster than with a conversion at every step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ....ir.node import Node
from ....ir.types import DType, TensorType
from ....passes.base import Context, Pass, Report

if TYPE_CHECKING:
    from ....ir.graph import Graph, Value

_BY_TYPE = frozenset({"BitCast", "Cast", "CastLike"})
"""What is about the type itself."""
_NARROW = (DType.FLOAT16, DType.BFLOAT16)
_NAMES = ("dtype", "output_dtype", "to")
"""Attributes that give the type of a result."""


@dataclass(frozen=True, slots=True)
class Widen(Pass):
    """float16 and bfloat16 become float32 between Casts; inputs, outputs and what the model casts keep their types.

    Does not fire for operators that are told the type of their result, nor for those with bodies.
    """

    name: ClassVar[str] = "widen"

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        wide: dict[Value, Value] = {}
        for node in list(graph):
            if _widens(node):
                _widen(graph, node, wide)
                report.rewrote("widen")
        graph.sweep()
        return report


def _widens(node: Node) -> bool:
    if node.op in _BY_TYPE or node.domain not in ("", "com.microsoft") or node.bodies:
        return False
    if any(node.get_int(name, 0) in _NARROW for name in _NAMES):
        return False
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    if not all(value.type is None or isinstance(value.type, TensorType) for value in values):
        return False
    return any(value is not None and value.dtype in _NARROW for value in node.inputs)


def _widen(graph: Graph, node: Node, wide: dict[Value, Value]) -> None:
    for index, value in enumerate(node.inputs):
        if value is not None and value.dtype in _NARROW:
            if value not in wide:
                wide[value] = _single(graph, value)
            node.set_input(index, wide[value])
    for value in node.outputs:
        if value.dtype in _NARROW:
            half, to = value.type, {"to": int(value.dtype)}
            value.type = _typed(value, DType.FLOAT)
            cast = graph.add("Cast", [value], to, types=[half], after=node, origin=node.origin)
            for user, index in list(value.uses):
                if isinstance(user, Node) and user is not cast:
                    user.set_input(index, cast.output)
                elif not isinstance(user, Node):
                    user.set_output(index, cast.output)
            wide[cast.output] = value


def _single(graph: Graph, value: Value) -> Value:
    if value.constant is not None:
        return graph.constant(value.constant.numpy().astype(np.float32), value.name)
    first = None if value.producer is not None else next(iter(graph))
    to = {"to": int(DType.FLOAT)}
    return graph.add("Cast", [value], to, types=[_typed(value, DType.FLOAT)], before=first, after=value.producer).output


def _typed(value: Value, dtype: DType) -> TensorType:
    assert isinstance(value.type, TensorType)
    return replace(value.type, dtype=dtype)
