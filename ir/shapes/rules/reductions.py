"""Reductions, and selections along one axis."""

from __future__ import annotations

import numpy as np

from ...types import DType
from ..symbols import Size, Sym, product
from .call import Call, Elements, Fact, Rule


def reduce(call: Call) -> list[Fact]:
    x, shape = call.fact(0), call.shape(0)
    keep = call.node.get_int("keepdims", 1)
    axes = call.numbers("axes", 1)
    if axes is None and call.states("axes", 1):
        length = call.fact(1).shape
        if keep:
            return [Fact(x.dtype, call.unknown(len(shape)))]
        if length is not None and length and isinstance(length[0], int) and length[0]:
            return [Fact(x.dtype, call.unknown(len(shape) - length[0]))]
        return [Fact(x.dtype)]
    if not axes:
        if call.node.get_int("noop_with_empty_axes"):
            return [Fact(x.dtype, shape)]
        axes = tuple(range(len(shape)))
    gone = {call.normalise(axis, len(shape)) for axis in axes}
    if keep:
        return [Fact(x.dtype, tuple(1 if i in gone else s for i, s in enumerate(shape)))]
    kept = tuple(s for i, s in enumerate(shape) if i not in gone)
    return [Fact(x.dtype, kept, _follow(call, x.elements) if not kept else None)]


def _follow(call: Call, data: Elements | None) -> Elements | None:
    """The sum or product of all elements: what shape arithmetic reduces."""
    if data is None or call.node.op not in ("ReduceProd", "ReduceSum"):
        return None
    items = data.reshape(-1).tolist()
    if any(isinstance(v, float) for v in items) and any(isinstance(v, Sym) for v in items):
        return None
    total: Size = product(items) if call.node.op == "ReduceProd" else sum(items)
    result = np.empty((), dtype=object)
    result[()] = total
    return result


def arg(call: Call) -> list[Fact]:
    shape = call.shape(0)
    axis = call.axis(0, len(shape))
    middle = (1,) if call.node.get_int("keepdims", 1) else ()
    return [Fact(DType.INT64, shape[:axis] + middle + shape[axis + 1 :])]


def top_k(call: Call) -> list[Fact]:
    shape = call.shape(0)
    axis = call.axis(-1, len(shape))
    wanted = call.ints("k", 1)
    size: Size = wanted[0] if wanted else call.fresh()
    if isinstance(size, Sym) and not size.is_size:
        size = call.fresh()
    shape = (*shape[:axis], size, *shape[axis + 1 :])
    return [Fact(call.fact(0).dtype, shape), Fact(DType.INT64, shape)]


_REDUCE = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"

RULES: dict[str, Rule] = {
    **{f"Reduce{kind}": reduce for kind in _REDUCE.split()},
    "ArgMax": arg,
    "ArgMin": arg,
    "TopK": top_k,
}
