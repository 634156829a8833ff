"""Tensors whose element type numpy lacks, to and from ONNX Runtime: bfloat16, the 8-bit floats, integers below a byte.

ONNX Runtime's `run` takes and gives numpy arrays of numpy's own types only. Others are handed over as its own values:
their bytes, packed as in a model file.
"""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING

import numpy as np

from ..ir.tensor import pack, unpack
from ..ir.types import DType
from .columns import Array

if TYPE_CHECKING:
    import onnxruntime

_ELEMENT = re.compile(r"^tensor\((\w+)\)$")


def is_foreign(type_text: str) -> bool:
    """Whether arrays of ONNX Runtime's type of this name, `tensor(bfloat16)`, have no type of numpy's own."""
    match = _ELEMENT.match(type_text)
    dtype = DType.__members__.get(match[1].upper()) if match else None
    return dtype is not None and dtype is not DType.STRING and dtype.numpy.isbuiltin != 1


def to_value(array: Array) -> onnxruntime.OrtValue:
    """An array as a value of the runtime's own, a copy."""
    import onnxruntime

    if array.dtype.isbuiltin == 1 or array.dtype.kind in "OUS":
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    dtype = DType.of(array.dtype)
    value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(array.shape), int(dtype))
    data = pack(array, dtype)
    ctypes.memmove(value.data_ptr(), data, len(data))
    return value


def from_value(value: onnxruntime.OrtValue) -> Array:
    """The array that a value of the runtime's own holds, a copy."""
    match = _ELEMENT.match(value.data_type())
    if match is None or not is_foreign(value.data_type()):
        return np.asarray(value.numpy())
    dtype, shape = DType[match[1].upper()], tuple(value.shape())
    size = dtype.file_bytes(int(np.prod(shape, dtype=np.int64)))
    if not size:
        return np.zeros(shape, dtype.numpy)
    raw = np.frombuffer(ctypes.string_at(value.data_ptr(), size), np.uint8)
    return unpack(raw, dtype, shape) if dtype.bits % 8 else raw.view(dtype.numpy).reshape(shape).copy()
