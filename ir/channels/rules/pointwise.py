"""Operators that work element by element, over windows of one channel, or across one axis."""

from __future__ import annotations

from ...graph import Node
from ..flow import Axes, CannotRemove, Flow, Role, Rule, operand, positions

_UNARY = """Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu
    HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign
    Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"""
_ELEMENTWISE = """Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max
    Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor"""
_POOLS = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"
_ACROSS = "ArgMax ArgMin CumSum Hardmax LogSoftmax LpNormalization Softmax TopK"
_FROM_AXIS = "LayerNormalization RMSNormalization SimplifiedLayerNormalization"
_SUMS = "ReduceL1 ReduceL2 ReduceSum ReduceSumSquare"
_OTHER_REDUCTIONS = "ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd"
_ACROSS_AXIS = {"ArgMax": 0, "ArgMin": 0}


def unary(flow: Flow, node: Node) -> None:
    flow.give(node.output, flow.labels(operand(node)))


def elementwise(flow: Flow, node: Node) -> None:
    rank = len(flow.shape(node.output))
    flow.give(node.output, broadcast(flow, node, range(len(node.inputs)), rank))


def broadcast(flow: Flow, node: Node, inputs: range, rank: int, keep: int = 0) -> Axes:
    """The labels of what the inputs broadcast to; their last `keep` axes, and those of the result, are left out."""
    result: Axes = [None] * rank
    for place in range(-1 - keep, -1 - rank, -1):
        wide = []
        for index in inputs:
            value = node.inputs[index]
            shape = () if value is None else flow.shape(value)
            if value is not None and len(shape) >= -place and shape[place] != 1:
                wide.append((index, value))
        # Activations lead, so that constants are labelled by what they meet.
        wide.sort(key=lambda item: item[1].constant is not None)
        labelled = [labels for _, v in wide if (labels := flow.labels(v)[place]) is not None]
        if labelled:
            result[place] = labelled[0]
            for index, _ in wide:
                flow.tie(node, index, place, labelled[0], Role.PASSIVE)
    return result


def dropout(flow: Flow, node: Node) -> None:
    for value in node.outputs:
        flow.give(value, flow.labels(operand(node)))


def pool(flow: Flow, node: Node) -> None:
    x = flow.labels(operand(node))
    flow.hold(node, x[2:])
    for value in node.outputs:
        flow.give(value, [*x[:2], *[None] * (len(x) - 2)])


def across(flow: Flow, node: Node) -> None:
    """Operators whose result for one channel depends on the others along their axis."""
    x = flow.labels(operand(node))
    old = node.op in ("Softmax", "LogSoftmax", "Hardmax") and (0 if node.graph is None else node.graph.opset()) < 13
    axis = node.get_int("axis", _ACROSS_AXIS.get(node.op, 1 if old else -1)) % len(x)
    if node.op == "CumSum":
        axes = flow.ints(node.input(1))
        if axes is None:
            raise CannotRemove("its axis is not known beforehand")
        axis = axes[0] % len(x)
    summed = range(axis, len(x)) if old else [axis]
    flow.hold(node, [x[i] for i in summed])
    labels: Axes = [None if i in summed else array for i, array in enumerate(x)]
    if node.op in ("ArgMax", "ArgMin") and not node.get_int("keepdims", 1):
        labels.pop(axis)
    for value in node.outputs:
        flow.give(value, labels)


def from_axis(flow: Flow, node: Node) -> None:
    """Normalisation over all axes from one on: the statistics count every channel."""
    x = flow.labels(operand(node))
    axis = node.get_int("axis", -1) % len(x)
    flow.hold(node, x[axis:])
    flow.give(node.output, [*x[:axis], *[None] * (len(x) - axis)])


def reduction(flow: Flow, node: Node) -> None:
    """A sum over channels does without those that are gone; a mean or a maximum is another one."""
    x = flow.labels(operand(node))
    reduced = flow.ints(node.input(1)) if node.input(1) is not None else list(node.get_ints("axes"))
    if reduced is None:
        raise CannotRemove("its axes are not known beforehand")
    if not reduced and node.get_int("noop_with_empty_axes"):
        flow.give(node.output, x)
        return
    axes = positions(reduced, len(x)) or range(len(x))
    if node.op not in _SUMS.split():
        flow.hold(node, [x[i] for i in axes])
    keep = bool(node.get_int("keepdims", 1))
    flow.give(node.output, [None if i in axes else array for i, array in enumerate(x) if keep or i not in axes])


RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY.split(), unary),
    **dict.fromkeys(_ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(_POOLS.split(), pool),
    **dict.fromkeys(_ACROSS.split(), across),
    **dict.fromkeys(_FROM_AXIS.split(), from_axis),
    **dict.fromkeys((*_SUMS.split(), *_OTHER_REDUCTIONS.split()), reduction),
    "Dropout": dropout,
}
