"""Rows that arrive one after another, kept on disk rather than in memory."""

from __future__ import annotations

import tempfile

import numpy as np

from .columns import Array, ArrayColumn, Column, LoadedColumn


class Spool:
    """An unlinked temporary file of rows; it lives as long as the column made of it."""

    __slots__ = ("_file", "_rows", "_end")

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives with the spool
        self._rows: list[tuple[int, tuple[int, ...], np.dtype[np.generic]]] = []
        self._end = 0

    def __del__(self) -> None:
        if hasattr(self, "_file"):  # which is not where no file could be made
            self._file.close()  # a map of it stays

    def append(self, row: Array) -> None:
        row = np.asarray(row)
        if row.dtype.hasobject:  # strings, of which an array of objects holds addresses alone
            row = row.astype(np.str_)
        self._file.write(np.ascontiguousarray(row).tobytes())
        self._rows.append((self._end, row.shape, row.dtype))
        self._end += row.nbytes

    def column(self, name: str, dtype: np.dtype[np.generic]) -> Column:
        """The rows as a column: one array where all are alike."""
        self._file.flush()
        if self._end and len({row[1:] for row in self._rows}) == 1:
            _, shape, stored = self._rows[0]
            return ArrayColumn(name, dtype, np.memmap(self._file, stored, mode="r", shape=(len(self._rows), *shape)))
        return LoadedColumn(name, dtype, len(self._rows), self._load)

    def _load(self, index: int) -> Array:
        offset, shape, dtype = self._rows[index]
        self._file.seek(offset)
        return np.frombuffer(self._file.read(dtype.itemsize * int(np.prod(shape, dtype=np.int64))), dtype).reshape(
            shape
        )
