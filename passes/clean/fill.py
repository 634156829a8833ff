"""Arithmetic that keeps what is repeated repeated.

A generated constant (ConstantOfShape, Expand) is an array some of whose strides are 0: one element, or one vector,
in memory at any shape. An elementwise function of such arrays repeats along the axes along which all of them do, so
it is computed on what is not repeated; folding a BatchNormalization into a generated weight of 150 MB costs one
multiplication per channel and keeps the weight generated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ...ir.allowance import require
from ...ir.tensor import ArrayTensor, BroadcastTensor, FillTensor, Tensor
from ...ir.types import DType

Array: TypeAlias = npt.NDArray[Any]
"""An array whose element type is known only when it is there."""

KEPT = 64
"""Bytes of repetition from which on it is kept; below, storing the elements is as short as generating them."""

_SCANNED = 1 << 16


def core(array: Array) -> Array:
    """The part of an array that is not repeated: size 1 along every axis whose stride is 0."""
    return array[tuple(slice(0, 1) if s == 0 and d > 1 else slice(None) for s, d in zip(array.strides, array.shape))]


def is_uniform(array: Array) -> bool:
    """Whether an array repeats one element in memory, as `numpy.broadcast_to` makes it."""
    return array.size > 1 and not any(s for s, d in zip(array.strides, array.shape, strict=True) if d > 1)


def stored_bytes(array: Array) -> int:
    """Bytes that the elements take in a file, those that are repeated counted once."""
    return core(array).nbytes


def tensor_bytes(tensor: Tensor) -> int:
    """As `stored_bytes`, of a tensor, whose elements are not read."""
    if isinstance(tensor, FillTensor):
        return tensor.element.nbytes
    return tensor.core.nbytes if isinstance(tensor, BroadcastTensor) else tensor.nbytes


def compact(array: Array) -> Array:
    """The same array as one repeated element, if it is small and stores one number over and over."""
    if array.size < 2 or array.nbytes > _SCANNED or array.dtype.kind not in "biuf" or is_uniform(array):
        return array
    one = array[(0,) * array.ndim]
    return np.broadcast_to(one, array.shape) if (array == one).all() and one != 0 else array


def element(array: Array) -> Array:
    """The one element of a uniform or single-element array, with rank 0."""
    return array[(0,) * array.ndim].reshape(()) if array.ndim else array


def elementwise(function: Callable[..., Array], *arrays: Array) -> Array:
    """`function` of arrays that broadcast against each other, computed once for elements that are repeated.

    Raises `TooLarge` where they would broadcast to too much.
    """
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    cores = [core(a) for a in arrays]
    if cores:
        require(DType.DOUBLE, np.broadcast_shapes(*(a.shape for a in cores)), "a result")
    values = np.asarray(function(*cores))
    return np.broadcast_to(values, shape) if values.shape != shape else values


def reshape(array: Array, shape: Sequence[int]) -> Array:
    """As `numpy.reshape`, without a copy of a uniform array."""
    if not is_uniform(array):
        return array.reshape(tuple(shape))
    sizes = [int(d) for d in shape]
    if -1 in sizes:
        rest = int(np.prod([d for d in sizes if d != -1], dtype=np.int64))
        sizes[sizes.index(-1)] = array.size // rest
    return np.broadcast_to(element(array), tuple(sizes))


def expand(array: Array, shape: Sequence[int]) -> Array:
    """ONNX Expand: broadcast both ways."""
    return np.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(shape)))


def store(array: Array, dtype: DType | None = None) -> Tensor:
    """The tensor for an array: what it repeats held once where that is worth it, else all elements."""
    part = core(array)
    if array.nbytes - part.nbytes >= KEPT:
        return (
            FillTensor(element(array), array.shape, dtype)
            if part.size == 1
            else BroadcastTensor(part, array.shape, dtype)
        )
    return ArrayTensor(np.ascontiguousarray(array).reshape(array.shape), dtype)
