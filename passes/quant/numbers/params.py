"""The parameters of quantization: which real number each quantized value stands for.

    x ~ scale * (q - zero point),      q = clip(round(x / scale) + zero point, low, high)

with rounding half to even, as QuantizeLinear has it. They hold for a whole tensor, or there is a scale for each channel
along `axis` (then `scale` is (n,) and all channels share the zero point, which is what integer kernels want).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....ir.types import DType

Floats = NDArray[np.float32]
Codes = NDArray[np.generic]

TINY = 1e-30
"""Below this a scale would underflow somewhere; smaller ranges are treated as this wide."""
SCALE_BASE = np.float32(2.0 ** (-1 / 16))
"""Scales of short rows are powers of this number, with exponents of 8 bits: 4 % apart, from 1.6e-5 to 1."""
SHORT = 64
"""Weights in a row up to which its scale takes a byte instead of two."""
DIGITS = 11
"""Bits that float16 keeps of a number."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantParams:
    """`scale` is () or (n,) along `axis`; quantized values run from `low` to `high`, both included."""

    scale: Floats
    zero_point: int
    dtype: DType
    axis: int | None = None
    low: int = 0
    high: int = 0

    def spread(self, rank: int) -> Floats:
        """The scale, shaped to broadcast against a tensor of `rank`."""
        if self.axis is None:
            return self.scale
        return self.scale.reshape([-1 if i == self.axis else 1 for i in range(rank)])

    def quantize(self, x: NDArray[np.floating]) -> Codes:
        """The quantized values of `x`, in the numpy type of `dtype`."""
        values = np.clip(np.rint(x / self.spread(x.ndim)) + self.zero_point, self.low, self.high)
        return np.asarray(values, self.dtype.numpy)

    def dequantize(self, values: Codes) -> Floats:
        """What quantized `values` stand for."""
        return (values.astype(np.float32) - np.float32(self.zero_point)) * self.spread(values.ndim)

    @property
    def unit(self) -> float:
        """The scale of a whole tensor."""
        return float(self.scale)

    def same(self, other: QuantParams) -> bool:
        """Whether values quantized by these parameters of a whole tensor stand for the same as by `other`."""
        return (self.unit, self.zero_point, self.dtype) == (other.unit, other.zero_point, other.dtype)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest number that parameters of a whole tensor hold."""
        return self.unit * (self.low - self.zero_point), self.unit * (self.high - self.zero_point)


def limits(dtype: DType) -> tuple[int, int]:
    """The least and the greatest code of an integer type."""
    if dtype.name.startswith("U"):
        return 0, (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1


def powers_of_base(scale: NDArray[np.generic]) -> NDArray[np.uint8] | None:
    """The exponents of `SCALE_BASE` that `scale` consists of; `None` where it does not."""
    wide = scale.astype(np.float64)
    if not (np.isfinite(wide).all() and (wide > 0).all()):
        return None
    exponents = np.rint(np.log(wide) / np.log(np.float64(SCALE_BASE)))
    if exponents.min(initial=0) < 0 or exponents.max(initial=0) > 255:
        return None
    return exponents.astype(np.uint8) if np.array_equal(_power(exponents), scale) else None


def _power(exponents: NDArray[np.float64]) -> Floats:
    return np.asarray(np.float64(SCALE_BASE) ** exponents, np.float32)


def storable(scale: NDArray[np.floating], length: int) -> Floats:
    """The next scales that are not smaller and take few bytes in a file (`targets/packed.py`), for rows of `length`
    weights each: not smaller, so that no weight is clipped for it."""
    wide = scale.astype(np.float64)
    exponents = np.floor(np.log(np.maximum(wide, TINY)) / np.log(np.float64(SCALE_BASE)) + 1e-5)
    if length <= SHORT and exponents.min(initial=0) >= 0 and exponents.max(initial=0) <= 255:
        return _power(exponents)
    return np.asarray(round_up(wide), np.float32)


def round_up(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The next numbers of `DIGITS` bits that are not smaller."""
    parts, exponents = np.frexp(x)
    return np.asarray(np.ldexp(np.ceil(np.ldexp(parts, DIGITS)), exponents - DIGITS), np.float64)


def shortened(codes: NDArray[np.generic]) -> NDArray[np.int32]:
    """The nearest integers to `codes` of `DIGITS` bits that int32 holds."""
    parts, exponents = np.frexp(codes.astype(np.float64))
    numbers = np.ldexp(np.rint(np.ldexp(parts, DIGITS)), exponents - DIGITS)
    return np.asarray(np.clip(numbers, -(2.0**31), 2.0**31 - 2.0 ** (31 - DIGITS)), np.int32)


def activation_params(
    low: float, high: float, dtype: DType, *, symmetric: bool = False, codes: tuple[int, int] | None = None
) -> QuantParams:
    """The parameters of a tensor over [low, high], widened to hold 0 exactly (padding and Relu need it). `codes` are
    the least and the greatest, where these are not the type's own.

    A range of no width (a constant or all-zero activation) still gets a positive scale.
    """
    first, last = ends = limits(dtype) if codes is None else codes
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        high = max(-low, high)
        low = -high
        first = max(first, -last)  # a signed type gives up its lowest code, so that the zero point is 0
    scale = np.float32(max((high - low) / (last - first), TINY))
    if high == low:
        scale = np.float32(1.0)
    zero = int(np.clip(np.rint(first - low / float(scale)), first, last))
    return QuantParams(np.asarray(scale), zero, dtype, None, *ends)
