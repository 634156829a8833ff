"""Weights that a file stores small, in half precision or as codes and scales, written out for a library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ....ir.allowance import RESULTS, Effort
from ....ir.graph import Graph, Value
from ....ir.node import Node
from ....ir.ops import RANDOM
from ....ir.tensor import SparseTensor
from ....ir.types import DType
from ....passes.base import Context, Pass, Report
from ....passes.clean.evaluate import evaluate
from ....passes.clean.fill import Array, store, stored_bytes
from ....passes.clean.one_node import Unknown
from ....passes.clean.rewriter import SMALL, is_plain

_NEVER = RANDOM | {"DequantizeLinear"}
MOST = 16
"""Bytes that a result may take for each that it is computed from: codes of 2 bits become floats of 32."""


@dataclass(frozen=True, slots=True)
class ComputedWeights(Pass):
    """What is computed from constants alone becomes a constant: a library would compute it in every run, and a layer
    whose weights are not known when it is compiled gets none of the fast kernels.

    ONNX Runtime does so when it loads a model. Does not fire where the result takes more than `MOST` times what it is
    computed from (a mask that is expanded), for random operators, for operators with bodies, for those outside the
    default domain, and for DequantizeLinear, which `FloatWeights` knows.
    """

    name: ClassVar[str] = "computed-weights"

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        count = _write_out(graph)
        if count:
            report.rewrote(self.name, count)
        return report


def _write_out(graph: Graph) -> int:
    stored = sum(value.constant.nbytes for value in graph.constants if value.constant is not None)
    effort = Effort(RESULTS + 4 * MOST * stored)
    arrays: dict[Value, Array] = {}
    leaves: dict[Value, int] = {}  # bytes of the constants that a result follows from
    computed: dict[Node, None] = {}
    for node in graph:
        inputs = _inputs(node, arrays)
        if inputs is None:
            continue
        read = sum(leaves.get(v, 0 if v.constant is None else v.constant.nbytes) for v in node.inputs if v is not None)
        limit = MOST * read + SMALL
        try:
            results = evaluate(node, inputs, graph.opset(), effort, limit)
        except Unknown:
            continue
        if any(stored_bytes(array) > limit for array in results) or not _typed(node, results):
            continue
        computed[node] = None
        arrays.update(zip(node.outputs, results, strict=True))
        leaves.update((value, read) for value in node.outputs)
        for value in node.inputs:
            if value in arrays and all(user in computed for user, _ in value.uses):
                del arrays[value]  # nobody reads it any more
    for node in reversed(computed):
        for value in node.outputs:
            if value.uses:
                value.replace_uses(graph.constant(store(arrays.pop(value), value.dtype), value.name))
        graph.remove(node)
    return len(computed)


def _inputs(node: Node, arrays: dict[Value, Array]) -> list[Array | None] | None:
    """The values of what `node` reads; `None` where they are not all known, or the node is not one to compute."""
    if not is_plain(node) or node.op in _NEVER or node.bodies or not node.inputs:
        return None
    inputs: list[Array | None] = []
    for value in node.inputs:
        if value is None:
            inputs.append(None)
        elif value in arrays:
            inputs.append(arrays[value])
        elif value.constant is None or isinstance(value.constant, SparseTensor):
            return None
        else:
            inputs.append(value.constant.numpy())
    return inputs


def _typed(node: Node, results: list[Array]) -> bool:
    """Whether each result has the type that the graph says it has."""
    for value, array in zip(node.outputs, results, strict=True):
        try:
            dtype = DType.of(array.dtype)
        except ValueError:
            return False
        if value.dtype is not None and value.dtype is not dtype:
            return False
    return True
