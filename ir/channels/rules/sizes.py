"""Operators that repeat or resample axes, or read how long they are."""

from __future__ import annotations

import numpy as np

from ...graph import Node
from ..flow import Axes, CannotRemove, Flow, Mask, Rule, operand, positions, unchanged, write
from .reshape import shape_read


def expand(flow: Flow, node: Node) -> None:
    x = operand(node)
    labels, after = flow.labels(x), flow.shape(node.output)
    result: Axes = [*[None] * (len(after) - len(labels)), *labels]
    shape = flow.ints(node.input(1))
    if all(array is None for array in labels):
        return
    if shape is None:
        raise CannotRemove("the shape is computed")
    # A size of one leaves the axis as it is.
    for place in range(1, min(len(shape), len(labels)) + 1):
        if labels[-place] is not None and after[-place] == flow.shape(x)[-place]:
            shape[-place] = 1
        elif labels[-place] is not None:
            raise CannotRemove("it repeats a channel")

    def fix(mask: Mask) -> None:
        if not unchanged(mask, labels):
            write(node, 1, shape)

    flow.fixes.append(fix)
    flow.give(node.output, result)


def tile(flow: Flow, node: Node) -> None:
    labels = flow.labels(operand(node))
    if all(array is None for array in labels):
        return
    repeats = flow.ints(node.input(1))
    if repeats is None or len(repeats) != len(labels):
        raise CannotRemove("how often it repeats is not known beforehand")
    flow.give(node.output, [None if a is None else np.tile(a, r) for a, r in zip(labels, repeats, strict=True)])


def resize(flow: Flow, node: Node) -> None:
    x = operand(node)
    labels, before, after = flow.labels(x), flow.shape(x), flow.shape(node.output)
    labelled = [i for i, array in enumerate(labels) if array is not None]
    if any(before[i] != after[i] for i in labelled):
        raise CannotRemove("it resizes channels")
    sizes = node.input(3) if node.op == "Resize" else None
    if labelled and sizes is not None and flow.shape(sizes) != (0,):
        wanted = flow.ints(sizes)
        if wanted is None:
            raise CannotRemove("the sizes are computed")
        axes = positions(node.get_ints("axes") or range(len(before)), len(before))
        stored = [labels[axis] for axis in axes]

        def fix(mask: Mask) -> None:
            write(node, 3, [n if a is None else int(mask(a).sum()) for n, a in zip(wanted, stored, strict=True)])

        flow.fixes.append(fix)
    flow.give(node.output, labels)


def depth_to_space(flow: Flow, node: Node) -> None:
    labels = flow.labels(operand(node))
    blocks = node.get_int("blocksize") ** 2
    if (array := labels[1]) is not None:
        if node.get_string("mode", "DCR") == "DCR":
            first = array[: len(array) // blocks]
            flow.unify(array, np.tile(first, blocks))
        else:
            first = array[::blocks]
            flow.unify(array, np.repeat(first, blocks))
        labels[1] = first
    _no_positions(labels)
    flow.give(node.output, labels)


def space_to_depth(flow: Flow, node: Node) -> None:
    labels = flow.labels(operand(node))
    if labels[1] is not None:
        labels[1] = np.tile(labels[1], node.get_int("blocksize") ** 2)
    _no_positions(labels)
    flow.give(node.output, labels)


def _no_positions(labels: Axes) -> None:
    if any(array is not None for array in labels[2:]):
        raise CannotRemove("its positions are channels")


def shape_of(flow: Flow, node: Node) -> None:
    """The number of channels must not become data; entries for other axes may be picked."""
    labels = flow.labels(operand(node))
    start = node.get_int("start")
    stop = node.get_int("end", len(labels))
    listed = labels[start:stop]
    for user, index in node.output.uses:
        if isinstance(user, Node) and index == 1 and shape_read(user) is node.inputs[0]:
            continue  # it has these channels itself, or holds on to them
        taken = range(len(listed))
        if isinstance(user, Node) and index == 0 and user.op in ("Gather", "Slice"):
            first = flow.ints(user.input(1))
            if user.op == "Gather" and first is not None:
                taken = [i % len(listed) for i in first]  # type: ignore[assignment]
            elif user.op == "Slice":
                # Before operator set 10, starts and ends are attributes.
                starts, ends = first or user.get_ints("starts"), flow.ints(user.input(2)) or user.get_ints("ends")
                steps = (1,) if user.input(4) is None else flow.ints(user.input(4))
                if starts and ends and steps:
                    taken = range(len(listed))[starts[0] : ends[0] : steps[0]]
        for i in taken:
            flow.pin(listed[i], f"Shape '{node.label}': the number of channels is read")


RULES: dict[str, Rule] = {
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Resize": resize,
    "Shape": shape_of,
    "SpaceToDepth": space_to_depth,
    "Tile": tile,
    "Upsample": resize,
}
