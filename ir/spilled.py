"""Large arrays that passes make, in a temporary file rather than in memory.

The quantized weights of a model of ten gigabytes take a quarter of that, and nobody needs them before the model is
written. Their file has no name: it is gone with the last tensor that needs it, and with the process, however that ends.
"""

from __future__ import annotations

import mmap
import sys
import tempfile
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from .tensor import ArrayTensor, Tensor, pack
from .types import DType

LARGE = 32 << 20
"""Bytes in memory from which on an array is worth a file."""
_CHUNK = 1 << 24


class SpilledTensor(Tensor):
    """Elements in a temporary file without a name, mapped as they are in memory: not packed."""

    __slots__ = ("_map",)

    def __init__(self, array: npt.NDArray[np.generic], dtype: DType) -> None:
        """Raises `OSError` where there is no room for the file."""
        super().__init__(dtype, array.shape)
        with tempfile.TemporaryFile(prefix="optc-") as file:
            np.ascontiguousarray(array).tofile(file)
            file.flush()
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def numpy(self) -> npt.NDArray[np.generic]:
        return np.frombuffer(self._map, self.dtype.numpy).reshape(self.shape)

    def release(self) -> None:
        if sys.platform != "win32":
            self._map.madvise(mmap.MADV_DONTNEED)

    def write(self, file: BinaryIO) -> None:
        flat = self.numpy().reshape(-1)
        step = _CHUNK // 8 * 8  # whole bytes, however few bits an element takes
        for start in range(0, flat.size, step):
            file.write(pack(flat[start : start + step], self.dtype))
            self.release()


def spilled(tensor: Tensor) -> Tensor:
    """`tensor`, or one of the same elements in a file where it holds many in memory and the disk has room for them."""
    if not isinstance(tensor, ArrayTensor) or tensor.dtype is DType.STRING or tensor.numpy().nbytes < LARGE:
        return tensor
    try:
        return SpilledTensor(tensor.numpy(), tensor.dtype)
    except OSError:
        return tensor
