"""The weights that a layer computes with, wherever they are stored: form, zeros, range, rank.

A weight behind nodes that read constants alone (DequantizeLinear, Transpose) is looked at as it is stored, and belongs
to the layer that reads the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..ir.node import Node, Value
from ..ir.stored import parameters, tensor_of
from ..ir.tensor import SparseTensor, Tensor

_ENERGY = 0.99
_PREPARING = 64
_LARGEST = 4096
"""A matrix with more rows and columns than this would take minutes to factor."""
_PIECE = 1 << 22
"""Elements of a weight that are looked at together."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One stored tensor. `zeros` is the share of elements that are exactly zero; `low` and `high` are the range of its
    finite elements, `None` where there is none; `broken` counts the others, NaN and infinities."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    zeros: float
    low: float | None
    high: float | None
    broken: int

    @property
    def text(self) -> str:
        """`int8[64, 3, 3, 3]`, with the zeros where there are many."""
        zeros = f" {100 * self.zeros:.0f} % zeros" if self.zeros >= 0.005 else ""
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]{zeros}"


def stored_weights(node: Node) -> Iterator[tuple[Value, Tensor]]:
    """The tensors of parameters that `node` reads, directly or through nodes that read constants alone."""
    pending, seen = list(reversed(node.inputs)), set[Value]()
    while pending:
        value = pending.pop()
        if value is None or value in seen:
            continue
        seen.add(value)
        tensor = tensor_of(value)
        if tensor is not None:
            if parameters(value, tensor):
                yield value, tensor
        elif value.producer is not None and prepares(value.producer):
            pending += reversed(value.producer.inputs)


def prepares(node: Node) -> bool:
    """Whether a node makes its one output of constants alone, through a few nodes at most, for one other node."""
    pending, seen = [node], {node}
    while pending and len(seen) <= _PREPARING:
        one = pending.pop()
        if len(one.outputs) != 1 or one.output.is_output or len(one.output.users) != 1 or not one.inputs:
            return False
        for value in one.inputs:
            if value is None or tensor_of(value) is not None:
                continue
            if value.producer is None:
                return False
            if value.producer not in seen:
                seen.add(value.producer)
                pending.append(value.producer)
    return not pending


def look(value: Value, tensor: Tensor) -> Weight:
    """Read a tensor and describe it."""
    low = high = None
    broken = filled = 0
    for array in pieces(tensor):
        filled += int(np.count_nonzero(array))
        numbers = array if array.dtype.kind in "iub" else array.astype(np.float32)
        if numbers.dtype.kind == "f":
            finite = np.isfinite(numbers)
            broken += int(numbers.size - np.count_nonzero(finite))
            numbers = numbers[finite]
        if numbers.size:
            least, most = float(numbers.min()), float(numbers.max())
            low, high = min(least if low is None else low, least), max(most if high is None else high, most)
    zeros = 1 - filled / max(tensor.size, 1)
    if zeros and isinstance(tensor, SparseTensor) and filled + broken:
        low, high = min(low or 0.0, 0.0), max(high or 0.0, 0.0)
    return Weight(value.name, tensor.dtype.text, tuple(tensor.shape), tensor.nbytes, zeros, low, high, broken)


def pieces(tensor: Tensor) -> Iterator[npt.NDArray[np.generic]]:
    """The stored elements of a tensor, a bounded number at a time: a weight may be larger than what memory is left."""
    array = (tensor.values if isinstance(tensor, SparseTensor) else tensor).numpy()
    if not array.flags.c_contiguous:  # one element repeated
        yield array
        return
    flat = array.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        yield flat[start : start + _PIECE]
        tensor.release()


def rank(node: Node, tensor: Tensor) -> tuple[int, int] | None:
    """The rank that keeps 99 % of a weight's energy (squared singular values), and its full rank.

    A kernel [out, in, ...] is taken as the matrix of out x (in ...); codes, grouped kernels, vectors, stacks of
    matrices and matrices too large to factor quickly have none.
    """
    if len(tensor.shape) < 2 or min(tensor.shape[0], math.prod(tensor.shape[1:])) > _LARGEST:
        return None
    matrix = _matrix(node, tensor)
    if matrix is None or not matrix.size:
        return None
    full = min(matrix.shape)
    if not np.isfinite(matrix).all():
        return None
    # The eigenvalues of the smaller Gram matrix are the squared singular values.
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    energy = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    total = float(energy.sum())
    if total == 0:
        return 0, full
    return int(np.searchsorted(np.cumsum(energy), _ENERGY * total)) + 1, full


def _matrix(node: Node, tensor: Tensor) -> npt.NDArray[np.float64] | None:
    if not tensor.fits or not tensor.dtype.is_float:  # codes: their rank is not that of what they stand for
        return None
    if node.op == "Conv" and len(tensor.shape) >= 3:
        if node.get_int("group", 1) != 1:
            return None
        shape = (tensor.shape[0], math.prod(tensor.shape[1:]))
    elif len(tensor.shape) == 2:
        shape = (tensor.shape[0], tensor.shape[1])
    else:
        return None
    return np.asarray(tensor.numpy(), np.float64).reshape(shape)
