"""Element types and value types, spelled as ONNX spells them.

`DType` members carry the numbers of `onnx.TensorProto.DataType`, so reading and writing need no table. Types that
numpy lacks (bfloat16, the float8, float6 and float4 families, 4-bit and 2-bit integers) come from `ml_dtypes`, one
element per byte in memory and packed only in files.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Dim: TypeAlias = int | str | None
"""A size, the name of a symbolic size (`"N"`), or `None` where nothing is known."""

Shape: TypeAlias = tuple[Dim, ...]


MOST_AXES = 64
"""Axes of an array of NumPy."""


def is_possible(shape: Sequence[object]) -> bool:
    """Whether an array can have this shape, whose sizes may be unknown: so few axes, and elements that 64 bits count, a
    size of 0 aside."""
    count = 1
    for size in shape if len(shape) <= MOST_AXES else (1 << 60,):
        if isinstance(size, int) and size:
            count *= size
            if count >= 1 << 60:
                return False
    return True


class DType(enum.IntEnum):
    """Element type; the value is ONNX's own number."""

    UNDEFINED = 0
    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    STRING = 8
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11
    UINT32 = 12
    UINT64 = 13
    COMPLEX64 = 14
    COMPLEX128 = 15
    BFLOAT16 = 16
    FLOAT8E4M3FN = 17
    FLOAT8E4M3FNUZ = 18
    FLOAT8E5M2 = 19
    FLOAT8E5M2FNUZ = 20
    UINT4 = 21
    INT4 = 22
    FLOAT4E2M1 = 23
    FLOAT8E8M0 = 24
    UINT2 = 25
    INT2 = 26
    FLOAT6E2M3 = 27
    FLOAT6E3M2 = 28

    @property
    def bits(self) -> int:
        """Bits per element in a file; 0 for strings and undefined."""
        return _BITS.get(self, 0)

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy type of `Tensor.numpy()`. Raises `KeyError` for UNDEFINED."""
        return _numpy_dtype(self)

    @property
    def is_float(self) -> bool:
        return self in _FLOATS

    @property
    def is_integer(self) -> bool:
        return self in _INTEGERS

    @property
    def text(self) -> str:
        """The lower-case name used in the dump: `float`, `int8`, `bfloat16`."""
        return self.name.lower()

    @staticmethod
    def of(dtype: np.dtype[np.generic] | type[np.generic]) -> DType:
        """The element type of a numpy type. Raises `ValueError` when ONNX has no such type."""
        match = _from_numpy().get(np.dtype(dtype))
        if match is None:
            if np.dtype(dtype).kind in "OUS":
                return DType.STRING
            raise ValueError(f"numpy type {np.dtype(dtype)} has no ONNX element type")
        return match

    def file_bytes(self, elements: int) -> int:
        """Bytes that `elements` elements take in a file (sub-byte types are packed, the last byte padded)."""
        return (elements * self.bits + 7) // 8


_ML_DTYPES = {
    DType.BFLOAT16: "bfloat16",
    DType.FLOAT8E4M3FN: "float8_e4m3fn",
    DType.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    DType.FLOAT8E5M2: "float8_e5m2",
    DType.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
    DType.FLOAT8E8M0: "float8_e8m0fnu",
    DType.FLOAT4E2M1: "float4_e2m1fn",
    DType.FLOAT6E2M3: "float6_e2m3fn",
    DType.FLOAT6E3M2: "float6_e3m2fn",
    DType.UINT4: "uint4",
    DType.INT4: "int4",
    DType.UINT2: "uint2",
    DType.INT2: "int2",
}
_NUMPY = {
    DType.FLOAT: "<f4",
    DType.UINT8: "u1",
    DType.INT8: "i1",
    DType.UINT16: "<u2",
    DType.INT16: "<i2",
    DType.INT32: "<i4",
    DType.INT64: "<i8",
    DType.STRING: "O",
    DType.BOOL: "?",
    DType.FLOAT16: "<f2",
    DType.DOUBLE: "<f8",
    DType.UINT32: "<u4",
    DType.UINT64: "<u8",
    DType.COMPLEX64: "<c8",
    DType.COMPLEX128: "<c16",
}
_BITS = {
    **{dtype: 8 * np.dtype(name).itemsize for dtype, name in _NUMPY.items() if name != "O"},
    DType.BFLOAT16: 16,
    **{dtype: 8 for dtype in DType if dtype.name.startswith("FLOAT8")},
    DType.FLOAT4E2M1: 4,
    DType.FLOAT6E2M3: 6,
    DType.FLOAT6E3M2: 6,
    DType.UINT4: 4,
    DType.INT4: 4,
    DType.UINT2: 2,
    DType.INT2: 2,
}
_INTEGERS = frozenset(d for d in DType if d.name.lstrip("U").startswith("INT"))
_FLOATS = frozenset(d for d in DType if d.name.startswith(("FLOAT", "BFLOAT", "DOUBLE")))


@functools.cache
def _numpy_dtype(dtype: DType) -> np.dtype[np.generic]:
    if dtype in _ML_DTYPES:
        import ml_dtypes

        numpy_dtype: np.dtype[np.generic] = np.dtype(getattr(ml_dtypes, _ML_DTYPES[dtype]))
        return numpy_dtype
    return np.dtype(_NUMPY[dtype])


@functools.cache
def _from_numpy() -> dict[np.dtype[np.generic], DType]:
    return {_numpy_dtype(d): d for d in (*_NUMPY, *_ML_DTYPES) if d is not DType.STRING}


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor; `shape` is `None` where even the rank is unknown.

    `sparse` marks ONNX's sparse_tensor type. `denotation` and `axes` carry ONNX's type and dimension denotations
    (`"IMAGE"`; `("DATA_BATCH", …)`), which nothing here interprets.
    """

    dtype: DType
    shape: Shape | None = None
    sparse: bool = False
    denotation: str = ""
    axes: tuple[str, ...] = ()

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """The shape when every dimension is a known number, else `None`."""
        if self.shape is None:
            return None
        sizes = tuple(d for d in self.shape if isinstance(d, int))
        return sizes if len(sizes) == len(self.shape) else None


@dataclass(frozen=True, slots=True)
class SequenceType:
    element: Type | None


@dataclass(frozen=True, slots=True)
class OptionalType:
    element: Type | None


@dataclass(frozen=True, slots=True)
class MapType:
    key: DType
    value: Type | None


@dataclass(frozen=True, slots=True)
class OpaqueType:
    domain: str
    name: str


Type: TypeAlias = TensorType | SequenceType | OptionalType | MapType | OpaqueType
