"""A graph as another, equally right arithmetic might compute it: every float off by a small relative error of its own.

A sum of products in floats is the exact one of numbers that are a few units of the last place off (backward error,
Wilkinson 1963; Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1). So all floats that
operators read, weights among them, are multiplied by 1 + e, with e uniform within the error of their type. How far the
answers move by it tells how far those of any right arithmetic may lie: it grows with depth, and where a rounding to
codes or a comparison decides, as it does there.

Left alone is what depends on shapes and constants alone, single numbers, and floats that say a size.
"""

from __future__ import annotations

import numpy as np

from ..ir.graph import Graph, Value
from ..ir.node import Node
from ..ir.ops import BLOCKS, MOVES, REPEATS, SIZES
from ..ir.shapes.infer import infer
from ..ir.tensor import ArrayTensor
from ..ir.types import DType

ERRORS = {DType.DOUBLE: 2.0**-48, DType.FLOAT: 2.0**-19, DType.FLOAT16: 2.0**-9, DType.BFLOAT16: 2.0**-6}
"""Relative error of a number by its type: sixteen of its roundings (eight in half precision), as many as are left of
the sums and of the approximated functions of good kernels."""
CODED = 2.0**-13
"""That of floats in a graph with codes. Kernels for codes round once where floats round several times, so a number just
between two codes becomes either. One in thousands is; with this error enough are to see in few samples what comes of
it."""
HALF = 2.0**-9
"""That of floats where a target stores them in half precision."""
UNDRAWN = 22
"""The opset from which on ONNX Runtime has no kernel that draws numbers: they are drawn here, and taken in turn."""
TAKEN = 14
"""That from which on they can be."""
DRAWN = 1009
"""How many: a prime, so that the rows of an array begin with different ones."""

_SIZES = frozenset({("Resize", 1), ("Resize", 2), ("Upsample", 1)})
_LAYOUT = MOVES | REPEATS | BLOCKS | {"Pad"}
_GRIDS = frozenset({"QuantizeLinear", "DequantizeLinear", "Range", "QLinearConv", "QLinearMatMul"})


def error_of(graph: Graph) -> float:
    """The error of float32 numbers of a graph: that of their type, or more where there are codes between them."""
    coded = any("Quantize" in node.op or "QLinear" in node.op or "Integer" in node.op for node in graph.walk())
    return CODED if coded else ERRORS[DType.FLOAT]


def perturbed(graph: Graph, error: float, seed: int) -> Graph:
    """A copy of `graph` with errors drawn from `seed`; those of float32 numbers are at most `error`."""
    copy = graph.clone()
    infer(copy)
    random = np.random.default_rng(seed)
    fed = _fed(copy)
    noisy: dict[Value, Value] = {}
    for node in tuple(copy):
        if not any(value in fed for value in (*node.inputs, *node.captures)):
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and value not in fed and not _says_size(node, index):
                node.set_input(index, _constant(copy, value, error, random, noisy))
        if node.op not in _LAYOUT or node.domain:
            for value in node.outputs:
                if value in fed and value.uses:
                    _disturb(copy, value, error, random)
    return copy


def _fed(graph: Graph) -> set[Value]:
    """The values that depend on what the inputs hold, not on their sizes alone."""
    fed: set[Value] = set(graph.inputs)
    for node in graph:
        if node.op not in SIZES and any(value in fed for value in (*node.inputs, *node.captures)):
            fed.update(node.outputs)
    return fed


def _says_size(node: Node, index: int) -> bool:
    return (node.op, index) in _SIZES or node.op in _GRIDS


def _error(value: Value, error: float) -> float:
    """The error of a value; 0 where it is left alone."""
    if value.dtype is DType.FLOAT:
        return error
    return 0.0 if value.dtype is None else ERRORS.get(value.dtype, 0.0)


def _constant(
    graph: Graph, value: Value, error: float, random: np.random.Generator, noisy: dict[Value, Value]
) -> Value:
    """A value that is known before the model runs, with errors; the same for every reader."""
    size = _error(value, error)
    if not size or value.graph is not graph or value.shape in ((), (1,)):
        return value
    if value not in noisy:
        if value.constant is not None:
            array = value.constant.numpy()
            factors = 1 + size * random.uniform(-1, 1, array.shape).astype(np.float32)
            noisy[value] = graph.constant(ArrayTensor(np.multiply(array, factors).astype(array.dtype)), value.name)
        else:
            noisy[value] = _multiplied(graph, value, size, random)
    return noisy[value]


def _disturb(graph: Graph, value: Value, error: float, random: np.random.Generator) -> None:
    """Let every reader of a computed value read it with errors."""
    size = _error(value, error)
    if size:
        readers = tuple(value.uses)
        other = _multiplied(graph, value, size, random)
        for user, index in readers:
            if isinstance(user, Node):
                user.set_input(index, other)
            else:
                user.set_output(index, other)


def _multiplied(graph: Graph, value: Value, size: float, random: np.random.Generator) -> Value:
    wide = DType.DOUBLE if value.dtype is DType.DOUBLE else DType.FLOAT
    at, read = value.producer, value
    if value.dtype is not wide:
        at = graph.add("Cast", [value], {"to": int(wide)}, after=at)
        read = at.output
    factor = _factors(graph, read, size, wide, random, at)
    product = graph.add("Mul", [read, factor.output], after=factor)
    if value.dtype is not wide:
        product = graph.add("Cast", [product.output], {"to": int(value.dtype or wide)}, after=product)
    product.output.type = value.type
    return product.output


def _factors(graph: Graph, like: Value, size: float, wide: DType, random: np.random.Generator, at: Node | None) -> Node:
    """The node behind `at` that makes a number within `size` of 1 for each element of `like`."""
    # The bounds that the operator is given are single floats, between which and 1 there may be no other number.
    if graph.opset() < (TAKEN if wide is DType.DOUBLE else UNDRAWN):
        limits = {"low": 1 - size, "high": 1 + size, "seed": float(random.integers(1 << 20)), "dtype": int(wide)}
        return graph.add("RandomUniformLike", [like], limits, after=at)
    numbers = graph.constant(random.uniform(1 - size, 1 + size, DRAWN).astype(wide.numpy))
    first, step, count = (graph.constant(np.asarray(number, np.int64)) for number in (0, 1, DRAWN))
    shape = graph.add("Shape", [like], after=at)
    elements = graph.add("Size", [like], after=shape)
    places = graph.add("Range", [first, elements.output, step], after=elements)
    turns = graph.add("Mod", [places.output, count], after=places)
    drawn = graph.add("Gather", [numbers, turns.output], after=turns)
    return graph.add("Reshape", [drawn.output, shape.output], {"allowzero": 1}, after=drawn)
