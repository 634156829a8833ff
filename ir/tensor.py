"""Immutable constant data behind one small interface.

Ask `dtype`, `shape` and `nbytes` before `numpy()`: they are free, while `numpy()` may map a file or run a computation.
Nothing here can be written to; a pass that changes a weight makes a new tensor.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from .allowance import MOST, memory, require
from .types import DType

_CHUNK = 1 << 20
_POINTER = b"version https://git-lfs.github.com/spec/"
POINTER = "is the pointer that Git LFS keeps in place of the file; fetch the file itself: git lfs pull"


class Tensor(ABC):
    """Constant data of a known element type and shape."""

    __slots__ = ("dtype", "shape")

    dtype: DType
    shape: tuple[int, ...]

    def __init__(self, dtype: DType, shape: Sequence[int]) -> None:
        self.dtype = dtype
        self.shape = tuple(shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in a file; sub-byte types are packed."""
        return self.dtype.file_bytes(self.size)

    @property
    def fits(self) -> bool:
        """Whether `numpy()` takes no more memory than is allowed to be made of what a file says."""
        return True

    @property
    def repeats(self) -> bool:
        """Whether few elements stand for all, and a file of many stores these alone."""
        return False

    @abstractmethod
    def numpy(self) -> npt.NDArray[np.generic]:
        """The elements as a read-only array of `dtype.numpy` and `shape`; strings as an object array of `bytes`."""

    def write(self, file: BinaryIO) -> None:
        """Append the elements to `file` as ONNX `raw_data`: little-endian, row-major, packed. Not for strings."""
        if self.dtype.bits % 8 or self.dtype is DType.STRING:
            file.write(pack(self.numpy(), self.dtype))
        else:  # no copy: a weight may be large
            file.write(np.ascontiguousarray(self.numpy(), self.dtype.numpy).reshape(-1).view(np.uint8).data)

    def release(self) -> None:
        """Give back the memory that `numpy()` took, where the elements lie in a file; they come back when touched."""
        return

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype.text}{list(self.shape)})"


class ArrayTensor(Tensor):
    """Elements held in memory. The array is frozen, not copied: hand over one that nobody writes to any more."""

    __slots__ = ("_array",)

    def __init__(self, array: npt.ArrayLike, dtype: DType | None = None) -> None:
        data = np.asarray(array)
        dtype = DType.of(data.dtype) if dtype is None else dtype
        if dtype is DType.STRING:
            encoded = [s if isinstance(s, bytes) else str(s).encode() for s in data.reshape(-1).tolist()]
            shape, data = data.shape, np.empty(len(encoded), dtype=object)
            data[:] = encoded
            data = data.reshape(shape)
        elif data.dtype != dtype.numpy:
            data = data.astype(dtype.numpy)
        data = data.view()
        data.flags.writeable = False
        super().__init__(dtype, data.shape)
        self._array = data

    @property
    def nbytes(self) -> int:
        if self.dtype is DType.STRING:
            return sum(len(s) for s in self._array.reshape(-1).tolist())
        return super().nbytes

    def numpy(self) -> npt.NDArray[np.generic]:
        return self._array


class LazyTensor(Tensor):
    """Elements computed when first asked for, then kept. `compute` must return the declared type and shape.

    `numpy()` raises `TooLarge` where they would take more than is written out (`allowance`).
    """

    __slots__ = ("_compute", "_array")

    def __init__(self, dtype: DType, shape: Sequence[int], compute: Callable[[], npt.NDArray[np.generic]]) -> None:
        super().__init__(dtype, shape)
        self._compute = compute
        self._array: npt.NDArray[np.generic] | None = None

    def numpy(self) -> npt.NDArray[np.generic]:
        if self._array is None:
            require(self.dtype, self.shape, "a computed tensor")
            array = np.asarray(self._compute()).view()
            if array.shape != self.shape or array.dtype != self.dtype.numpy:
                raise ValueError(f"lazy tensor declared {self} but computed {array.dtype}{list(array.shape)}")
            array.flags.writeable = False
            self._array = array
        return self._array


class FillTensor(Tensor):
    """One element repeated over a shape and held once: what ConstantOfShape makes, at any size for free.

    `numpy()` is a view of the one element (all strides are 0); a writer stores a large one as a ConstantOfShape node.
    Raises `TooLarge` where its elements could not be written out: every reader may do so.
    """

    __slots__ = ("element",)

    def __init__(self, element: npt.ArrayLike, shape: Sequence[int], dtype: DType | None = None) -> None:
        one = ArrayTensor(np.asarray(element).reshape(()), dtype)
        super().__init__(one.dtype, shape)
        require(self.dtype, self.shape, "a constant of one element")
        self.element = one

    @property
    def nbytes(self) -> int:
        return self.size * self.element.nbytes if self.dtype is DType.STRING else super().nbytes

    @property
    def repeats(self) -> bool:
        return True

    def numpy(self) -> npt.NDArray[np.generic]:
        return np.broadcast_to(self.element.numpy(), self.shape)

    def write(self, file: BinaryIO) -> None:
        if self.dtype.bits % 8:
            file.write(pack(self.numpy(), self.dtype))
            return
        one = pack(self.element.numpy(), self.dtype)
        piece = max(1, _CHUNK // len(one))
        for start in range(0, self.size, piece):
            file.write(one * min(piece, self.size - start))


class BroadcastTensor(Tensor):
    """Elements repeated along axes and held once: `core` has the rank of `shape`, and size 1 where it is repeated.

    What Expand makes, or a generated weight times a vector; a writer stores a large one as an Expand node. Raises
    `TooLarge` where its elements could not be written out.
    """

    __slots__ = ("core",)

    def __init__(self, core: npt.ArrayLike, shape: Sequence[int], dtype: DType | None = None) -> None:
        self.core = ArrayTensor(core, dtype)
        super().__init__(self.core.dtype, shape)
        require(self.dtype, self.shape, "a constant of repeated elements")
        np.broadcast_to(self.core.numpy(), self.shape)

    @property
    def repeats(self) -> bool:
        return True

    def numpy(self) -> npt.NDArray[np.generic]:
        return np.broadcast_to(self.core.numpy(), self.shape)

    def write(self, file: BinaryIO) -> None:
        if self.dtype.bits % 8 or not self.shape:
            super().write(file)
            return
        for row in self.numpy():
            file.write(pack(row, self.dtype))


class SourceFile:
    """An open, read-only file that tensors point into.

    The descriptor stays open as long as a tensor needs it, so replacing or deleting the path later does no harm.
    """

    __slots__ = ("path", "size", "_fd", "_map")

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        self.size = os.fstat(self._fd).st_size
        self._map: mmap.mmap | None = None

    @property
    def is_pointer(self) -> bool:
        """Whether Git LFS left its note here of where the file really is."""
        return self.read(0, len(_POINTER)) == _POINTER

    def map(self) -> mmap.mmap:
        """The whole file, mapped: pages are read when touched and count as file cache, not as memory of ours."""
        if self._map is None:
            self._map = mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)
        return self._map

    def release(self) -> None:
        """Give back the pages mapped so far; they come back when touched again."""
        if sys.platform != "win32" and self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`, without mapping them where the system can."""
        if sys.platform == "win32":
            return self.map()[offset : offset + length] if self.size else b""
        return os.pread(self._fd, length, offset)

    def copy(self, offset: int, length: int, file: BinaryIO) -> None:
        """Append `length` bytes from `offset` to `file`, in pieces, without mapping them.

        Raises `ModelError` when the file has become shorter since it was opened.
        """
        while length:
            piece = self.read(offset, min(length, _CHUNK))
            if not piece:
                raise ModelError(f"{self.path}: the file became shorter while it was read; load the model again")
            file.write(piece)
            offset += len(piece)
            length -= len(piece)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)


class FileTensor(Tensor):
    """Elements inside a file: the model's own, or one of its external data files."""

    __slots__ = ("source", "offset")

    def __init__(self, source: SourceFile, offset: int, dtype: DType, shape: Sequence[int]) -> None:
        super().__init__(dtype, shape)
        self.source = source
        self.offset = offset
        if offset < 0 or offset + self.nbytes > source.size:
            if source.is_pointer:
                raise ModelError(f"{source.path}: {POINTER}")
            raise ModelError(
                f"{source.path}: a {self.dtype.text}{list(self.shape)} tensor at byte {offset} reaches past the end "
                f"of the file ({source.size} bytes); the file is truncated or belongs to another model"
            )

    def numpy(self) -> npt.NDArray[np.generic]:
        if self.nbytes == 0:
            return np.zeros(self.shape, self.dtype.numpy)
        if self.dtype.bits % 8 == 0:
            flat = np.frombuffer(self.source.map(), self.dtype.numpy, count=self.size, offset=self.offset)
            return flat.reshape(self.shape)
        raw = np.frombuffer(self.source.map(), np.uint8, count=self.nbytes, offset=self.offset)
        return unpack(raw, self.dtype, self.shape)

    def release(self) -> None:
        self.source.release()

    def write(self, file: BinaryIO) -> None:
        self.source.copy(self.offset, self.nbytes, file)


class SparseTensor(Tensor):
    """ONNX `sparse_initializer`: `values` (nnz,) at `indices`, linear (nnz,) or coordinates (nnz, rank).

    Raises `ModelError` where the shape is none, or values and indices do not belong together.
    """

    __slots__ = ("values", "indices")

    def __init__(self, values: Tensor, indices: Tensor, shape: Sequence[int]) -> None:
        super().__init__(values.dtype, shape)
        self.values = values
        self.indices = indices
        count, rank = values.size, len(self.shape)
        if min(self.shape, default=0) < 0 or len(values.shape) != 1 or indices.shape not in ((count,), (count, rank)):
            raise ModelError(
                f"a sparse tensor of shape {list(self.shape)} has {list(values.shape)} values at indices of shape "
                f"{list(indices.shape)}; the model is damaged"
            )

    @property
    def fits(self) -> bool:
        return memory(self.dtype, self.shape) <= MOST

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.indices.nbytes

    def numpy(self) -> npt.NDArray[np.generic]:
        """Raises `TooLarge`, and `ModelError` for an index outside the shape."""
        require(self.dtype, self.shape, "a sparse tensor")
        dense = np.zeros(self.shape, self.dtype.numpy)
        at = np.asarray(self.indices.numpy(), np.int64)
        bounds = np.asarray(self.size if at.ndim == 1 else self.shape, np.int64)
        if ((at < 0) | (at >= bounds)).any():
            raise ModelError(f"a sparse tensor of shape {list(self.shape)} has an index outside; the model is damaged")
        if at.ndim == 1:
            dense.reshape(-1)[at] = self.values.numpy()
        else:
            dense[tuple(at.T)] = self.values.numpy()
        dense.flags.writeable = False
        return dense

    def write(self, file: BinaryIO) -> None:
        raise TypeError("a sparse tensor has no raw_data; write its values and indices")


def pack(array: npt.NDArray[np.generic], dtype: DType) -> bytes:
    """The bytes of `raw_data`: elements of less than a byte are packed from the lowest bit up."""
    if dtype is DType.STRING:
        raise TypeError("strings have no raw_data")
    if dtype.bits % 8 == 0:
        return np.ascontiguousarray(array, dtype.numpy).tobytes()
    codes = np.ascontiguousarray(array, dtype.numpy).view(np.uint8).reshape(-1)
    if 8 % dtype.bits:
        bits = np.unpackbits(codes[:, None], axis=1, bitorder="little")[:, : dtype.bits]
        return np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    per_byte = 8 // dtype.bits
    grouped = np.pad(codes & ((1 << dtype.bits) - 1), (0, -codes.size % per_byte)).reshape(-1, per_byte)
    shifts = np.arange(0, 8, dtype.bits, dtype=np.uint8)
    packed: npt.NDArray[np.uint8] = np.bitwise_or.reduce(grouped << shifts, axis=1, dtype=np.uint8)
    return packed.tobytes()


def unpack(raw: npt.NDArray[np.uint8], dtype: DType, shape: Sequence[int]) -> npt.NDArray[np.generic]:
    """The inverse of `pack` for types of less than a byte: uint8 bytes in, an array of `dtype.numpy` out."""
    size = math.prod(shape)
    codes: npt.NDArray[np.uint8]
    if 8 % dtype.bits:
        bits = np.unpackbits(raw, bitorder="little")[: size * dtype.bits].reshape(size, dtype.bits)
        codes = np.packbits(bits, axis=1, bitorder="little").reshape(shape)
    else:
        shifts = np.arange(0, 8, dtype.bits, dtype=np.uint8)
        codes = ((raw[:, None] >> shifts) & np.uint8((1 << dtype.bits) - 1)).reshape(-1)[:size].reshape(shape)
    if dtype.is_integer and not dtype.name.startswith("U"):
        shift = 8 - dtype.bits
        signed = (codes << shift).view(np.int8) >> np.int8(shift)
        return signed.astype(dtype.numpy)
    if dtype.is_integer:
        return codes.astype(dtype.numpy)
    return codes.view(dtype.numpy)
