"""What no kernels are made for, because it would take too much to make them."""

from __future__ import annotations

from ....errors import TargetError
from ....ir.allowance import MOST, memory
from ....ir.constant_work import check_constant_work
from ....ir.graph import Graph
from ....ir.node import Node
from ....ir.shapes.infer import analyse

_MOST_VALUES = 256
"""Values that a node reads or makes: a kernel of more takes minutes to compile, and TVM recurses as deep as that."""


def check_bounds(graph: Graph) -> None:
    """Raises `TargetError` where a typed graph computes too much from its constants, or has a node of too many values
    or with a constant result that is too large to be written out."""
    check_constant_work(graph, analyse(graph))
    for node in graph:
        _check(node, f"{node.op} node '{node.label}'")


def _check(node: Node, where: str) -> None:
    if max(len(node.inputs), len(node.outputs)) > _MOST_VALUES:
        raise TargetError(f"{where} reads or makes more than {_MOST_VALUES} values; split it, or build for onnx")
    if all(value is None or value.constant is not None for value in node.inputs):
        for value in node.outputs:
            if value.dtype is not None and memory(value.dtype, value.static_shape or ()) > MOST:
                raise TargetError(f"{where} makes a constant of more than {MOST} bytes; build for onnx")
