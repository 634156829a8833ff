"""Arrays kept for later, in memory up to a limit and in temporary files beyond it.

What is held is a list of arrays under a key (one a batch), and each key has one file. Files are read and written, not
mapped, so that what waits on disk does not count as this process's memory. Arrays of Python objects (strings), and
those so small that a file would cost more than they do, stay in memory. Close it (or use it as a context manager) to
drop the files.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from .workspace import Workspace

Data = NDArray[np.generic]

SMALL = 1 << 10
"""Bytes of an array that is not worth a file."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """An array in a file, from byte `offset` on."""

    path: Path
    offset: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    def read(self) -> Data:
        count = int(np.prod(self.shape, dtype=np.int64))
        return np.fromfile(self.path, self.dtype, count, offset=self.offset).reshape(self.shape)


class Spill:
    """Batches of arrays under keys; at most about `limit` bytes of them in memory."""

    def __init__(self, limit: int = 24 << 20) -> None:
        self._limit = limit
        self._held = 0
        self._items: dict[Hashable, list[Data | _Stored]] = {}
        self._ends: dict[Hashable, tuple[Path, int]] = {}  # the file of a key, and how long it is
        self._folder: Workspace | None = None
        self._files = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._items

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def room(self) -> int:
        """Bytes that still go to memory."""
        return max(self._limit - self._held, 0)

    def append(self, key: Hashable, array: Data) -> None:
        """Add the next batch of `key`."""
        batches = self._items.setdefault(key, [])
        if self._held + array.nbytes <= self._limit or array.nbytes <= SMALL or array.dtype.hasobject:
            self._held += array.nbytes
            # A view keeps all of what it is a part of: an answer of ONNX Runtime the memory of its whole session.
            batches.append(array if array.base is None else array.copy())
            return
        path, end = self._ends.get(key) or (self._new_file(), 0)
        with open(path, "ab") as file:
            array.tofile(file)
        self._ends[key] = path, end + array.nbytes
        batches.append(_Stored(path, end, array.dtype, array.shape))

    def count(self, key: Hashable) -> int:
        """How many batches of `key` there are."""
        return len(self._items.get(key, ()))

    def get(self, key: Hashable, batch: int) -> Data:
        """Batch number `batch` of `key`."""
        item = self._items[key][batch]
        return item.read() if isinstance(item, _Stored) else item

    def drop(self, key: Hashable) -> None:
        """Forget `key`, and delete its file."""
        self._held -= sum(item.nbytes for item in self._items.pop(key, []) if not isinstance(item, _Stored))
        if key in self._ends:
            self._ends.pop(key)[0].unlink()

    def close(self) -> None:
        self._items.clear()
        self._ends.clear()
        self._held = 0
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _new_file(self) -> Path:
        if self._folder is None:
            self._folder = Workspace()
        self._files += 1
        return Path(self._folder.name) / str(self._files)
