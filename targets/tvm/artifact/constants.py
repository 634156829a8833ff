"""The constants of a model as bytes: each once, and as codes where it holds few different numbers.

Weights that compute with floats seldom repeat, but what stands between layers does: grids of anchors, positions, masks.
Of four bytes each, numbers of at most 256 kinds are kept as one byte each and a table; they are spread out again when a
model is opened, into memory that every run reads, so that no kernel is slower by it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

ALIGNMENT = 64
"""Bytes at which every tensor starts; the kernels count on it."""
_KINDS = 256
_GLANCE = 1 << 12
"""Words that are looked at first: of most weights these alone are of too many kinds."""
_WORD = 4
_GAIN = 4096
"""Bytes that codes must save: less is not worth the memory that they are spread out in."""


@dataclass(frozen=True, slots=True)
class Table:
    """`count` words: the codes are at `codes` of the stored bytes, the words that they stand for at `words`. They are
    spread out at `at` of the bytes made of all tables."""

    codes: int
    words: int
    count: int
    at: int


@dataclass(slots=True)
class Constants:
    """`stored` is what a library holds, `spread` the bytes that its `tables` are spread out into."""

    stored: bytearray = field(default_factory=bytearray)
    tables: list[Table] = field(default_factory=list)
    spread: int = 0
    _places: dict[tuple[int, bytes], tuple[str, int]] = field(default_factory=dict)

    def place(self, array: npt.NDArray[np.generic], coded: bool) -> tuple[str, int]:
        """Where the bytes of `array` are: in "weights" or, where it may be `coded`, in "tables"; and at which byte."""
        data = np.ascontiguousarray(array).tobytes()
        key = (len(data), hashlib.sha256(data).digest())
        if key not in self._places:
            table = self._table(data) if coded and array.dtype.itemsize == _WORD else None
            self._places[key] = ("weights", self._store(data)) if table is None else ("tables", table.at)
        return self._places[key]

    def _store(self, data: bytes) -> int:
        self.stored += bytes(-len(self.stored) % ALIGNMENT)
        at = len(self.stored)
        self.stored += data
        return at

    def _table(self, data: bytes) -> Table | None:
        """The words of `data` as codes; none where there are too many kinds of them, or they are few."""
        words = np.frombuffer(data, np.uint32)
        if len(data) - words.size < _GAIN or len(set(words[:_GLANCE].tolist())) > _KINDS:
            return None
        kinds, codes = np.unique(words, return_inverse=True)
        if kinds.size > _KINDS or len(data) - words.size - kinds.nbytes < _GAIN:
            return None
        table = Table(
            self._store(codes.astype(np.uint8).tobytes()), self._store(kinds.tobytes()), words.size, self.spread
        )
        self.tables.append(table)
        self.spread += -(-len(data) // ALIGNMENT) * ALIGNMENT
        return table
