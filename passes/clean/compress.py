"""Compress by a condition that is known.

    Compress(x, c, axis)   ->  Gather(x, where c is true, axis)
    Compress(x, c)         ->  Gather(Reshape(x, [-1]), where c is true)

Exact: the same elements in the same order, whose number is then known. Does not fire where it is not known how many
elements there are to choose from: those of the condition behind the last one choose nothing.
"""

from __future__ import annotations

import math

import numpy as np

from ...ir.node import Node
from ...ir.types import TensorType
from .rewriter import Rewriter, Rule


def _known(node: Node, rewriter: Rewriter) -> bool:
    source, condition, dtype = node.inputs[0], rewriter.array(node.inputs[1]), node.output.dtype
    if source is None or source.static_shape is None or condition is None or dtype is None:
        return False
    sizes, axis = list(source.static_shape), node.get_int("axis")
    if "axis" not in node.attributes:
        sizes = [math.prod(sizes)]
    chosen = np.flatnonzero(condition.reshape(-1)[: sizes[axis]]).astype(np.int64)
    if not rewriter.pays([chosen], node):
        return False
    if "axis" not in node.attributes:
        whole = rewriter.constant(node, [-1])
        source = rewriter.make(node, "Reshape", [source, whole], type=TensorType(dtype, tuple(sizes)))
    sizes[axis] = len(chosen)
    kind = TensorType(dtype, tuple(sizes))
    gather = rewriter.make(node, "Gather", [source, rewriter.constant(node, chosen)], {"axis": axis}, type=kind)
    rewriter.replace(node, gather)
    return True


RULE = Rule("compress-constant", ("Compress",), _known)
