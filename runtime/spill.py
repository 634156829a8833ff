"""Arrays kept for later, in memory up to a limit and in temporary files beyond it.

What is held is a list of arrays under a key (one a batch). Files are read and written, not mapped, so that what waits
on disk does not count as this process's memory. Close it (or use it as a context manager) to drop the files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Hashable
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

Data = NDArray[np.generic]


class Spill:
    """Batches of arrays under keys; at most about `limit` bytes of them in memory."""

    def __init__(self, limit: int = 48 << 20) -> None:
        self._limit = limit
        self._held = 0
        self._items: dict[Hashable, list[Data | Path]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._items

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def append(self, key: Hashable, array: Data) -> None:
        """Add the next batch of `key`."""
        batches = self._items.setdefault(key, [])
        if self._held + array.nbytes <= self._limit:
            self._held += array.nbytes
            batches.append(array)
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="optc-")
        path = Path(self._folder.name) / f"{self._files}.npy"
        self._files += 1
        np.save(path, array, allow_pickle=False)
        batches.append(path)

    def count(self, key: Hashable) -> int:
        """How many batches of `key` there are."""
        return len(self._items.get(key, ()))

    def get(self, key: Hashable, batch: int) -> Data:
        """Batch number `batch` of `key`."""
        item = self._items[key][batch]
        if isinstance(item, Path):
            loaded: Data = np.load(item, allow_pickle=False)
            return loaded
        return item

    def drop(self, key: Hashable) -> None:
        """Forget `key`, and delete its files."""
        for item in self._items.pop(key, []):
            if isinstance(item, Path):
                item.unlink()
            else:
                self._held -= item.nbytes

    def close(self) -> None:
        self._items.clear()
        self._held = 0
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
