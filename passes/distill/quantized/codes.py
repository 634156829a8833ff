"""The codes of a weight as a file stores them, read as integers and written back in the same form.

    codes                                                      int8, or fewer bits
    Cast(codes)                                                int4, widened
    Reshape(Cast(Cast(codes) * Cast(multipliers)))             int4 and a multiplier a block
    Reshape(... MatMul(Cast(bytes), places) ...)               2 and 3 bits, eight codes a word (`qdq/packing.py`)

`qdq/packing.py` writes these forms. Indices of a codebook are no numbers on a grid, and have no `Codes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Value
from ....ir.tensor import ArrayTensor
from ....ir.types import DType
from ...quant.numbers.encoding import code_range
from ...quant.numbers.params import limits
from ...quant.qdq.packing import WORD, pack_words

Integers = NDArray[np.int64]
Pack = Callable[[Integers], NDArray[np.generic]]

_WIDENING = ("Cast", "Div", "MatMul", "Mod", "Reshape", "Slice", "Sub")
"""The operators on the way from a packed constant to the codes."""


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """`numbers` in the shape in which they are read, in [`low`, `high`], each to be multiplied by `multipliers`, which
    broadcast (1 without any). `stored` is the constant that holds them, in the form of `pack`."""

    stored: Value
    numbers: Integers
    low: int
    high: int
    multipliers: NDArray[np.float32]
    pack: Pack

    def write(self, numbers: Integers) -> None:
        constant = self.stored.constant
        assert constant is not None
        self.stored.constant = ArrayTensor(self.pack(numbers), constant.dtype)


def codes_of(value: Value) -> Codes | None:
    """The codes that `value`, of an integer type, consists of; `None` where it is computed in another way."""
    if value.constant is not None:
        return None if value.constant.dtype.bits > 8 else _plain(value, value)
    node = value.producer
    if node is None or node.domain:
        return None
    if node.op == "Cast":
        inner = node.inputs[0]
        return _plain(inner, value) if inner is not None and inner.constant is not None else None
    return _multiplied(value) or _words(value)


def _plain(stored: Value, read: Value) -> Codes | None:
    constant = stored.constant
    assert constant is not None
    if not constant.dtype.is_integer or constant.dtype.bits > 8:
        return None
    numbers = _integers(stored)
    kind = constant.dtype.numpy
    low, high = limits(constant.dtype)
    if constant.dtype in (DType.INT4, DType.INT8):
        bits = next(b for b in (2, 3, 4, 8) if _within(numbers, *code_range(b)) or b == 8)
        low, high = code_range(bits) if _within(numbers, *code_range(bits)) else limits(constant.dtype)
    return Codes(stored, numbers, low, high, np.ones((), np.float32), lambda new: new.astype(kind))


def _multiplied(value: Value) -> Codes | None:
    """Reshape(Cast(Mul(Cast(codes), Cast(multipliers))))."""
    chain = _through(value, ("Reshape", "Cast"))
    if chain is None or chain.producer is None or chain.producer.op != "Mul":
        return None
    parts = [v.producer.inputs[0] if v is not None and v.producer is not None else None for v in chain.producer.inputs]
    stored, multipliers = parts[0], parts[1]
    if stored is None or multipliers is None or stored.constant is None or multipliers.constant is None:
        return None
    shape = value.static_shape
    if shape is None or stored.constant.dtype is not DType.INT4:
        return None
    parted = stored.constant.shape
    spread = np.broadcast_to(_integers(multipliers), parted).reshape(shape)
    kind = stored.constant.dtype.numpy
    low, high = code_range(4)
    return Codes(
        stored, _integers(stored).reshape(shape), low, high, spread.astype(np.float32),
        lambda new: new.reshape(parted).astype(kind),
    )  # fmt: skip


def _words(value: Value) -> Codes | None:
    """Codes of 2 or 3 bits in words of bytes (words, bits)."""
    stored = _through(value, _WIDENING)
    if stored is None or stored.constant is None or stored.constant.dtype is not DType.UINT8:
        return None
    shape, packed = value.static_shape, _integers(stored)
    if shape is None or packed.ndim != 2 or packed.shape[1] not in (2, 3):
        return None
    bits = packed.shape[1]
    words = (packed << (8 * np.arange(bits))).sum(axis=1)
    flat = ((words[:, None] >> (bits * np.arange(WORD))) % (1 << bits) - (1 << (bits - 1))).reshape(-1)
    count = int(np.prod(shape))
    low, high = code_range(bits)
    return Codes(
        stored, flat[:count].reshape(shape), low, high, np.ones((), np.float32), lambda new: pack_words(new, bits)
    )


def _through(value: Value, ops: tuple[str, ...]) -> Value | None:
    """What the chain of operators of `ops` that ends in `value` starts from, along first inputs."""
    while (node := value.producer) is not None and node.op in ops and not node.domain:
        first = node.inputs[0]
        if first is None:
            return None
        value = first
    return value


def _integers(value: Value) -> Integers:
    return np.asarray(value.numpy()).astype(np.int64)


def _within(numbers: Integers, low: int, high: int) -> bool:
    return bool(numbers.size) and bool(numbers.min() >= low) and bool(numbers.max() <= high)
