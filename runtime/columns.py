"""One input's samples, read only when asked for.

A column hides where samples live (an array, a memory-mapped file, one file each) and gives rows: arrays of one sample
each, of the element type the graph wants. Casts that cannot lose values silently are made here, and every row is
checked to be finite when it is read.
"""

from __future__ import annotations

import itertools
import mmap
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ..errors import DataError

Array = npt.NDArray[np.generic]
Index = npt.NDArray[np.intp]

_STRETCH = 16 << 20


class Column(ABC):
    """The samples of the input `name`; `dtype` is what rows come as."""

    __slots__ = ("name", "dtype")

    def __init__(self, name: str, dtype: np.dtype[np.generic]) -> None:
        self.name = name
        self.dtype = dtype

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, at: Index) -> Array | list[Array]:
        """Rows `at`: one array, samples first, or a list of rows that may differ in shape."""

    def rows(self, at: Index) -> Array | list[Array]:
        """Rows `at`, cast and checked. Raises `DataError`."""
        rows = self.read(at)
        if isinstance(rows, list):
            return [self._cast(row[None], at[i : i + 1])[0] for i, row in enumerate(rows)]
        return self._cast(rows, at)

    def _cast(self, rows: Array, at: Index) -> Array:
        if rows.dtype.kind == "f":
            finite = np.isfinite(rows)
            if not finite.all():
                first = int(np.argmin(finite.reshape(len(rows), -1).all(axis=1)))
                raise DataError(
                    f"input '{self.name}': sample {at[first]} holds NaN or infinity; remove it or repair it"
                )
        if rows.dtype == self.dtype:
            return rows
        with np.errstate(over="ignore"):
            cast = rows.astype(self.dtype)
        if rows.dtype.kind in "iu" and not np.array_equal(cast, rows):
            raise DataError(f"input '{self.name}': samples hold integers that do not fit in {self.dtype}")
        if rows.dtype.kind == "f" and not np.isfinite(cast).all():
            raise DataError(f"input '{self.name}': samples hold numbers that do not fit in {self.dtype}")
        return cast


class ArrayColumn(Column):
    """Samples stacked in one array, in memory or memory-mapped, along `axis`; all alike in shape."""

    __slots__ = ("array", "_map")

    def __init__(self, name: str, dtype: np.dtype[np.generic], array: Array, axis: int = 0) -> None:
        super().__init__(name, dtype)
        self.array = np.moveaxis(array, axis, 0)
        self._map = _mapping(array)

    def __len__(self) -> int:
        return len(self.array)

    def check(self) -> None:
        """Read every row once, a bounded stretch at a time. Raises `DataError`."""
        step = max(1, _STRETCH * len(self.array) // max(1, self.array.nbytes))
        for start in range(0, len(self.array), step):
            self.rows(np.arange(start, min(start + step, len(self.array)), dtype=np.intp))

    def read(self, at: Index) -> Array:
        # What was read before would otherwise stay in this process's memory.
        if sys.platform != "win32" and self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
        first = int(at[0])
        if np.array_equal(at, np.arange(first, first + len(at))):  # a view: nothing is copied
            return np.asarray(self.array[first : first + len(at)])
        return np.asarray(self.array[at])


def _mapping(array: Array) -> mmap.mmap | None:
    """The mapping behind an array that is only read, on systems that can be told what is not needed for now."""
    if not isinstance(array, np.memmap) or array.mode != "r" or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


class SharedColumn(Column):
    """One tensor that all `count` samples share, such as a sampling rate."""

    __slots__ = ("array", "count")

    def __init__(self, name: str, dtype: np.dtype[np.generic], array: Array, count: int) -> None:
        super().__init__(name, dtype)
        self.array = array
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, at: Index) -> Array:
        return np.asarray(self.array)[None]


class LoadedColumn(Column):
    """Samples loaded one by one; shapes may differ from row to row (sequences of several lengths)."""

    __slots__ = ("count", "load")

    def __init__(self, name: str, dtype: np.dtype[np.generic], count: int, load: Callable[[int], Array]) -> None:
        super().__init__(name, dtype)
        self.count = count
        self.load = load

    def __len__(self) -> int:
        return self.count

    def read(self, at: Index) -> list[Array]:
        return [self.load(int(i)) for i in at]


def runs(columns: Sequence[Array | list[Array]], count: int) -> list[tuple[int, int]]:
    """Stretches of the rows 0..count in which no column changes its row shape."""
    shapes = [[row.shape for row in column] for column in columns if isinstance(column, list)]
    starts = [0, *(i for i in range(1, count) if any(s[i] != s[i - 1] for s in shapes)), count]
    return list(itertools.pairwise(starts))


def castable(have: np.dtype[np.generic], want: np.dtype[np.generic]) -> bool:
    """Whether values of `have` may be fed as `want`: within floats, within integers, booleans as anything."""
    kinds = {"f": "f", "i": "iu", "u": "iu", "b": "biuf"}
    if have == want:
        return True
    # The types of ml_dtypes (bfloat16 and the like) are of kind "V" and take any float.
    return want.kind in kinds.get(have.kind, "") or (have.kind == "f" and want.kind == "V")
