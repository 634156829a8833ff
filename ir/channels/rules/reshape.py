"""Operators that regroup or reorder axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...graph import Node, Value
from ...shapes.symbols import Size, divide
from ..flow import Axes, CannotRemove, Fix, Flow, Labels, Mask, Rule, number, operand, unchanged, write


def reshape(flow: Flow, node: Node) -> None:
    """Axes that are merged or split keep their channels; which part of a split axis does is up to `_target`. Where the
    shape is that of another value, both have the same channels."""
    x, like = operand(node), shape_read(node)
    try:
        labels, before, after = flow.labels(x), flow.shape(x), flow.shape(node.output)
        if all(array is None for array in labels):
            if like is not None:
                raise CannotRemove("its shape is that of channels which it does not read")
            return
        result = _regroup(flow, labels, before, after)
        if like is not None:
            _tie_to(flow, result, flow.labels(like))
        elif node.op == "Reshape":
            flow.fixes.append(_reshape_fix(flow, node, labels, result))
    except CannotRemove as reason:
        if like is not None:
            flow.pin_all(like, f"{node.op} '{node.label}': {reason}")
        raise
    flow.give(node.output, result)


def shape_read(node: Node) -> Value | None:
    """The value whose whole shape a Reshape is given, `None` for another shape."""
    shape = node.input(1) if node.op == "Reshape" and not node.domain else None
    maker = None if shape is None else shape.producer
    if maker is None or maker.op != "Shape" or maker.domain or "start" in maker.attributes or "end" in maker.attributes:
        return None
    return maker.input(0)


def _tie_to(flow: Flow, result: Axes, other: Axes) -> None:
    """Tie the channels of a result to those of the value that it has the shape of."""
    if [None if a is None else len(a) for a in result] != [None if a is None else len(a) for a in other]:
        raise CannotRemove("the shape is computed")
    for one, two in zip(result, other, strict=True):
        if one is not None and two is not None:
            flow.unify(one, two)


def _regroup(flow: Flow, labels: Axes, before: Sequence[Size], after: Sequence[Size]) -> Axes:
    result: Axes = [None] * len(after)
    for merged, split in _segments(before, after):
        labelled = [i for i in merged if labels[i] is not None]
        if not labelled:
            continue
        if len(labelled) == 1 and labelled[0] == merged[0] and len(merged) > 1:
            grouped = _outermost(flow, labels[labelled[0]], after[split[0]])
            if grouped is not None:
                result[split[0]] = grouped
                continue
        outer = [number(before[i]) for i in merged if i < labelled[0]]
        inner = [number(before[i]) for i in merged if i > labelled[0]]
        for i in labelled[1:]:
            flow.pin(labels[i], "reshaped together with other channels")
        array = labels[labelled[0]]
        assert array is not None
        flat = np.tile(np.repeat(array, math.prod(inner)), math.prod(outer))
        wide = [o for o in split if after[o] != 1]
        sizes = [number(after[o]) for o in wide]
        if not wide:
            raise CannotRemove("its channels vanish")
        place = _target(len(before), len(after), len(wide))
        size, stride = sizes[place], math.prod(sizes[place + 1 :])
        index = np.arange(len(flat)) // stride % size
        result[wide[place]] = flat[np.arange(size) * stride]
        flow.unify(flat, flat[index * stride])
    return result


def _outermost(flow: Flow, labels: Labels | None, size: Size) -> Labels | None:
    """The labels of the first axis, of `size`, that channels with positions behind them are dealt into anew: groups of
    channels, which go as a whole, or the channels of groups. `None` where neither divides the other."""
    if labels is None or not isinstance(size, int) or size < 2 or len(labels) < 2:
        return None
    if len(labels) % size == 0:
        first = labels[:: len(labels) // size]
        flow.unify(labels, np.repeat(first, len(labels) // size))
        return first
    return np.repeat(labels, size // len(labels)) if size % len(labels) == 0 else None


def _target(before: int, after: int, parts: int) -> int:
    """Which part of a split axis of channels may lose elements; the others keep their size.

    The outer one (attention heads out of a row of features), but the middle one of three (heads between query, key,
    value and the features of a head), and the inner one where channels of a picture are dealt into groups (channel
    shuffle).
    """
    if parts == 3 and before == 3:
        return 1
    return parts - 1 if before == 4 and after == 5 else 0


def _segments(before: Sequence[Size], after: Sequence[Size]) -> list[tuple[list[int], list[int]]]:
    """The finest runs of axes of equal size on both sides. Raises `CannotRemove` where symbols do not show them."""
    segments = []
    i = j = 0
    while i < len(before) or j < len(after):
        if i < len(before) and before[i] == 1 and (j >= len(after) or after[j] != 1):
            segments.append(([i], list[int]()))
            i += 1
            continue
        if j < len(after) and after[j] == 1 and (i >= len(before) or before[i] != 1):
            segments.append((list[int](), [j]))
            j += 1
            continue
        if i >= len(before) or j >= len(after):
            raise CannotRemove("its sizes are not known well enough")
        left, right = [i], [j]
        a, b = before[i], after[j]
        i, j = i + 1, j + 1
        while a != b:
            if i < len(before) and (divide(b, a) is not None or j >= len(after)):
                left.append(i)
                a, i = a * before[i], i + 1
            elif j < len(after):
                right.append(j)
                b, j = b * after[j], j + 1
            else:
                raise CannotRemove("its sizes are not known well enough")
        segments.append((left, right))
    return segments


def _reshape_fix(flow: Flow, node: Node, labels: Axes, result: Axes) -> Fix:
    """Write the sizes of what stays in the shape that a Reshape is given.

    Raises `CannotRemove` where that shape is computed and cannot be written as copies and one rest.
    """
    before, after = flow.shape(operand(node)), flow.shape(node.output)
    shape = node.input(1)
    copies = not node.get_int("allowzero")
    plan: list[int | Labels]
    if shape is not None and shape.constant is not None:
        plan = [int(i) for i in np.asarray(shape.numpy()).reshape(-1)]
    else:
        plan = [
            size if isinstance(size, int) else 0 if copies and i < len(before) and before[i] == size else -1
            for i, size in enumerate(after)
        ]
        if sum(isinstance(size, int) and size == -1 for size in plan) > 1:
            raise CannotRemove("the shape is computed")
    for i, array in enumerate(result):
        if array is not None and not (isinstance(plan[i], int) and plan[i] == -1):
            plan[i] = array
        elif array is None and i < len(labels) and labels[i] is not None and isinstance(plan[i], int) and plan[i] == 0:
            plan[i] = number(after[i])

    def fix(mask: Mask) -> None:
        if unchanged(mask, labels):
            return
        sizes = [size if isinstance(size, int) else int(mask(size).sum()) for size in plan]
        write(node, 1, sizes)

    return fix


def transpose(flow: Flow, node: Node) -> None:
    labels = flow.labels(operand(node))
    order = node.get_ints("perm") or tuple(reversed(range(len(labels))))
    flow.give(node.output, [labels[i] for i in order])


RULES: dict[str, Rule] = {
    "Flatten": reshape,
    "Reshape": reshape,
    "Squeeze": reshape,
    "Transpose": transpose,
    "Unsqueeze": reshape,
}
