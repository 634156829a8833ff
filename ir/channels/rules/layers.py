"""Layers with weights: these make channels, read them, or scale each by a number of its own."""

from __future__ import annotations

import numpy as np

from ...graph import Node
from ..flow import Axes, CannotRemove, Flow, Labels, Role, Rule, operand
from .pointwise import broadcast


def conv(flow: Flow, node: Node) -> None:
    x, shape = flow.labels(operand(node)), _weight(node, 1)
    groups, read = node.get_int("group", 1), x[1]
    outputs: Labels | None
    if groups == 1:
        outputs = flow.fresh(shape[0])
        if read is not None:
            flow.tie(node, 1, 1, read, Role.CONSUMER)
        flow.tie(node, 1, 0, outputs, Role.PRODUCER)
    elif shape[1] == 1:
        # Depthwise: every input channel makes its own few outputs, and takes them along.
        outputs = None if read is None else np.repeat(read, shape[0] // groups)
        if outputs is not None and read is not None:
            kept: Labels = read
            flow.tie(node, 1, 0, outputs, Role.PASSIVE)
            flow.fixes.append(lambda mask: node.set_attribute("group", int(mask(kept).sum())))
    else:
        # Grouped: the same places go in every group, so that groups stay alike.
        outputs = np.tile(flow.fresh(shape[0] // groups), groups)
        flow.tie(node, 1, 0, outputs, Role.PRODUCER)
        if read is not None:
            first = read[: shape[1]]
            flow.unify(read, np.tile(first, groups))
            flow.tie(node, 1, 1, first, Role.CONSUMER)
    _finish(flow, node, x, outputs)


def conv_transpose(flow: Flow, node: Node) -> None:
    x, shape = flow.labels(operand(node)), _weight(node, 1)
    groups, read = node.get_int("group", 1), x[1]
    outputs: Labels | None
    if groups == 1:
        outputs = flow.fresh(shape[1])
        if read is not None:
            flow.tie(node, 1, 0, read, Role.CONSUMER)
        flow.tie(node, 1, 1, outputs, Role.PRODUCER)
    elif shape[1] == 1 and groups == shape[0]:
        outputs = read
        if read is not None:
            kept: Labels = read
            flow.tie(node, 1, 0, read, Role.PASSIVE)
            flow.fixes.append(lambda mask: node.set_attribute("group", int(mask(kept).sum())))
    else:
        raise CannotRemove("it is grouped")
    _finish(flow, node, x, outputs)


def _finish(flow: Flow, node: Node, x: Axes, outputs: Labels | None) -> None:
    """A convolution's bias, and its output: channels on axis 1, positions that never change."""
    if outputs is not None and node.input(2) is not None:
        flow.tie(node, 2, 0, outputs, Role.PASSIVE)
    flow.hold(node, x[2:])
    flow.give(node.output, [x[0], outputs, *[None] * (len(x) - 2)])


def gemm(flow: Flow, node: Node) -> None:
    x, shape = flow.labels(operand(node)), _weight(node, 1)
    if node.get_int("transA"):
        raise CannotRemove("it reads its input transposed")
    reads, makes = (1, 0) if node.get_int("transB") else (0, 1)
    outputs = flow.fresh(shape[makes])
    if x[1] is not None:
        flow.tie(node, 1, reads, x[1], Role.CONSUMER)
    flow.tie(node, 1, makes, outputs, Role.PRODUCER)
    bias = node.input(2)
    if bias is not None and flow.shape(bias)[-1:] not in ((), (1,)):
        flow.tie(node, 2, -1, outputs, Role.PASSIVE)
    flow.give(node.output, [x[0], outputs])


def matmul(flow: Flow, node: Node) -> None:
    a, b = operand(node), operand(node, 1)
    left, right = flow.labels(a), flow.labels(b)
    if len(left) < 2 or len(right) < 2:
        raise CannotRemove("it multiplies a vector")
    rows, columns = left[-2], right[-1]
    # Constants first: what they read, and what they make.
    if a.constant is None and b.constant is not None:
        if left[-1] is not None:
            flow.tie(node, 1, -2, left[-1], Role.CONSUMER)
        columns = flow.fresh(b.constant.shape[-1])
        flow.tie(node, 1, -1, columns, Role.PRODUCER)
    elif a.constant is not None and b.constant is None:
        if right[-2] is not None:
            flow.tie(node, 0, -1, right[-2], Role.CONSUMER)
        rows = flow.fresh(a.constant.shape[-2])
        flow.tie(node, 0, -2, rows, Role.PRODUCER)
    elif left[-1] is not None and right[-2] is not None:
        flow.unify(left[-1], right[-2])
    elif left[-1] is not None or right[-2] is not None:
        raise CannotRemove("it sums over channels against something of fixed size")
    axes = broadcast(flow, node, range(2), len(flow.shape(node.output)), keep=2)
    flow.give(node.output, [*axes[:-2], rows, columns])


def batch_norm(flow: Flow, node: Node) -> None:
    x = flow.labels(operand(node))
    if len(node.outputs) > 1 and any(v.uses for v in node.outputs[1:]):
        raise CannotRemove("it is in training mode")
    _parameters(flow, node, x)


def instance_norm(flow: Flow, node: Node) -> None:
    x = flow.labels(operand(node))
    flow.hold(node, x[2:])
    _parameters(flow, node, x[:2] + [None] * (len(x) - 2))


def group_norm(flow: Flow, node: Node) -> None:
    """Whole groups go: what stays in a group is normalised over as many numbers as before. The parameters are one a
    channel, or (before opset 21) one a group."""
    x = flow.labels(operand(node))
    flow.hold(node, x[2:])
    if x[1] is not None:
        groups = node.get_int("num_groups", 1)
        first: Labels = x[1][:: len(x[1]) // groups]
        flow.unify(x[1], np.repeat(first, len(x[1]) // groups))
        for index in (1, 2):
            flow.tie(node, index, 0, first if flow.shape(operand(node, index)) == (groups,) else x[1], Role.PASSIVE)
        flow.fixes.append(lambda mask: node.set_attribute("num_groups", int(mask(first).sum())))
    flow.give(node.output, x[:2] + [None] * (len(x) - 2))


def _parameters(flow: Flow, node: Node, x: Axes) -> None:
    """Every input but the first holds one number a channel."""
    if len(x) > 1 and x[1] is not None:
        for index in range(1, len(node.inputs)):
            flow.tie(node, index, 0, x[1], Role.PASSIVE)
    flow.give(node.output, x)


def quantize(flow: Flow, node: Node) -> None:
    """QuantizeLinear and DequantizeLinear: scales and zero points go along where there is one for each channel."""
    x = flow.labels(operand(node))
    if node.get_int("block_size"):
        raise CannotRemove("it is quantized in blocks")
    axis = node.get_int("axis", 1)
    for index in (1, 2):
        value = node.input(index)
        if value is not None and len(flow.shape(value)) == 1 and flow.shape(value) != (1,):
            labels = x[axis % len(x)]
            if labels is not None:
                flow.tie(node, index, 0, labels, Role.PASSIVE)
    flow.give(node.output, x)


def _weight(node: Node, index: int) -> tuple[int, ...]:
    value = node.input(index)
    if value is None or value.constant is None:
        raise CannotRemove(f"its weight is {'absent' if value is None else value.unknown}")
    return value.constant.shape


RULES: dict[str, Rule] = {
    "BatchNormalization": batch_norm,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DequantizeLinear": quantize,
    "Gemm": gemm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "MatMul": matmul,
    "QuantizeLinear": quantize,
}
