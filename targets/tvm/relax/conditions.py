"""On what conditions operators are taken: what the table says of them, and what builds refuse, are one rule.

A condition is looked at before any work, on the graph as it would be brought to what the importer takes, and again
where a node is lowered: what passes in between may have changed it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ....errors import TargetError
from ....ir.node import Node, Value
from ....ir.ops import RANDOM
from ....ir.types import DType
from ..blame import where
from ..legal import recurrent
from ..legal.primitive import FIXED
from ..open_sizes import follows, leaves_open

_REPLACE = "replace it by other operators, or build for onnx"
_SHAPE = "fix the sizes of the inputs with --shape"
_DECLARE = "declare the size of its result in the model where it is always the same, or build for onnx"

COMPARED = 1 << 14
"""Elements at most of which those that a condition names, or that are not zero, are chosen: each is compared with all
others."""
RANKED = 1 << 15
"""Elements at most of a row that is sorted or summed up."""
SETS = 8
"""Sets of axes at most that are reduced over side by side."""
REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
EIGHTS = frozenset({
    DType.FLOAT8E4M3FN, DType.FLOAT8E4M3FNUZ, DType.FLOAT8E5M2, DType.FLOAT8E5M2FNUZ, DType.FLOAT8E8M0,
})  # fmt: skip
"""Floats of eight bits."""
_WIDER = frozenset({DType.FLOAT16, DType.FLOAT, DType.DOUBLE, DType.BFLOAT16})


@dataclass(frozen=True, slots=True)
class Condition:
    """What of an operator is taken: in words, and whether a node, whose types are inferred, is it; else what to do."""

    text: str
    met: Callable[[Node], bool]
    advice: str = _REPLACE


def met(node: Node) -> bool:
    """Whether a node, whose types are inferred, meets the condition that its operator is taken on."""
    condition = CONDITIONS.get(node.op) if node.domain == "" else None
    return condition is None or condition.met(node)


def check(node: Node) -> None:
    """Raises `TargetError` where a node does not meet the condition that its operator is taken on."""
    if not met(node):
        condition = CONDITIONS[node.op]
        taken = f"of {node.op}, targets of TVM take {condition.text}"
        advice = condition.advice
        if leaves_open(node.graph):
            advice = f"{_SHAPE}, {advice}"  # what follows from them may be what is missing
        raise TargetError(f"{where(node)} cannot be compiled: {taken}; {advice}")


def _declared(node: Node) -> bool:
    """Whether how large the results are depends on sizes alone, or the model declares it."""
    open_ones = any(value is not None and value.static_shape is None for value in node.inputs)
    return open_ones or all(value.static_shape is not None or follows(value) for value in node.outputs if value.uses)


def _few(node: Node) -> bool:
    sizes = None if node.inputs[0] is None else node.inputs[0].static_shape
    if sizes is None:
        return False
    count = math.prod(sizes)
    if node.op == "Compress":
        condition = node.inputs[1]
        longest = None if condition is None else condition.static_shape
        if longest is None:
            return False
        count = min(longest[0], sizes[node.get_int("axis")] if "axis" in node.attributes else count)
    return node.output.static_shape is not None and count <= COMPARED


def _short_rows(node: Node) -> bool:
    sizes = None if node.inputs[0] is None else node.inputs[0].static_shape
    if not sizes:
        return True  # what is open is told of where it is lowered
    axis, operand = node.get_int("axis", -1), node.input(1)
    if node.op == "CumSum":
        if operand is None or operand.constant is None:
            return max(sizes) <= RANKED
        axis = int(operand.constant.numpy().reshape(-1)[0])
    return sizes[axis] <= RANKED


def _constant(*indices: int) -> Callable[[Node], bool]:
    """Whether these operands are absent, constants, or computed from constants alone, as what a file stores packed."""

    def met(node: Node) -> bool:
        return all(_settled(node.input(index)) for index in indices)

    return met


def _settled(value: Value | None) -> bool:
    values, seen = [value], {value}
    while values:
        one = values.pop()
        if one is None or one.constant is not None:
            continue
        if one.producer is None or one.producer.op in RANDOM or one.producer.bodies:
            return False
        before = [operand for operand in one.producer.inputs if operand not in seen]
        seen.update(before)
        values += before
    return True


def _infers(node: Node) -> bool:
    """Whether a Dropout drops nothing."""
    training, ratio = node.input(2), node.input(1)
    if training is None:
        return True
    if training.constant is None:
        return False
    nothing = ratio is not None and ratio.constant is not None and not ratio.constant.numpy().any()
    return nothing or not training.constant.numpy().any()


def _from_the_front(node: Node) -> bool:
    kept = node.get_string("keep_aspect_ratio_policy", "stretch") != "stretch"
    return not kept or node.input(3) is None or min(node.get_ints("axes", (0,)), default=0) >= 0


def _written_out(node: Node) -> bool:
    """What could be written out is no longer there."""
    return False


def _has_few_sets(node: Node) -> bool:
    """Whether the axes of a reduction are constants, or few sets of them can be meant."""
    axes = node.input(1)
    if axes is None or axes.constant is not None or axes.static_shape == (0,):
        return True
    sizes = None if node.inputs[0] is None else node.inputs[0].static_shape
    if sizes is None:
        return True  # what is open is told of where it is lowered
    result = node.output.static_shape
    return result is not None and 0 < len(sets_of_axes(sizes, result, bool(node.get_int("keepdims", 1)))) <= SETS


def sets_of_axes(sizes: tuple[int, ...], result: tuple[int, ...], keep: bool) -> list[tuple[int, ...]]:
    """The sets of axes, those of size one left aside, that make `result` of `sizes`."""
    if keep:
        return [tuple(axis for axis, (a, b) in enumerate(zip(sizes, result, strict=True)) if a != b)]
    wide = [axis for axis, size in enumerate(sizes) if size != 1]
    left = tuple(size for size in result if size != 1)
    sets = itertools.chain.from_iterable(itertools.combinations(wide, n) for n in range(len(wide) + 1))
    return [axes for axes in sets if tuple(sizes[axis] for axis in wide if axis not in axes) == left]


def _can_cast(node: Node) -> bool:
    """Whether a Cast makes numbers of eight bits of wider ones, if of any, and rounds to no powers of two."""
    source, wanted = None if node.inputs[0] is None else node.inputs[0].dtype, node.output.dtype
    return wanted is source or wanted not in EIGHTS or (wanted is not DType.FLOAT8E8M0 and source in _WIDER)


def _has_bits(node: Node) -> bool:
    """Whether a BitCast is of numbers."""
    return DType.BOOL not in (None if node.inputs[0] is None else node.inputs[0].dtype, node.output.dtype)


def _can_walk(node: Node) -> bool:
    """Whether a kernel walks the steps of a cell, whose types are known: their number is open, its functions are those
    that it has by default, all sequences are of one length, and its weights are constants."""
    x, r = node.inputs[0], node.inputs[2]
    if x is None or x.dtype is None or x.dtype.numpy != np.float32 or x.shape is None or r is None:
        return False
    steps, inputs = x.shape[1 if node.get_int("layout") == 1 else 0], x.shape[2]
    usual = not {"activations", "clip"} & set(node.attributes) and not node.get_int("input_forget")
    plain = node.input(4) is None and node.input(7) is None
    constants = all(value is None or value.constant is not None for value in (node.input(k) for k in (1, 2, 3)))
    return not isinstance(steps, int) and isinstance(inputs, int) and usual and plain and constants


_SIZES = Condition(
    "sizes that are operands: those that the model declares, made sure of when it runs", _declared, _DECLARE
)
_CELLS = Condition(
    f"at most {recurrent.MOST} steps and activations that have defaults; or, on CPUs, an open number of steps, the "
    "default activations, constant weights, and sequences of one length",
    lambda node: recurrent.fits(node) or _can_walk(node),
)
_CODES = Condition("scales and zero points that are constants", _constant(1, 2, 4, 5, 6, 7))
_ROWS = Condition(f"rows of at most {RANKED:,} elements", _short_rows)
_CHOSEN = Condition(
    f"as many results as the model declares, made sure of when it runs, among at most {COMPARED:,} elements",
    _few,
    _DECLARE,
)
_AXES = Condition(
    f"axes that are constants, or of which at most {SETS} sets give the sizes of the result",
    _has_few_sets,
)

CONDITIONS: dict[str, Condition] = {
    **dict.fromkeys(("Compress", "NonZero"), _CHOSEN),
    **dict.fromkeys(("CenterCropPad", "Expand", "OneHot", "Pad", "Range", "Reshape", "Slice", "Split", "Tile"), _SIZES),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _CELLS),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul"), _CODES),
    **dict.fromkeys(("CumSum", "TopK"), _ROWS),
    **{op: Condition("a size that is a constant", _constant(index)) for op, index in FIXED.items()},
    **dict.fromkeys(REDUCTIONS, _AXES),
    "BitCast": Condition("other bits than those of booleans", _has_bits),
    "Cast": Condition(
        "numbers of eight bits or more, but not from one of eight bits to another, nor from integers to them, nor to "
        f"{DType.FLOAT8E8M0.text}",
        _can_cast,
    ),
    "Dropout": Condition("inference, not training mode", _infers, "set training_mode to false"),
    "If": Condition("branches whose results have the same known sizes, or a constant condition", _written_out),
    "Loop": Condition("a constant number of rounds", _written_out),
    "Resize": Condition(
        "axes counted from the front where a policy keeps the aspect ratio: ONNX Runtime leaves others as they are",
        _from_the_front,
        "count them so, or build for onnx",
    ),
    "RoiAlign": Condition("means, not maxima", lambda node: node.get_string("mode", "avg") != "max"),
    "Scan": Condition("a known number of rounds, from opset 9 on", _written_out),
}
"""What stands in none of these is taken in every form, or in none."""
