"""Computing in half precision, where a model can carry it.

Convolutions and products take float16 and give it; their weights are stored in it. What stands between two of them
(activations, additions, pooling of few elements, moves) does so too. Everything else stays float32, and so does what is
read by none of the former: softmax, exponentials, means and variances with what leads to them, additions of masks,
the decoding of boxes, inputs and outputs. Casts stand where the two meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ....ir.graph import Graph, Value
from ....ir.node import Node
from ....ir.ops import ARITHMETIC, BLOCKS, CLAMPS, LAYERS, MOVES, REPEATS
from ....ir.types import DType, TensorType
from ....passes.base import Context, Pass, Report
from .integer_layers import coded_layer

MOST = float(np.finfo(np.float16).max)
_LEAST = float(np.finfo(np.float16).smallest_normal)
_LAYERS = LAYERS - {"ConvTranspose"}
_FOLLOWING = (MOVES | REPEATS | BLOCKS | CLAMPS | ARITHMETIC - {"Pow"}) | {
    "Abs", "AveragePool", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "MaxPool", "Min", "Neg", "PRelu", "Pad",
    "Where",
}  # fmt: skip
_BOUNDS = frozenset({"Clip", "Max", "Min"})
"""What compares with constants: one beyond the range of halves says the same at its end."""
_POOLED = 16
"""Elements that an average in half precision is taken of, at most."""
_TABLE = 1024
"""Elements of a constant that rows are looked up in, from which on it is stored in half the size."""


@dataclass(frozen=True, slots=True)
class Half(Pass):
    """float32 becomes float16 between the layers of a model; its inputs and outputs keep their types.

    Does not fire for layers on codes, which compute with integers, where a constant is beyond the range of float16 or
    so small that it would vanish, nor for squares, which overflow.
    """

    name: ClassVar[str] = "half"

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        chosen = _chosen(graph)
        narrow: dict[Value, Value] = {}
        for node in list(graph):
            if node not in chosen:
                continue
            for index, value in enumerate(node.inputs):
                if value is not None and value.dtype is DType.FLOAT:
                    if value not in narrow:
                        narrow[value] = _narrowed(graph, value, kernel=node.op == "Conv" and index == 1)
                    node.set_input(index, narrow[value])
            for value in node.outputs:
                if value.dtype is DType.FLOAT:
                    _become(graph, node, value, chosen)
            report.rewrote("half")
        graph.sweep()
        return report


def fits(array: npt.NDArray[np.generic]) -> bool:
    """Whether no number of a constant is beyond the range of float16."""
    return bool(np.abs(array).max(initial=0) <= MOST)


def _chosen(graph: Graph) -> set[Node]:
    """The nodes that compute in half precision: layers, and between them what gives to one and takes from one."""
    wanted: set[Node] = set()
    for node in reversed(graph):
        read = any(user in wanted for value in node.outputs for user in value.users)
        if _is_layer(node) or _looks_up(node) or (read and _may_follow(node)):
            wanted.add(node)
    chosen: set[Node] = set()
    for node in graph:
        fed = any(value is not None and value.producer in chosen for value in node.inputs)
        if node in wanted and (fed or _is_layer(node) or _looks_up(node)):
            chosen.add(node)
    return chosen


def _is_layer(node: Node) -> bool:
    if node.op not in _LAYERS or not _carries(node) or coded_layer(node) is not None:
        return False
    weights = node.inputs[1]
    return node.op != "Conv" or (weights is not None and weights.constant is not None and len(weights.shape or ()) == 4)


def _looks_up(node: Node) -> bool:
    table = node.inputs[0] if node.op == "Gather" else None
    is_table = table is not None and table.constant is not None and math.prod(table.constant.shape) >= _TABLE
    return is_table and _carries(node)


def _may_follow(node: Node) -> bool:
    if node.op not in _FOLLOWING or not _carries(node):
        return False
    if node.op == "AveragePool":
        return math.prod(node.get_ints("kernel_shape")) <= _POOLED
    if node.op == "Div":
        return node.inputs[1] is not None and node.inputs[1].constant is not None
    return node.op != "Mul" or node.inputs[0] is not node.inputs[1]


def _carries(node: Node) -> bool:
    """Whether a node is of ONNX's own operators, gives float32, and reads no constant that halves cannot hold."""
    if node.domain or node.output.dtype is not DType.FLOAT:
        return False
    constants = [
        value.constant.numpy()
        for value in node.inputs
        if value is not None and value.constant is not None and value.dtype is DType.FLOAT
    ]
    if node.op in _BOUNDS:
        return not any(np.isnan(array).any() for array in constants)
    vanish = any(0 < np.abs(array).max(initial=0) < _LEAST for array in constants)
    return not vanish and all(map(fits, constants))


def rounded(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Weights [Co, Ci, KH, KW] in float16, such that each kernel has the sum that it had.

    Neighbouring pixels are much alike, so what a kernel answers wrongly is mostly the error of its sum times their
    mean. What the rounding of one weight leaves is added to the next smaller one, which has finer steps.
    """
    taps = weights.reshape(*weights.shape[:2], -1)
    order = np.argsort(-np.abs(taps), axis=-1, kind="stable")
    left = np.take_along_axis(taps, order, -1).astype(np.float32)
    carried = np.zeros(left.shape[:-1], np.float32)
    for tap in range(left.shape[-1]):
        wanted = left[..., tap] + carried
        left[..., tap] = wanted.astype(np.float16)
        carried = wanted - left[..., tap]
    result = np.empty(taps.shape, np.float16)
    np.put_along_axis(result, order, left.astype(np.float16), -1)
    return result.reshape(weights.shape)


def _narrowed(graph: Graph, value: Value, *, kernel: bool) -> Value:
    """A value in float16: a constant as one, with `kernel` as `rounded`, another by a Cast behind what makes it."""
    if value.constant is not None:
        array = np.clip(value.constant.numpy().astype(np.float32), -MOST, MOST)
        return graph.constant(rounded(array) if kernel else array.astype(np.float16), value.name)
    first = None if value.producer is not None else next(iter(graph))
    kind = _typed(value, DType.FLOAT16)
    to = {"to": int(DType.FLOAT16)}
    return graph.add("Cast", [value], to, types=[kind], before=first, after=value.producer).output


def _become(graph: Graph, node: Node, value: Value, chosen: set[Node]) -> None:
    """An output of a chosen node becomes float16; whoever is not chosen reads a Cast of it."""
    wide = _typed(value, DType.FLOAT)
    value.type = _typed(value, DType.FLOAT16)
    readers = [(user, index) for user, index in value.uses if user not in chosen]
    if not readers:
        return
    cast = graph.add("Cast", [value], {"to": int(DType.FLOAT)}, types=[wide], after=node, origin=node.origin).output
    for user, index in readers:
        if isinstance(user, Node):
            user.set_input(index, cast)
        else:
            user.set_output(index, cast)


def _typed(value: Value, dtype: DType) -> TensorType:
    assert isinstance(value.type, TensorType)
    return replace(value.type, dtype=dtype)
