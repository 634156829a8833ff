"""Operators that join channels, part them, or take some."""

from __future__ import annotations

import itertools

import numpy as np

from ...graph import Node
from ..flow import Axes, CannotRemove, Flow, Labels, Mask, Role, Rule, number, operand, positions, write


def concat(flow: Flow, node: Node) -> None:
    values = [v for v in node.inputs if v is not None]
    rank = len(flow.shape(node.output))
    axis = node.get_int("axis", 1) % rank
    result: Axes = [None] * rank
    joined = [flow.labels(v)[axis] for v in values]
    if any(array is not None for array in joined):
        parts = [
            np.zeros(number(flow.shape(v)[axis]), np.int64) if array is None else array
            for v, array in zip(values, joined, strict=True)
        ]
        for index, array in enumerate(joined):
            if array is not None:
                flow.tie(node, index, axis, array, Role.PASSIVE)
        result[axis] = np.concatenate(parts)
    for place in range(rank):
        if place == axis:
            continue
        order = sorted(range(len(values)), key=lambda i: values[i].constant is not None)
        labelled = [labels for i in order if (labels := flow.labels(values[i])[place]) is not None]
        if labelled:
            result[place] = labelled[0]
            for index in order:
                flow.tie(node, index, place, labelled[0], Role.PASSIVE)
    flow.give(node.output, result)


def split(flow: Flow, node: Node) -> None:
    labels = flow.labels(operand(node))
    axis = node.get_int("axis") % len(labels)
    array = labels[axis]
    edges = [0]
    if array is not None:
        for value in node.outputs:
            edges.append(edges[-1] + number(flow.shape(value)[axis]))
        if edges[-1] != len(array):
            raise CannotRemove("its parts are not known beforehand")
    parts = None if array is None else [array[a:b] for a, b in itertools.pairwise(edges)]
    for i, value in enumerate(node.outputs):
        flow.give(value, [*labels[:axis], None if parts is None else parts[i], *labels[axis + 1 :]])
    if parts is None:
        return
    stored = parts

    def fix(mask: Mask) -> None:
        sizes = [int(mask(part).sum()) for part in stored]
        if node.graph is not None and node.graph.opset() < 13:
            node.set_attribute("split", sizes)
        elif node.input(1) is not None or len(set(sizes)) > 1:
            node.attributes.pop("num_outputs", None)
            write(node, 1, sizes)

    flow.fixes.append(fix)


def slice_(flow: Flow, node: Node) -> None:
    x = operand(node)
    labels, shape = flow.labels(x), flow.shape(x)
    if all(array is None for array in labels):
        return
    starts, ends = flow.ints(node.input(1)), flow.ints(node.input(2))
    steps = [1] * len(starts or ()) if node.input(4) is None else flow.ints(node.input(4))
    axes = list(range(len(starts or ()))) if node.input(3) is None else flow.ints(node.input(3))
    if axes is None or len(node.inputs) < 3:
        raise CannotRemove("what it cuts is not known beforehand")
    axes = positions(axes, len(shape))
    if all(labels[axis] is None for axis in axes):
        flow.give(node.output, labels)
        return
    if starts is None or ends is None or steps is None:
        raise CannotRemove("what it cuts is not known beforehand")
    cuts: list[tuple[int, Labels, int, int]] = []
    for i, axis in enumerate(axes):
        array = labels[axis]
        if array is None:
            continue
        if steps[i] != 1:
            raise CannotRemove("it takes every other channel")
        first, last, _ = slice(starts[i], ends[i]).indices(len(array))
        cuts.append((i, array, first, last))
        labels[axis] = array[first:last]
    begins, stops = list(starts), list(ends)

    def fix(mask: Mask) -> None:
        for i, array, first, last in cuts:
            kept = mask(array)
            if not kept.all():
                begins[i], stops[i] = int(kept[:first].sum()), int(kept[:last].sum())
        write(node, 1, begins)
        write(node, 2, stops)

    flow.fixes.append(fix)
    flow.give(node.output, labels)


def gather(flow: Flow, node: Node) -> None:
    data, index = operand(node), node.inputs[1]
    if index is None:
        raise CannotRemove("its indices are absent")
    shape, rank = flow.shape(data), len(flow.shape(index))
    if any(array is not None for array in flow.labels(index)):
        raise CannotRemove("its indices come from channels")
    axis = node.get_int("axis") % len(shape)
    labels = flow.labels(data)
    picked: Labels | None = None
    array = labels[axis]
    if array is not None:
        indices = flow.ints(index)
        if indices is None:
            raise CannotRemove("its indices are not known beforehand")
        at = np.asarray(indices, np.int64) % len(array)
        if rank == 1:
            picked = array[at]
        else:
            flow.pin(array[at], f"Gather '{node.label}': it takes single channels")
        where = array
        if data.constant is not None:
            flow.tie(node, 0, axis, array, Role.PASSIVE)

        def fix(mask: Mask) -> None:
            kept = mask(where)
            if kept.all():
                return
            moved = (np.cumsum(kept) - 1)[at[kept[at]]]
            write(node, 1, moved.reshape([-1] * rank).tolist() if rank else int(moved[0]), index)

        flow.fixes.append(fix)
    elif data.constant is not None and data.dtype is not None and data.dtype.is_float and axis != len(shape) - 1:
        # A table: each row that is looked up is made of these channels.
        labels[-1] = flow.fresh(number(shape[-1])) if labels[-1] is None else labels[-1]
    if data.constant is not None:
        for place, axis_labels in enumerate(labels):
            if axis_labels is not None and place != axis:
                flow.tie(node, 0, place, axis_labels, Role.PRODUCER)
    flow.give(node.output, [*labels[:axis], *([picked] if rank == 1 else [None] * rank), *labels[axis + 1 :]])


def pad(flow: Flow, node: Node) -> None:
    """Padding in front of or behind channels makes new ones, of a constant, which may go as any others."""
    x = operand(node)
    labels = flow.labels(x)
    pads = list(node.get_ints("pads")) or flow.ints(node.input(1))
    axes = list(range(len(labels))) if node.input(3) is None else flow.ints(node.input(3))
    if all(array is None for array in labels):
        return
    if pads is None or axes is None or any(p < 0 for p in pads):
        raise CannotRemove("what it pads is not known beforehand")
    ends: list[tuple[int, Labels]] = []
    for i, axis in enumerate(positions(axes, len(labels))):
        array, before, after = labels[axis], pads[i], pads[i + len(axes)]
        if array is None or not before + after:
            continue
        if node.get_string("mode", "constant") != "constant":
            raise CannotRemove("it repeats channels")
        front, back = flow.fresh(before), flow.fresh(after)
        ends += [(i, front), (i + len(axes), back)]
        labels[axis] = np.concatenate([front, array, back])
    sizes = list(pads)

    def fix(mask: Mask) -> None:
        for place, padding in ends:
            sizes[place] = int(mask(padding).sum())
        if "pads" in node.attributes:
            node.set_attribute("pads", sizes)
        else:
            write(node, 1, sizes)

    if ends:
        flow.fixes.append(fix)
    flow.give(node.output, labels)


RULES: dict[str, Rule] = {
    "Concat": concat,
    "Gather": gather,
    "Pad": pad,
    "Slice": slice_,
    "Split": split,
}
