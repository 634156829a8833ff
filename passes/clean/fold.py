"""Constant folding: a subgraph of constants becomes the constants that the rest of the graph reads.

    y = f(c1, ..., cn)   ->   y = constant

Exact because an operator is a function: the same inputs give the same outputs at every run. Known are constants,
the shape of a value whose type is static, and every integer vector that shape inference knows; the values of all
nodes that follow from these are computed first, forward, and only then is it decided, backward from the readers,
which of them are worth storing. So a large intermediate value costs nothing when what is read in the end is small.

Does not fire for random operators, for operators outside the default domain, for nodes with bodies, for
DequantizeLinear (it is how a quantized weight is stored), and where the result would make the file larger: it is
stored only when it is no larger than the constants it makes superfluous plus `SMALL` bytes, or the scale of a quantized
value, which passes and runtimes want to see. What a layer reads that is kept in half precision stays behind its Cast,
however small: passes look through it. A generated constant
(ConstantOfShape, Expand) is stored as one element and a shape, never written out; Range and Tile stay nodes when
their result is large, and so does whatever would take more memory than is allowed (`allowance`), or nobody knows how
much.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...ir.allowance import MOST
from ...ir.graph import Graph
from ...ir.node import Node, Value
from ...ir.ops import LAYERS, RANDOM
from ...ir.tensor import SparseTensor
from ...ir.types import DType
from .evaluate import evaluate
from .fill import Array, store, stored_bytes, tensor_bytes
from .one_node import Unknown
from .rewriter import SMALL, Rewriter, is_plain

_NEVER = RANDOM | {"DequantizeLinear", "If", "Loop", "Scan", "SequenceMap"}
_WORKING = 1 << 20
"""Bytes that an intermediate value may take although its inputs are smaller."""


def constants(graph: Graph) -> int:
    """Turn Constant nodes into constants of their graph; returns how many."""
    count = 0
    for node in graph.walk():
        if node.op != "Constant" or not is_plain(node) or node.graph is None:
            continue
        tensor = node.get_tensor("value")
        if tensor is None:
            continue
        node.output.replace_uses(node.graph.constant(tensor, node.output.name))
        node.graph.remove(node)
        count += 1
    return count


def fold(rewriter: Rewriter, known_integers: Mapping[Value, Array]) -> int:
    """Replace what is known by constants; returns the number of nodes that went.

    `known_integers` are vectors of integers (rank 0 or 1) known from shapes.
    """
    constants: dict[Value, Array] = {}
    nodes: list[Node] = []
    for node in rewriter.graph.walk():
        results = _compute(node, constants, known_integers, rewriter)
        if results is not None:
            constants.update(zip(node.outputs, results, strict=True))
            nodes.append(node)
    if not nodes:
        return 0
    stored = _choose(nodes, constants)
    for node in stored:
        graph = node.graph
        assert graph is not None
        for value in node.outputs:
            if value.uses:
                rewriter.push(value.users)
                value.replace_uses(graph.constant(store(constants[value], value.dtype), value.name))
    gone = 0
    for node in reversed(nodes):
        if node.graph is not None and not any(v.uses for v in node.outputs):
            node.graph.remove(node)
            gone += 1
    return gone


def _compute(
    node: Node, constants: Mapping[Value, Array], integers: Mapping[Value, Array], rewriter: Rewriter
) -> list[Array] | None:
    """The outputs of a node, where they follow from what is known."""
    if not is_plain(node) or node.op in _NEVER or not node.outputs:
        return None
    if len(node.outputs) == 1 and node.output in integers:
        return [integers[node.output]]
    if node.op == "Shape" and (shape := _static(node.inputs[0])) is not None:
        start, end = node.get_int("start"), node.get_int("end", len(shape))
        return [np.asarray(shape[start:end], np.int64)]
    inputs: list[Array | None] = []
    for value in node.inputs:
        array = None
        if value is not None:
            array = constants.get(value) if value.constant is None else _elements(value)
            if array is None:
                return None
        inputs.append(array)
    limit = max(_WORKING, sum(stored_bytes(a) for a in inputs if a is not None))
    try:
        results = evaluate(node, inputs, rewriter.opset, rewriter.effort, limit, rewriter.runtime)
    except Unknown:
        return None
    for value, array in zip(node.outputs, results, strict=True):
        if stored_bytes(array) > limit:
            return None
        if value.uses and value.dtype is not None and value.dtype is not _dtype(array):
            return None
    return results


def _choose(nodes: list[Node], constants: Mapping[Value, Array]) -> list[Node]:
    """The nodes whose outputs are to be stored; the others known are either kept as nodes or needed by nobody."""
    computed = set(nodes)
    kept: set[Node] = set()
    credited: set[Value] = set()
    stored = []
    for node in reversed(nodes):
        read = [
            v for v in node.outputs
            if any(not isinstance(user, Node) or user not in computed or user in kept for user, _ in v.uses)
        ]  # fmt: skip
        if not read:
            continue
        if any(constants[v].nbytes > MOST for v in read):  # its readers might write it out
            kept.add(node)
            continue
        if _widens_weights(node):
            kept.add(node)
            continue
        cost = sum(stored_bytes(constants[v]) for v in read)
        if cost > SMALL and not all(_is_scale(v) for v in read):
            leaves = _leaves(node, computed, kept) - credited
            if cost > SMALL + sum(tensor_bytes(v.constant) for v in leaves if v.constant is not None):
                kept.add(node)
                continue
            credited |= leaves
        stored.append(node)
    return stored


def _widens_weights(node: Node) -> bool:
    """Whether a node casts a constant in half precision for layers that compute in single."""
    half = node.inputs[0].constant if node.op == "Cast" and node.inputs[0] is not None else None
    return (
        half is not None
        and half.dtype in (DType.FLOAT16, DType.BFLOAT16)
        and half.size > 1
        and all(isinstance(user, Node) and user.op in LAYERS and index > 0 for user, index in node.output.uses)
    )


def _is_scale(value: Value) -> bool:
    """Whether a value is only read as the scale of quantized ones."""
    return all(
        isinstance(user, Node) and user.op in ("QuantizeLinear", "DequantizeLinear") and index == 1
        for user, index in value.uses
    )


def _leaves(node: Node, computed: set[Node], kept: set[Node]) -> set[Value]:
    """The constants that only nodes which are about to go read, among those that `node` follows from."""
    leaves: set[Value] = set()
    pending, seen = [node], {node}
    while pending:
        for value in pending.pop().inputs:
            if value is None:
                continue
            if value.constant is not None:
                if all(isinstance(user, Node) and user in computed and user not in kept for user, _ in value.uses):
                    leaves.add(value)
            elif value.producer in computed and value.producer is not None and value.producer not in seen:
                seen.add(value.producer)
                pending.append(value.producer)
    return leaves


def _elements(value: Value) -> Array | None:
    return None if value.constant is None or isinstance(value.constant, SparseTensor) else value.constant.numpy()


def _static(value: Value | None) -> tuple[int, ...] | None:
    return None if value is None else value.static_shape


def _dtype(array: Array) -> DType | None:
    try:
        return DType.of(array.dtype)
    except ValueError:
        return None
