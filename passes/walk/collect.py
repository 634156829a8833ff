"""What the layers of a group read and are asked for, row by row: their moments as the student comes by, and the rows
again for what a saturating activation forgives.

Rows that are looked at again are taken anew from the value they were taken from, which waits at hand until the layer
has run, where that is no larger than the rows are; else they are kept. Patches of a 3 x 3 kernel at most positions are
nine times as large as the value. Of a value that is not kept at all, only what the rows read of it leaves the run.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Value
from ...storage.spill import Data, Spill
from .frontier import Elsewhere, Frontier, FrontierPick
from .moments import Moments, Products
from .order import Goal
from .pairing import Selections
from .patches import rows_at_places, sample_positions
from .saturation import Part, Saturation, range_after, rows_to_keep
from .teacher import floats, positions

Rows = NDArray[np.float32]

FEW = 2
"""A value has so many times the positions that are picked of it at least."""
FIFTH = 5
"""Of so many batches one is held out."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one batch adds to the moments, the rows to keep under their keys, and the shape of what they are from."""

    products: list[Products]
    keep: list[tuple[Hashable, Rows]]
    shape: tuple[int, ...]


class Collector:
    """The rows of one group, the `number`-th that is asked; `count` of them at least.

    Rows from `ahead` are those that would be, were nothing changed between here and the layer. With `eases`, some rows
    of layers before a saturating activation can be looked at again, drawn at random: any regular step would meet the
    same few places of every image again and again.
    """

    def __init__(
        self,
        number: int,
        group: list[Goal],
        frontier: Frontier,
        selected: Selections,
        kept: Spill,
        count: int,
        seed: int,
        *,
        ahead: bool = False,
        eases: bool = True,
    ) -> None:
        self._number = number
        self._group = group
        self._layer = group[0].layer
        self._source = self._layer.source  # rows are taken anew after the first layer was written, whose node is gone
        self._frontier = frontier
        self._selected = selected
        self._kept = kept
        self._count = count
        self._seed = seed
        self._ahead = ahead
        self._batches = kept.count(("at", number))
        groups, _, d = self._layer.shape
        able = [goal for goal in group if goal.layer.bias_place is not None and goal.layer.alone]
        self._easy = [goal for goal in able if eases and groups == 1 and range_after(goal.output) is not None]
        self._room = rows_to_keep(d, sum(goal.layer.shape[1] for goal in group)) if self._easy else 0
        self._reads = list(dict.fromkeys([self._layer.source, *(goal.skip for goal in group if goal.skip is not None)]))
        self._pick = self._picking()
        self._again = False
        """Whether rows are taken anew where they are looked at again: known with the first batch."""

    def moments(self) -> tuple[Moments, Moments, tuple[int, ...]]:
        """Moments of the rows to fit on and of every fifth batch, held out, and the shape of the value that they are
        from, in the first batch."""
        try:
            return self._sums()
        except Elsewhere:
            if self._pick is None:
                raise
            self._pick = None
            return self._sums()

    def _sums(self) -> tuple[Moments, Moments, tuple[int, ...]]:
        groups, _, d = self._layer.shape
        n = sum(goal.layer.shape[1] for goal in self._group)
        fit, held_out = Moments(groups, d, n), Moments(groups, d, n)
        shape: tuple[int, ...] = ()
        wanted = list(dict.fromkeys([*self._reads, *self._selected.wanted(self._layer.source)]))

        def summed(batch: int, values: Mapping[Value, Data]) -> _Batch:
            x, answers = self._rows(batch, values, self._group)
            keep = self._to_keep(batch, values, x, answers)
            t = np.concatenate(
                [
                    (t if skip is None else t - skip).reshape(len(x), groups, goal.layer.shape[1])
                    for goal, (t, skip) in zip(self._group, answers, strict=True)
                ],
                axis=2,
            )
            if batch == 0:
                nothing = np.zeros((1, groups, d), np.float32), np.zeros((1, groups, n), np.float32)
                for moments in (fit, held_out):
                    moments.shift(*((x, t) if len(x) else nothing))
            part = held_out if _is_held_out(batch) else fit
            return _Batch(part.products(x, t), keep, self._shape(values[self._layer.source]))

        advance = self._frontier.advance(wanted, summed, ahead_only=self._ahead, pick=self._pick)
        for batch, one in enumerate(advance):
            shape = shape or one.shape
            for key, array in one.keep:
                self._kept.append(key, array)
            (held_out if _is_held_out(batch) else fit).take(one.products)
        return fit, held_out, shape

    def saturation(self, goal: Goal) -> Saturation | None:
        """What the activation after a layer forgives; `None` where its rows are not looked at again."""
        bounds = range_after(goal.output)
        if bounds is None or not self._room or goal not in self._easy or not self._batches:
            return None

        def read(batch: int) -> Part:
            if self._again:
                x, [(t, skip)] = self._rows(batch, self._frontier.at_hand(self._reads, batch), [goal])
                some = self._some(batch, len(x))
                return x[some], t[some], None if skip is None else skip[some]
            other = self._kept_rows("other", goal.layer, batch) if ("other", goal.layer) in self._kept else None
            return self._kept_rows("rows", self._number, batch), self._kept_rows("teacher", goal.layer, batch), other

        return Saturation(bounds, self._batches, read)

    def drop(self) -> None:
        """Forget the rows, once no layer of the group looks at them again."""
        drop(self._kept, self._number, self._group)

    def _rows(
        self, batch: int, values: Mapping[Value, Data], goals: Sequence[Goal]
    ) -> tuple[Rows, list[tuple[Rows, Rows | None]]]:
        """The inputs, and for each of `goals` the teacher's output and what is added to the layer's own before that."""
        first, kept, number = self._layer, self._kept, self._number
        source = floats(values[self._source])
        shape = self._shape(source)
        output = tuple(kept.get(("shape", number), batch).tolist())
        paired = first.sites(output) == first.sites(first.output_shape(shape, output))
        outcome = self._selected.take(self._source, batch, values, final=not self._ahead)
        paired &= outcome == kept.get(("selected", number), batch).tobytes()
        if paired:
            at = np.asarray(kept.get(("at", number), batch), dtype=np.intp)
        else:
            output = first.output_shape(shape, output)
            at = positions(first, output, self._count, 1.0 / self._batches, (self._seed, number, batch))
        if self._picked:
            assert self._pick is not None
            x = rows_at_places(source, first.places(self._pick.sizes, at, output)[1])
        else:
            x = first.inputs(source, at, output)
        answers: list[tuple[Rows, Rows | None]] = []
        for goal in goals:
            skip = None if goal.skip is None else goal.layer.targets(floats(values[goal.skip]), at)
            if paired:
                t = np.asarray(kept.get(("answer", goal.layer), batch), dtype=np.float32)
            else:
                t = goal.layer.answers(x) + (0.0 if skip is None else skip)
            answers.append((t, skip))
        return x, answers

    @property
    def _picked(self) -> bool:
        """Whether the value that is read comes as the picked positions of it alone."""
        return self._pick is not None and not self._frontier.keeps(self._source)

    def _shape(self, source: Data) -> tuple[int, ...]:
        """The shape of the value that is read, of which `source` may be what was picked."""
        if self._pick is None or not self._picked:
            return source.shape
        return (source.shape[0], source.shape[2], *self._pick.sizes)

    def _picking(self) -> FrontierPick | None:
        """What the rows need of the value that the layers read, where that is few of its positions, known beforehand;
        else `None`."""
        first, source, number = self._layer, self._source, self._number
        sizes = tuple(size for size in (source.shape or ())[2:] if isinstance(size, int))
        if not (self._batches and first.is_conv and not first.transposed and source.producer is not None):
            return None
        if self._ahead or len(sizes) != len(first.kernel) or self._selected.before(source) or source in self._reads[1:]:
            return None
        output = tuple(self._kept.get(("shape", number), 0).tolist())
        if first.output_shape((output[0], first.groups * first.channels, *sizes), output) != output:
            return None

        def at(batch: int) -> NDArray[np.int64]:
            shape = tuple(self._kept.get(("shape", number), batch).tolist())
            places = np.asarray(self._kept.get(("at", number), batch), np.intp)
            return first.places(sizes, places, shape)[0].reshape(-1).astype(np.int64)

        return FrontierPick(source, sizes, at) if FEW * at(0).size <= math.prod(sizes) else None

    def _to_keep(
        self, batch: int, values: Mapping[Value, Data], x: Rows, answers: list[tuple[Rows, Rows | None]]
    ) -> list[tuple[Hashable, Rows]]:
        if not self._room:
            return []
        some = self._some(batch, len(x))
        if batch == 0:
            lasting = not self._ahead and all(self._frontier.keeps(value) for value in self._reads)
            self._again = lasting and sum(values[value].nbytes for value in self._reads) <= x[:1].nbytes * len(some)
        if self._again:
            return []
        keep: list[tuple[Hashable, Rows]] = [(("rows", self._number), x[some])]
        for goal, (t, skip) in zip(self._group, answers, strict=True):
            if goal in self._easy:
                keep.append((("teacher", goal.layer), t[some]))
                if skip is not None:
                    keep.append((("other", goal.layer), skip[some]))
        return keep

    def _some(self, batch: int, rows: int) -> NDArray[np.intp]:
        each = math.ceil(self._room / self._batches)
        return sample_positions(rows, each, np.random.default_rng((self._seed, self._number, batch)))

    def _kept_rows(self, word: str, key: object, batch: int) -> Rows:
        return np.asarray(self._kept.get((word, key), batch), dtype=np.float32)


def drop(kept: Spill, number: int, group: Sequence[Goal]) -> None:
    """Forget what is kept of a group, the `number`-th that is asked."""
    for word in ("at", "shape", "selected", "rows"):
        kept.drop((word, number))
    for goal in group:
        for word in ("answer", "teacher", "other"):
            kept.drop((word, goal.layer))


def _is_held_out(batch: int) -> bool:
    return batch % FIFTH == FIFTH - 1
