"""Embedding tables in int8: rows are gathered as codes, and only what was gathered is decoded.

    Gather(table, ids)  ->  Cast(Gather(codes, ids)) * scale of each column

A scale for each column serves every row. It is no DequantizeLinear: ONNX Runtime's takes columns one by one, at least
three times as long, and is moved behind a Transpose that follows, with a QuantizeLinear that takes longer still.

Fires on a Gather of rows (axis 0) out of a constant float32 matrix of at least `LEAST` elements that is an embedding:
the ids are given to the model, or they are places in a sequence and layers with weights read the rows. Other matrices
hold numbers that are answers themselves, as anchor boxes are, of which TopK or NonMaxSuppression picks some: skipped.

Where products read the table, too, as the last layer of a language model does, all of them read

    Cast(codes) * scale of each row

which runtimes fold when they load the model: the file shrinks, and everybody computes as before. So does a table of
positions, a matrix of which a Slice takes as many rows as a sequence has:

    Slice(table, 0, length)  ->  Slice(Cast(codes) * scale of each column, 0, length)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node, Value
from ....ir.ops import COMPARISONS, LOGIC
from ....ir.origin import Origin
from ....ir.types import DType, TensorType
from ...base import Report
from ..layers import RECODING, WEIGHTED, is_quantized
from ..numbers.weights import quantize_rows, weight_error
from ..scheme import Schemes, float_reason
from .packing import dequantized

LEAST = 1024
_STORED = ("Gather", "MatMul", "Gemm")
"""Readers that may share a table stored as codes: they compute with its numbers as with weights."""
PASSED = COMPARISONS | LOGIC | {
    "Add", "Cast", "Clip", "Concat", "CumSum", "Expand", "Flatten", "Gather", "Identity", "Max", "Min", "Mod", "Mul",
    "Not", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
"""What makes ids of other ids, and places of a mask."""
ENCODERS = frozenset({("ai.onnx.ml", "CategoryMapper"), ("ai.onnx.ml", "LabelEncoder")})
"""What makes ids of words."""
PLACES = frozenset({"ConstantOfShape", "Range", "Shape", "Size"})
"""What knows nothing but sizes."""


def encode_tables(graph: Graph, schemes: Schemes, report: Report) -> int:
    """Encode every such table of `graph`, saying so in `report`; returns how many."""
    count = 0
    for node in tuple(graph):
        if _is_sliced(node):
            count += _encode_positions(graph, node, schemes, report)
        if not _is_table(node):
            continue
        table = node.inputs[0]
        assert table is not None
        readers = _readers(table)
        if reason := next(filter(None, (float_reason(schemes, n) for n in (node, *readers))), ""):
            report.skipped(node.label, node.op, reason)
        elif any(reader.op not in _STORED for reader in readers):
            report.skipped(node.label, node.op, "its table has another reader")
        elif reason := _no_embedding(node):
            report.skipped(node.label, node.op, reason)
        elif len(readers) > 1:
            report.done(node.label, node.op, bits=8, form="stored", weight_error=round(_store(graph, table), 6))
            count += 1
        else:
            report.done(node.label, node.op, bits=8, weight_error=round(_encode(graph, node), 6))
            count += 1
    return count


def _is_sliced(node: Node) -> bool:
    """Whether a node takes rows, whole ones, out of a constant matrix that it alone reads, as far as sizes say."""
    table = node.input(0)
    if node.op != "Slice" or node.domain or table is None or table.constant is None or len(table.uses) != 1:
        return False
    constant, axes = table.constant, node.input(3)
    shape, taken = constant.shape, None if axes is None else axes.numpy()
    whole = taken is not None and not any(axis % len(shape) == len(shape) - 1 for axis in np.asarray(taken).reshape(-1))
    sizes = not constant.repeats and (len(shape) == 2 or (len(shape) == 3 and shape[0] == 1))
    return whole and sizes and constant.dtype is DType.FLOAT and constant.size >= LEAST and not table.is_output


def _encode_positions(graph: Graph, node: Node, schemes: Schemes, report: Report) -> int:
    """Store the table that `node` slices as codes, saying so in `report`; returns how many that were."""
    table = node.inputs[0]
    assert table is not None
    if reason := float_reason(schemes, node):
        report.skipped(node.label, node.op, reason)
        return 0
    if _no_embedding(node) or not _feeds_a_layer(node):
        return 0
    shape = table.constant.shape  # type: ignore[union-attr]
    columns = np.asarray(table.numpy(), np.float32).reshape(-1, shape[-1]).T
    if not np.isfinite(columns).all():
        return 0
    codes, scale = quantize_rows(np.ascontiguousarray(columns), DType.INT8)
    error = weight_error(columns, codes * scale[:, None])
    _decode_at_load(graph, table, np.ascontiguousarray(codes.T).reshape(shape), scale)
    report.done(node.label, node.op, bits=8, form="stored", weight_error=round(error, 6))
    return 1


def _is_table(node: Node) -> bool:
    if node.op != "Gather" or node.domain or node.get_int("axis"):
        return False
    table, ids = node.inputs[0], node.inputs[1]
    if table is None or ids is None or table.constant is None or ids.shape is None:
        return False
    constant = table.constant
    return (
        constant.dtype is DType.FLOAT and len(constant.shape) == 2 and constant.size >= LEAST and not constant.repeats
    )


def _readers(table: Value) -> list[Node]:
    """The nodes that read the table, through a Transpose, too."""
    readers: list[Node] = []
    for user in table.users:
        readers += user.output.users if user.op == "Transpose" else [user]
    return readers


def _no_embedding(node: Node) -> str:
    """Why the rows that `node` gathers may be more than an embedding, or ""."""
    from_input = False
    seen: set[Value] = set()
    stack = list(node.inputs[1:])
    while stack:
        value = stack.pop()
        if value is None or value in seen:
            continue
        seen.add(value)
        maker = value.producer
        if maker is None:
            from_input |= value.is_input
        elif (maker.op in PASSED and not maker.domain) or (maker.domain, maker.op) in ENCODERS:
            stack += maker.inputs
        elif maker.op not in PLACES or maker.domain:
            return f"its rows are picked by {maker.op} '{maker.label}', not by ids that the model is given"
    return (
        ""
        if from_input or _feeds_a_layer(node)
        else "its rows are picked by place, and no layer with weights reads them"
    )


def _feeds_a_layer(node: Node) -> bool:
    """Whether a layer with weights, codes or not, reads what `node` makes, through whatever lies between."""
    seen = {node}
    stack = [node]
    while stack:
        for user in (user for value in stack.pop().outputs for user in value.users):
            multiplies = user.op in WEIGHTED or (is_quantized(user) and user.op not in RECODING)
            stored = user.input(1) if multiplies else None
            if stored is not None and stored.of_constants:
                return True
            if user not in seen:
                seen.add(user)
                stack.append(user)
    return False


def _encode(graph: Graph, node: Node) -> float:
    """Let the node gather codes; returns the share of the rows' power that is off."""
    table, ids, old = node.inputs[0], node.inputs[1], node.output
    assert table is not None
    assert ids is not None
    numbers = np.asarray(table.numpy(), np.float32)
    codes, scale = quantize_rows(np.ascontiguousarray(numbers.T), DType.INT8)
    origin = Origin.merge([node.origin], "quant")
    inputs = [graph.constant(np.ascontiguousarray(codes.T), table.name), ids]
    gathered = graph.add("Gather", inputs, {"axis": 0}, name=node.name, origin=origin, before=node).output
    gathered.type = TensorType(DType.INT8, old.shape)
    wide = graph.add("Cast", [gathered], {"to": int(DType.FLOAT)}, origin=origin, before=node).output
    factors = [wide, graph.constant(scale, "scale")]
    decoded = graph.add("Mul", factors, outputs=[old.name], types=[old.type], origin=origin, before=node).output
    old.replace_uses(decoded)
    graph.remove(node)
    return weight_error(numbers, codes.T * scale)


def _store(graph: Graph, table: Value) -> float:
    """Let all readers read the table from codes; returns the share of its power that is off."""
    numbers = np.asarray(table.numpy(), np.float32)
    codes, scale = quantize_rows(numbers, DType.INT8)
    scale = scale[:, None]
    _decode_at_load(graph, table, codes, scale)
    return weight_error(numbers, codes * scale)


def _decode_at_load(graph: Graph, table: Value, codes: NDArray[np.int8], scale: NDArray[np.float32]) -> None:
    """Let all readers of `table` read Cast(codes) * scale in its place."""
    origin = Origin.merge([user.origin for user, _ in table.uses if isinstance(user, Node)], "quant")
    first = next(iter(graph))
    table.replace_uses(dequantized(graph, codes, scale, table, origin, first, type=table.type))
