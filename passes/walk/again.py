"""Which values are computed again whenever they are asked for, rather than kept: those that are cheaper to make than to
store.

A convolution of one tap widens a value six times in less time than the wide value takes to be written to a file and
read again (MobileNetV2 on 256 images: a walk wrote 7 GB, for 2 s of operators). So the narrow values between blocks are
kept, and what lies between them is made anew for each layer that reads it. (Checkpointing, as in Chen et al. 2016,
"Training deep nets with sublinear memory cost", arXiv:1604.06174; there to save memory, here for time.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ...ir.graph import Node, Value
from ...ir.macs import macs
from ...ir.ops import draws

STORED, IN_MEMORY = 48, 8
"""Multiply-accumulates in the time that a byte takes to be kept and read again, in a file and in memory."""
ELEMENT = 16
"""Multiply-accumulates in the time that any operator takes for one element of its output."""


def size_of(value: Value) -> int | None:
    """Bytes of `value` for one sample, which its first axis counts; `None` where its shape leaves that open."""
    shape, dtype = value.shape, value.dtype
    if not shape or dtype is None or not dtype.bits:
        return None
    elements = _elements(shape)
    return None if elements is None else math.ceil(elements * dtype.bits / 8)


def effort_of(nodes: Iterable[Node]) -> float:
    """About how many multiply-accumulates take as long as running `nodes` for one sample; infinite where nothing tells,
    and for those that another run might answer otherwise."""
    total = 0.0
    for node in nodes:
        sizes = [None if not v.shape else _elements(v.shape) for v in node.outputs if v.uses or v.is_output]
        if node.domain or node.bodies or draws(node) or any(size is None for size in sizes):
            return math.inf
        total += ELEMENT * sum(size for size in sizes if size is not None)
        total += macs(node, [_single(v) for v in node.inputs], [_single(v) for v in node.outputs])
    return total


def _elements(shape: tuple[object, ...]) -> int | None:
    """Elements of one sample."""
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    return math.prod(sizes) if len(sizes) == len(shape) - 1 else None


def _single(value: Value | None) -> tuple[int, ...] | None:
    """The shape of a value for one sample; that of a constant as it is."""
    if value is None or not value.shape:
        return None
    sizes = [size for size in value.shape[1:] if isinstance(size, int)]
    first = value.shape[0]
    batch = first if value.constant is not None and isinstance(first, int) else 1
    return (batch, *sizes) if len(sizes) == len(value.shape) - 1 else None
