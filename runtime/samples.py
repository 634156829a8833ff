"""Calibration samples: any number of them, streamed in batches, in bounded memory.

Samples belong to the inputs of one graph. Each input is a column of rows (`columns.py`); a batch stacks rows along the
input's batch axis (`axes.py`). Nothing is read before it is asked for, and the order is always the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ..errors import DataError
from .columns import Array, Column, Index, LoadedColumn, SharedColumn, runs

Feeds: TypeAlias = dict[str, Array]
"""Input name -> tensor: what a session runs on."""

Change: TypeAlias = "Callable[[Feeds, int], Feeds]"

Source: TypeAlias = "str | os.PathLike[str] | Array | Mapping[str, Array] | Iterable[object]"


class Samples:
    """A fixed sequence of samples for the inputs of one graph.

    `axes` maps each input to the axis that counts samples, or to `None` where the graph takes one sample at a time.
    `synthetic` tells made-up inputs from real ones. `notes` are sentences for the user about how the data was read.
    """

    __slots__ = ("axes", "synthetic", "notes", "_columns", "_index", "_single", "_change")

    def __init__(
        self,
        columns: Sequence[Column],
        axes: Mapping[str, int | None],
        *,
        synthetic: bool = False,
        notes: Sequence[str] = (),
        index: Index | None = None,
        single: bool = False,
        change: Change | None = None,
    ) -> None:
        """Raises `DataError` where the columns disagree in length or hold nothing."""
        self.axes = dict(axes)
        self.synthetic = synthetic
        self.notes = tuple(notes)
        self._columns = tuple(columns)
        self._single = single
        self._change = change
        first = columns[0]
        for column in columns:
            if len(column) != len(first):
                raise DataError(
                    f"input '{first.name}' has {len(first)} samples, input '{column.name}' has {len(column)}; "
                    "every input needs one for each"
                )
        if not len(first):
            raise DataError("there are no samples; give at least one, better a few hundred")
        self._index: Index = np.arange(len(first), dtype=np.intp) if index is None else index

    @property
    def count(self) -> int:
        return len(self._index)

    def __len__(self) -> int:
        return self.count

    @property
    def batched(self) -> bool:
        """Whether the graph takes more than one sample at a time."""
        return not self._single and all(
            self.axes[c.name] is not None or isinstance(c, SharedColumn) for c in self._columns
        )

    @property
    def uneven(self) -> bool:
        """Whether samples may differ in size."""
        return any(isinstance(column, LoadedColumn) for column in self._columns)

    def singly(self) -> Samples:
        """The same samples in batches of one, for a graph that declares a batch axis and takes no batch."""
        return self._with(self._index, single=True, change=self._change)

    def through(self, change: Change) -> Samples:
        """The same samples, each batch as `change` makes it, which is given the place of the batch too."""
        return self._with(self._index, single=self._single, change=change)

    def batches(self, size: int) -> Iterator[Feeds]:
        """All samples in order, up to `size` at a time.

        A batch is shorter at the end, where the sizes of samples change from one to the next, and always of one where
        the graph takes no more. Raises `DataError` for a sample that cannot be read or is not finite.
        """
        if size < 1:
            raise ValueError(f"a batch holds at least one sample, not {size}")
        step = size if self.batched else 1
        for start in range(0, self.count, step):
            at = self._index[start : start + step]
            rows = [column.rows(at) for column in self._columns]
            for a, b in runs(rows, len(at)):
                feeds = {c.name: self._stack(c, r, a, b) for c, r in zip(self._columns, rows, strict=True)}
                yield feeds if self._change is None else self._change(feeds, start + a)

    def _stack(self, column: Column, rows: Array | list[Array], a: int, b: int) -> Array:
        axis = self.axes[column.name]
        if axis is None or isinstance(column, SharedColumn):
            return np.asarray(rows[0], order="C")
        stacked = np.stack(rows[a:b]) if isinstance(rows, list) else rows[a:b]
        return np.ascontiguousarray(np.moveaxis(stacked, 0, axis))

    def size_of(self, feeds: Mapping[str, Array]) -> int:
        """How many samples a batch holds."""
        for name, axis in self.axes.items():
            if axis is not None:
                return int(feeds[name].shape[axis])
        return 1

    def save(self, path: str) -> str:
        """Write the samples into an .npz that `load_samples` reads, and return its path. Raises `OSError`."""
        parts: dict[str, list[Array]] = {name: [] for name in self.axes}
        for feeds in self.batches(1):
            for name, array in feeds.items():
                parts[name].append(array)
        joined = {
            name: np.stack(arrays) if (axis := self.axes[name]) is None else np.concatenate(arrays, axis)
            for name, arrays in parts.items()
        }
        np.savez(path, **joined)  # type: ignore[arg-type]
        return path

    def split(self, out: int, seed: int = 0) -> tuple[Samples, Samples]:
        """Two disjoint parts, `(fit, held)`.

        One sample is drawn from each of `out` equal stretches, so both parts hold all kinds however the samples are
        ordered. At most half are held out; of a single sample both parts are the whole.
        """
        out = min(out, self.count // 2)
        if out < 1:
            return self, self
        drawn = self._spread(out, seed)
        fit = np.ones(self.count, bool)
        fit[drawn] = False
        return self.pick(np.flatnonzero(fit)), self.pick(drawn)

    def take(self, count: int, seed: int = 0) -> Samples:
        """At most `count` samples, drawn evenly over the whole."""
        if count < 1:
            raise DataError(f"{count} samples are none; take at least one, better a few hundred")
        return self if count >= self.count else self.pick(self._spread(count, seed))

    def _spread(self, count: int, seed: int) -> Index:
        edges = np.linspace(0, self.count, count + 1).astype(np.intp)
        return np.asarray(np.random.default_rng(seed).integers(edges[:-1], edges[1:]), dtype=np.intp)

    def pick(self, at: Index) -> Samples:
        """The samples at these places, in this order."""
        return self._with(self._index[np.asarray(at)], single=self._single, change=self._change)

    def _with(self, index: Index, *, single: bool, change: Change | None) -> Samples:
        return Samples(
            self._columns,
            self.axes,
            synthetic=self.synthetic,
            notes=self.notes,
            index=index,
            single=single,
            change=change,
        )

    def __repr__(self) -> str:
        kind = "synthetic" if self.synthetic else "real"
        return f"Samples({self.count} {kind}, axes={self.axes})"
