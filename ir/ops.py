"""Facts of operators: which belong together, and what a clamp clamps to.

A family says what its operators do with the elements they read; what a runtime or a pass can make of that stands with
the runtime or the pass. All are operators of the ONNX domain.
"""

from __future__ import annotations

import math

import numpy as np

from .node import Node

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Linear in what they read and in their weights."""

VIEWS = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
"""The same elements in the same order, in another shape."""

MOVES = VIEWS | {"Concat", "Gather", "Identity", "Slice", "Split", "Transpose"}
"""Every element of the output is one of the input's, wherever it was; what they repeat, the indices asked for."""

REPEATS = frozenset({"Expand", "Tile"})
BLOCKS = frozenset({"DepthToSpace", "SpaceToDepth"})

ARITHMETIC = frozenset({"Add", "Div", "Mul", "Pow", "Sub"})
COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
LOGIC = frozenset({"And", "Or", "Xor"})
BROADCASTING = ARITHMETIC | COMPARISONS | LOGIC
"""Of two tensors, element by element."""

CLAMPS = frozenset({"Clip", "Relu"})

SIZES = frozenset({"Shape", "Size"})
"""What reads the shape of a tensor and none of its elements."""

CODINGS = frozenset({"DequantizeLinear", "QuantizeLinear"})
"""Between floats and quantized values, by parameters that are inputs."""

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
)
"""What may draw numbers: not to be evaluated once for all, nor merged."""


def draws(node: Node) -> bool:
    """Whether the node draws numbers. A Dropout does where it is told that a network is trained."""
    return node.op in RANDOM and (node.op != "Dropout" or node.input(2) is not None)


LARGEST = (2**31 - 1, 2**63 - 1)
"""What an end is where an axis is taken to its end, in whichever direction it is walked (ONNX Slice)."""


def cut(start: int, end: int, step: int, size: int) -> slice:
    """What a Slice takes of an axis of `size`, as a slice of Python's: negative bounds count from behind, a start
    beyond the axis is its nearest element (or behind the last, walked forwards)."""
    first, last = (bound + size if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return slice(min(max(first, 0), size), min(max(last, 0), size), step)
    last = -1 if end in LARGEST else min(last, size - 1)
    return slice(min(max(first, 0), max(size - 1, 0)), None if last < 0 else last, step)


def clamp_bounds(node: Node) -> tuple[float, float] | None:
    """What a Relu or Clip clamps to, an open end as an infinity; `None` for others, and where a bound is computed.

    The bounds of a Clip are attributes before opset 11 and inputs since; those of whole numbers are `int`.
    """
    if node.domain or node.op not in CLAMPS:
        return None
    if node.op == "Relu":
        return 0.0, math.inf
    low = _bound(node, 1, "min", -math.inf)
    high = _bound(node, 2, "max", math.inf)
    return None if low is None or high is None else (low, high)


def _bound(node: Node, index: int, name: str, absent: float) -> float | None:
    value = node.input(index)
    if value is None:
        return node.get_float(name, absent)
    array = value.numpy()
    if array is None or array.size != 1:
        return None
    # Whole numbers stay such: a float holds them only up to 2^53.
    return int(array.reshape(())) if array.dtype.kind in "iu" else float(np.asarray(array, np.float64).reshape(()))
