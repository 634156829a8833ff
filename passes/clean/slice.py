"""Slices.

    1. Slice that takes everything                    ->  x
    2. Slice(Slice(x)) along different axes           ->  one Slice
    3. Slice(Concat(a, b, c)) of exactly some parts   ->  those parts

Exact: all of them only choose elements. An end past the size means "to the end", whatever the size. Does not fire where
bounds are not constant, for 2 where the inner Slice is read by others, and for 3 where a part's size along the axis is
not a number, the bounds cut through a part, or the step is not 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.node import Node
from .rewriter import Rewriter, Rule

_END = (1 << 31) - 1
"""Exporters write the largest int32 or int64 for "to the end"."""


@dataclass(frozen=True, slots=True)
class SliceBounds:
    """One axis of a Slice, as given: `start`, `end` and `axis` may be negative."""

    axis: int
    start: int
    end: int
    step: int

    def is_all(self, size: object) -> bool:
        """Whether these bounds take every element of an axis of `size` (a number, a name, or `None`), in order."""
        if self.step != 1:
            return False
        starts = self.start == 0 or (isinstance(size, int) and self.start <= -size)
        return starts and (self.end >= _END or (isinstance(size, int) and self.end >= size))


def bounds(node: Node, rewriter: Rewriter) -> list[SliceBounds] | None:
    """The bounds of a Slice, one per axis; `None` where they are not constant."""
    if rewriter.opset < 10:
        starts: tuple[int, ...] | None = node.get_ints("starts")
        ends: tuple[int, ...] | None = node.get_ints("ends")
        axes: tuple[int, ...] | None = node.get_ints("axes")
        steps: tuple[int, ...] | None = ()
    else:
        starts, ends = rewriter.ints(node.input(1)), rewriter.ints(node.input(2))
        axes = () if node.input(3) is None else rewriter.ints(node.input(3))
        steps = () if node.input(4) is None else rewriter.ints(node.input(4))
    if starts is None or ends is None or axes is None or steps is None:
        return None
    axes = axes or tuple(range(len(starts)))
    return [SliceBounds(*b) for b in zip(axes, starts, ends, steps or (1,) * len(starts))]


def _no_op(node: Node, rewriter: Rewriter) -> bool:
    source, cut = node.inputs[0], bounds(node, rewriter)
    if source is None or cut is None:
        return False
    shape = source.shape
    for b in cut:
        size = None if shape is None or not -len(shape) <= b.axis < len(shape) else shape[b.axis]
        if not b.is_all(size):
            return False
    return rewriter.bypass(node, source)


def _chain(node: Node, rewriter: Rewriter) -> bool:
    inner = rewriter.made_only_for(node, 0, "Slice")
    if inner is None or rewriter.opset < 10:
        return False
    first, second = bounds(inner, rewriter), bounds(node, rewriter)
    source = inner.inputs[0]
    if first is None or second is None or source is None:
        return False
    rank = None if source.shape is None else len(source.shape)
    axes = [b.axis if b.axis >= 0 or rank is None else b.axis + rank for b in (*first, *second)]
    if len(set(axes)) != len(axes) or (rank is None and any(a < 0 for a in axes)):
        return False
    both = (*first, *second)
    inputs = [source]
    for column in ([b.start for b in both], [b.end for b in both], axes, [b.step for b in both]):
        inputs.append(rewriter.constant(node, column))
    rewriter.replace(node, rewriter.make(node, "Slice", inputs, merged=[inner]))
    return True


def _of_concat(node: Node, rewriter: Rewriter) -> bool:
    concat, cuts = rewriter.made_by(node, 0, "Concat"), bounds(node, rewriter)
    if concat is None or cuts is None or len(cuts) != 1 or cuts[0].step != 1 or concat.output.shape is None:
        return False
    rank, cut = len(concat.output.shape), cuts[0]
    axis = concat.get_int("axis") % rank
    parts = [v for v in concat.inputs if v is not None]
    sizes = [v.shape[axis] if v.shape is not None and len(v.shape) == rank else None for v in parts]
    fixed = [s for s in sizes if isinstance(s, int)]
    if cut.axis % rank != axis or len(fixed) != len(sizes):
        return False
    total = sum(fixed)
    start, end = (min(max(v + total if v < 0 else v, 0), total) for v in (cut.start, cut.end))
    edges = [sum(fixed[:i]) for i in range(len(fixed) + 1)]
    if start not in edges or end not in edges or start >= end:
        return False
    chosen = [v for v, left, size in zip(parts, edges, fixed) if size and start <= left < end]
    if len(chosen) == len(parts):
        return False
    if len(chosen) == 1:
        return rewriter.bypass(node, chosen[0])
    rewriter.replace(node, rewriter.make(node, "Concat", chosen, {"axis": axis}, merged=[concat]))
    return True


RULES = (
    Rule("slice-no-op", ("Slice",), _no_op),
    Rule("slice-chain", ("Slice",), _chain),
    Rule("slice-of-concat", ("Slice",), _of_concat),
)
