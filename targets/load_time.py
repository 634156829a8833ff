"""Constants that the runtime computes when it loads the model, so that the file need not hold them.

    scale of a bias               ->  Mul(scale of the input, scale of the weight)
    zero point that is 0          ->  left out in front of Conv (DequantizeLinear takes it for 0)
    floats of few different rows  ->  Gather(the different rows, Cast(which row it is, in a byte each))

The same numbers, bit by bit. ONNX Runtime folds what depends on constants alone before it looks for integer kernels, so
these are found as before. A model of many small layers is a tenth smaller by it, a detector with its anchors a fifth.

Does not fire where it would save less than `LEAST` bytes, nor in bodies of control flow; nor on constants that repeat
themselves along an axis, which the file holds once (`FillTensor`, `BroadcastTensor`). No guard follows this pass, so it
measures itself: where the file would not be smaller, the graph stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Graph, Value
from ..ir.node import Node
from ..ir.onnx.writer import size
from ..ir.origin import Origin
from ..ir.tensor import BroadcastTensor, FillTensor, SparseTensor
from ..ir.types import DType
from ..passes.base import Context, Pass, Report

LEAST = 128
"""Bytes that a rewrite must save; a node with its names takes some sixty."""
LEAST_SCALE = 48
"""Bytes of a scale that a node in its place saves: the constant says as much about itself as the node does."""
LARGE = 4096
"""Bytes from which constants are looked through for equal rows."""
ROWS = 256
BLOCK = 1 << 20
"""Numbers of a constant looked at together."""


@dataclass(frozen=True, slots=True)
class LoadTime(Pass):
    """Leaves to the runtime what it can compute from other constants as it loads the model."""

    name: ClassVar[str] = "load-time"

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        before = graph.clone()
        for node in tuple(graph):
            if node.op == "DequantizeLinear" and not node.domain:
                if _share_scale(graph, node):
                    report.rewrote("bias-scale")
                if _is_zero(node.input(2)) and all(_knows_zero(user, node) for user in node.output.users):
                    node.set_input(2, None)
                    report.rewrote("zero-point")
        for value in tuple(graph.constants):
            if _gather_rows(graph, value):
                report.rewrote("rows")
        graph.sweep()
        graph.sort()
        if report.changed and size(graph) >= size(before):
            graph.become(before)
            return Report()
        return report


def _knows_zero(user: Node, decode: Node) -> bool:
    """Whether the runtime takes codes without zero points: the zero points of biases are nothing to its kernels."""
    return user.op == "Conv" or (user.op == "Gemm" and user.input(2) is decode.output)


def _is_zero(value: Value | None) -> bool:
    if value is None or value.constant is None:
        return False
    return not np.asarray(value.constant.numpy()).any()


def _share_scale(graph: Graph, node: Node) -> bool:
    """The scale of a bias as the product that it is."""
    scale, readers = node.inputs[1], node.output.users
    if scale is None or scale.constant is None or scale.constant.nbytes < LEAST_SCALE or len(scale.uses) > 1:
        return False
    if len(readers) != 1 or readers[0].op not in ("Conv", "Gemm"):
        return False
    factors = [_scale(value) for value in readers[0].inputs[:2]]
    if any(factor is None or factor.constant is None for factor in factors):
        return False
    numbers = np.asarray(scale.constant.numpy())
    one, other = (np.asarray(factor.constant.numpy()) for factor in factors)  # type: ignore[union-attr]
    if one.dtype != np.float32 or other.dtype != np.float32 or one.size != 1 or not _same(numbers, one * other):
        return False
    product = graph.add(
        "Mul", factors, outputs=[scale.name], origin=Origin.merge([node.origin], LoadTime.name), before=node
    ).output
    node.set_input(1, product)
    return True


def _same(numbers: NDArray[np.generic], product: NDArray[np.float32]) -> bool:
    return numbers.shape == product.shape and numbers.tobytes() == product.tobytes()


def _scale(value: Value | None) -> Value | None:
    """The scale of what DequantizeLinear makes."""
    node = None if value is None else value.producer
    return node.input(1) if node is not None and node.op == "DequantizeLinear" else None


def _gather_rows(graph: Graph, value: Value) -> bool:
    tensor = value.constant
    if tensor is None or tensor.dtype is not DType.FLOAT or tensor.nbytes < LARGE or not tensor.shape:
        return False
    if isinstance(tensor, FillTensor | BroadcastTensor | SparseTensor):
        return False
    users = {user for user, _ in value.uses if isinstance(user, Node) and user.graph is graph}
    if not users or value.is_output or len(users) < len(value.users):
        return False
    first = next(node for node in graph if node in users)
    array = np.asarray(tensor.numpy())
    kept = min((k for k in (_rows(array, 1), _rows(array, array.shape[-1])) if k is not None), key=_size, default=None)
    if kept is None or _size(kept) + LEAST > tensor.nbytes:
        return False
    table, which = kept
    codes = graph.constant(which, f"{value.name}_rows")
    origin = Origin.merge([first.origin], LoadTime.name)
    index = graph.add("Cast", [codes], {"to": int(DType.INT32)}, origin=origin, before=first).output
    rows = graph.add(
        "Gather", [graph.constant(table, value.name), index], {"axis": 0}, origin=origin, before=first
    ).output
    value.replace_uses(rows)
    return True


def _rows(array: NDArray[np.generic], width: int) -> tuple[NDArray[np.generic], NDArray[np.uint8]] | None:
    """The different rows of `width` numbers, and which of them each is; `None` where there are too many.

    Rows are told apart by a sum over them, a block at a time, for sorting rows themselves takes minutes where many are
    equal; that equal sums are of equal rows is looked at in the end.
    """
    rows = np.ascontiguousarray(array).view(np.uint32).reshape(-1, width)
    factors = np.random.default_rng(0).integers(1 << 63, size=width, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    size = max(1, min(BLOCK // width, 16 * ROWS))
    blocks = [rows[at : at + size] for at in range(0, len(rows), size)]
    seen: dict[int, bytes] = {}
    for block in blocks:
        sums, first = np.unique(block @ factors, return_index=True)
        seen.update({one: block[i].tobytes() for one, i in zip(sums.tolist(), first.tolist()) if one not in seen})
        if len(seen) > ROWS:
            return None
    order = sorted(seen, key=seen.__getitem__)
    table = np.frombuffer(b"".join(seen[one] for one in order), np.uint32).reshape(-1, width)
    by_sum = np.argsort(np.asarray(order, np.uint64))
    which = np.empty(len(rows), np.uint8)
    for number, block in enumerate(blocks):
        places = by_sum[np.searchsorted(np.asarray(order, np.uint64)[by_sum], block @ factors)]
        if not np.array_equal(table[places], block):
            return None
        which[number * size : number * size + len(block)] = places
    floats = table.view(np.float32)
    return (floats.reshape(-1), which.reshape(array.shape)) if width == 1 else (floats, which.reshape(array.shape[:-1]))


def _size(kept: tuple[NDArray[np.generic], NDArray[np.uint8]]) -> int:
    return kept[0].nbytes + kept[1].nbytes
