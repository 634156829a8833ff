"""On what conditions operators are taken: what the table says of them, and what builds refuse, are one rule.

A condition is looked at before any work, on the graph as it would be brought to what the importer takes, and again
where a node is lowered: what passes in between may have changed it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ....errors import TargetError
from ....ir.node import Node, Value
from ....ir.ops import RANDOM
from ....ir.types import DType
from ..blame import where
from ..legal import recurrent
from ..legal.primitive import FIXED
from ..open_sizes import follows, leaves_open
from .rules import casts, reductions, selection, sorting
from .rules import recurrent as walked

_REPLACE = "replace it by other operators, or build for onnx"
_SHAPE = "fix the sizes of the inputs with --shape"
_DECLARE = "declare the size of its result in the model where it is always the same, or build for onnx"


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
    return node.output.static_shape is not None and count <= selection.MOST


def _short_rows(node: Node) -> bool:
    sizes = None if node.inputs[0] is None else node.inputs[0].static_shape
    if not sizes:
        return True  # what is open is told of where it is lowered
    axis, operand = node.get_int("axis", -1), node.input(1)
    if node.op == "CumSum":
        if operand is None or operand.constant is None:
            return max(sizes) <= sorting.MOST
        axis = int(operand.constant.numpy().reshape(-1)[0])
    return sizes[axis] <= sorting.MOST


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


_SIZES = Condition(
    "sizes that are operands: those that the model declares, made sure of when it runs", _declared, _DECLARE
)
_CELLS = Condition(
    f"at most {recurrent.MOST} steps and activations that have defaults; or, on CPUs, an open number of steps, the "
    "default activations, constant weights, and sequences of one length",
    lambda node: recurrent.fits(node) or walked.fits(node),
)
_CODES = Condition("scales and zero points that are constants", _constant(1, 2, 4, 5, 6, 7))
_ROWS = Condition(f"rows of at most {sorting.MOST:,} elements", _short_rows)
_CHOSEN = Condition(
    f"as many results as the model declares, made sure of when it runs, among at most {selection.MOST:,} elements",
    _few,
    _DECLARE,
)
_AXES = Condition(
    f"axes that are constants, or of which at most {reductions.MOST} sets give the sizes of the result",
    reductions.has_few_sets,
)

CONDITIONS: dict[str, Condition] = {
    **dict.fromkeys(("Compress", "NonZero"), _CHOSEN),
    **dict.fromkeys(("CenterCropPad", "Expand", "OneHot", "Pad", "Range", "Reshape", "Slice", "Split", "Tile"), _SIZES),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _CELLS),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul"), _CODES),
    **dict.fromkeys(("CumSum", "TopK"), _ROWS),
    **{op: Condition("a size that is a constant", _constant(index)) for op, index in FIXED.items()},
    **dict.fromkeys(reductions.OPERATORS, _AXES),
    "BitCast": Condition("other bits than those of booleans", casts.has_bits),
    "Cast": Condition(
        "numbers of eight bits or more, but not from one of eight bits to another, nor from integers to them, nor to "
        f"{DType.FLOAT8E8M0.text}",
        casts.fits,
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
