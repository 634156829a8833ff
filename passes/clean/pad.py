"""Pads.

    1. Pad by nothing                                       ->  x
    2. Conv(Pad(x)) with zeros on the spatial axes          ->  Conv<pads>(x)
    3. AveragePool(Pad(x)), zeros that the average counts   ->  AveragePool<pads, count_include_pad=1>(x)
    4. MaxPool(Pad(x)) with minus infinity                  ->  MaxPool<pads>(x)

Exact: these operators treat what lies outside as exactly those numbers. Does not fire for reflect, edge and wrap
modes, pads that are not constant, negative or on the batch or channel axis; with `auto_pad` other than NOTSET or
VALID; where the Pad is read by others; for pools with `ceil_mode` (the last window would move), where a pad would
reach the kernel's size (ONNX Runtime refuses it), and for 3 where the pool already pads without counting.
"""

from __future__ import annotations

import numpy as np

from ...ir.node import Node
from .rewriter import Rewriter, Rule


def amounts(node: Node, rewriter: Rewriter) -> tuple[int, ...] | None:
    """`pads` of a Pad for every axis, all beginnings then all ends; `None` where they or the rank are unknown."""
    pads = node.get_ints("pads") if rewriter.opset < 11 else rewriter.ints(node.input(1))
    if pads is None or node.input(3) is None:
        return pads
    axes, source = rewriter.ints(node.input(3)), node.inputs[0]
    if axes is None or source is None or source.shape is None:
        return None
    rank = len(source.shape)
    full = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        full[axis % rank], full[axis % rank + rank] = pads[i], pads[i + len(axes)]
    return tuple(full)


def padding_value(node: Node, rewriter: Rewriter) -> float | None:
    """The constant that a Pad puts in; `None` in other modes or where it is not constant."""
    if node.get_string("mode", "constant") not in ("constant", b"constant"):
        return None
    if rewriter.opset < 11:
        return node.get_float("value")
    if node.input(2) is None:
        return 0.0
    array = rewriter.array(node.input(2))
    return None if array is None or array.dtype.kind not in "biuf" else float(array.reshape(()))


def _no_op(node: Node, rewriter: Rewriter) -> bool:
    pads = amounts(node, rewriter)
    source = node.inputs[0]
    if pads is None or any(pads) or source is None:
        return False
    return rewriter.bypass(node, source)


def _into(node: Node, rewriter: Rewriter) -> bool:
    pad = rewriter.made_only_for(node, 0, "Pad")
    if pad is None or pad.inputs[0] is None or any(v.uses for v in node.outputs[1:]):
        return False
    edges, value = amounts(pad, rewriter), padding_value(pad, rewriter)
    if edges is None or value is None or node.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    rank = len(edges) // 2
    spatial = rank - 2
    if spatial < 1 or min(edges) < 0 or any((*edges[:2], *edges[rank : rank + 2])):
        return False
    added = (*edges[2:rank], *edges[rank + 2 :])
    own = node.get_ints("pads", (0,) * (2 * spatial))
    pads = tuple(a + b for a, b in zip(own, added))
    if node.op != "Conv":
        kernel = node.get_ints("kernel_shape")
        if node.get_int("ceil_mode") or any(p >= k for p, k in zip(pads, kernel * 2)):
            return False
    if node.op == "MaxPool" and value != -np.inf:
        return False
    if node.op != "MaxPool" and value != 0:
        return False
    if node.op == "AveragePool":
        if any(own) and not node.get_int("count_include_pad"):
            return False
        node.set_attribute("count_include_pad", 1)
    node.attributes.pop("auto_pad", None)
    node.set_attribute("pads", list(pads))
    rewriter.set_input(node, 0, pad.inputs[0])
    rewriter.touch(node, pad)
    return True


RULES = (Rule("pad-no-op", ("Pad",), _no_op), Rule("pad-into", ("Conv", "AveragePool", "MaxPool"), _into))
