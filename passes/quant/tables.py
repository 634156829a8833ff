"""Embedding tables in int8: rows are gathered as codes, and only what was gathered is decoded.

    Gather(table, ids)  ->  DequantizeLinear(Gather(codes, ids), scale of each column)

A scale for each column serves every row, and DequantizeLinear knows it as its `axis`. Fires on a Gather of rows (axis
0) out of a constant float32 matrix of at least `LEAST` elements that nothing else reads.
"""

from __future__ import annotations

import numpy as np

from ...ir.graph import Graph, Node
from ...ir.origin import Origin
from ...ir.types import DType, TensorType
from ..base import Report
from .grid import Grid, limits
from .layers import Kept, name_of
from .weights import quantize_rows

LEAST = 1024


def encode_tables(graph: Graph, kept: Kept, report: Report) -> int:
    """Encode every such table of `graph`, saying so in `report`; returns how many."""
    made = 0
    for node in graph:
        if not _is_table(node):
            continue
        if reason := kept(node):
            report.skipped(name_of(node), node.op, reason)
        elif len({user for user, _ in node.inputs[0].uses}) > 1:  # type: ignore[union-attr]
            report.skipped(name_of(node), node.op, "its table has another reader")
        else:
            report.done(name_of(node), node.op, bits=8, error=round(_encode(graph, node), 6))
            made += 1
    return made


def _is_table(node: Node) -> bool:
    if node.op != "Gather" or node.domain or node.get_int("axis"):
        return False
    table, ids = node.inputs[0], node.inputs[1]
    if table is None or ids is None or table.constant is None or ids.shape is None:
        return False
    constant = table.constant
    return constant.dtype is DType.FLOAT and len(constant.shape) == 2 and constant.size >= LEAST


def _encode(graph: Graph, node: Node) -> float:
    """Let the node gather codes; returns the share of the rows' power that is off."""
    table, ids, old = node.inputs[0], node.inputs[1], node.output
    assert table is not None
    assert ids is not None
    assert ids.shape is not None
    numbers = np.asarray(table.numpy(), np.float32)
    codes, scale = quantize_rows(np.ascontiguousarray(numbers.T), DType.INT8)
    grid = Grid(scale, 0, DType.INT8, len(ids.shape), *limits(DType.INT8))
    origin = Origin.merge([node.origin], "quant")
    inputs = [graph.constant(np.ascontiguousarray(codes.T), table.name), ids]
    gathered = graph.add("Gather", inputs, {"axis": 0}, name=node.name, origin=origin, before=node).output
    gathered.type = TensorType(DType.INT8, old.shape)
    zero = graph.constant(np.zeros(len(scale), np.int8), "zero")
    decoded = graph.add(
        "DequantizeLinear",
        [gathered, graph.constant(grid.scale, "scale"), zero],
        {"axis": grid.axis},
        outputs=[old.name],
        types=[old.type],
        origin=origin,
        before=node,
    ).output
    old.replace_uses(decoded)
    graph.remove(node)
    off = numbers - codes.T * scale
    return float(np.sum(np.square(off)) / max(float(np.sum(np.square(numbers))), 1e-30))
