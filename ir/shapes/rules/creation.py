"""Operators that make tensors out of sizes, attributes or nothing, and those whose output size depends on the data."""

from __future__ import annotations

import math

import numpy as np

from ...attributes import AttributeKind
from ...tensor import Tensor
from ...types import DType
from ..symbols import Size, Sym, floor_divide, maximum
from .call import LIMIT, Call, Fact, Rule


def constant(call: Call) -> list[Fact]:
    for name, attribute in call.node.attributes.items():
        value = attribute.value
        if isinstance(value, Tensor):
            return [Fact(value.dtype, value.shape, tensor=value)]
        kind = attribute.kind
        if kind in (AttributeKind.INT, AttributeKind.INTS, AttributeKind.FLOAT, AttributeKind.FLOATS):
            whole = kind in (AttributeKind.INT, AttributeKind.INTS)
            data = np.array(value, dtype=object)
            return [Fact(DType.INT64 if whole else DType.FLOAT, data.shape, data)]
        if name.startswith("value_string"):
            return [Fact(DType.STRING, (len(value),) if isinstance(value, tuple) else ())]
    return [Fact()]


def constant_of_shape(call: Call) -> list[Fact]:
    value = call.node.get_tensor("value")
    dtype = DType.FLOAT if value is None else value.dtype
    sizes = call.ints("shape", 0)
    if sizes is None:
        length = call.fact(0).shape
        fixed = length and isinstance(length[0], int)
        return [Fact(dtype, call.unknown(length[0]) if fixed else None)]  # type: ignore[index, arg-type]
    shape = tuple(call.fresh() if isinstance(s, Sym) and not s.is_size else s for s in sizes)
    data = None
    numbers = [s for s in shape if isinstance(s, int)]
    if len(numbers) == len(shape) and math.prod(numbers) <= LIMIT and dtype in (DType.INT64, DType.INT32, DType.FLOAT):
        data = np.full(numbers, 0 if value is None else value.numpy().reshape(-1)[0].item(), dtype=object)
    return [Fact(dtype, shape, data)]


def range_(call: Call) -> list[Fact]:
    parts = [call.data(i) for i in range(3)]
    dtype = call.fact(0).dtype
    start, limit, step = (None if p is None else p.reshape(-1)[0] for p in parts)
    if start is None or limit is None or step is None or isinstance(step, Sym) or step == 0:
        return [Fact(dtype, call.unknown(1))]
    if isinstance(start, Sym) or isinstance(limit, Sym):
        whole = all(isinstance(v, int | Sym) for v in (start, limit, step))
        ends = [v for v in (start, limit) if isinstance(v, Sym)]
        if not whole or step < 0 or not all(v.is_size for v in ends):
            return [Fact(dtype, call.unknown(1))]
        length: Size = floor_divide(maximum(limit - start, 0) + (step - 1), step)
        return [Fact(dtype, (length,))]
    count = max(0, math.ceil((limit - start) / step))
    data = None
    if count <= LIMIT and not dtype.is_float:
        data = np.array([start + i * step for i in range(count)], dtype=object)
    return [Fact(dtype, (count,), data)]


def one_hot(call: Call) -> list[Fact]:
    indices = call.shape(0)
    axis = call.axis(-1, len(indices) + 1)
    depth = call.ints("", 1)
    size: Size = call.fresh() if not depth else depth[0] if isinstance(depth[0], Sym) else int(depth[0])
    return [Fact(call.fact(2).dtype, (*indices[:axis], size, *indices[axis:]))]


def non_zero(call: Call) -> list[Fact]:
    rank = call.fact(0).rank
    return [Fact(DType.INT64, (call.fresh() if rank is None else max(rank, 1), call.fresh()))]


def like(call: Call) -> list[Fact]:
    """EyeLike, RandomNormalLike, RandomUniformLike, Bernoulli."""
    x = call.fact(0)
    return [Fact(DType(call.node.get_int("dtype")) or x.dtype, x.shape)]


def random(call: Call) -> list[Fact]:
    return [Fact(DType(call.node.get_int("dtype", 1)), call.node.get_ints("shape"))]


def non_max_suppression(call: Call) -> list[Fact]:
    return [Fact(DType.INT64, (call.fresh(), 3))]


RULES: dict[str, Rule] = {
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Range": range_,
    "OneHot": one_hot,
    "NonZero": non_zero,
    "NonMaxSuppression": non_max_suppression,
    **dict.fromkeys(("EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli"), like),
    "RandomNormal": random,
    "RandomUniform": random,
}
