"""An output judged slice by slice: columns of a table of boxes and scores, channels of a map, bands of a signal.

One cosine over a tensor in which box pixels stand beside scores hears the pixels alone. So each slice along the
smallest axis beside the samples is judged apart, and the worst counts. Of slice t and the student's s:

- values: the correlation of t and s, and 1 - |mean(s - t)| / std(t), which a constant shift costs. A slice with less
  than `FAINT` of the largest variance drowns in the noise of any grid, and is judged by its gain, cov(t, s) / var(t),
  alone: 0 where it is muted or swapped. Where slices are scores, values are judged on the rows that score, if they are
  many;
- scores (all of a slice in [0, 1] and little of it in the middle, as presence is and coordinates are not): decisions at
  `POINTS`, by the share 2 both / (teacher + student) of positives (Dice 1945), of all together and of every slice that
  has `MANY` of them, which is given `DOUBT` standard errors; their ranking, by how many of the k rows that the teacher
  scores highest are among the student's k, with k the rows of a sample that the teacher scores above `POINTS[0]`; and
  the gain of all together, which a range that cuts them off costs;
- signals (up to `TRACKS` slices of at least `LONG` steps, none of them scores): the gain of each octave of the spectrum
  that has `HEARD` of its slice's power;
- slices that are many beside what is in them, such as the columns of an embedding or the bins of a spectrogram: those
  that are lost, with a gain below `LOST` by more than `DOUBT` standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WIDEST, MOST = 256, 4096
"""Slices beyond which an axis is no list of columns, and beyond which none of them is missed."""
CHANNELS = 16
"""Beside a single channel in front, more at the end are no channels but places."""
POINTS = (0.1, 0.25, 0.5)
MANY = 20
"""Positives, or samples, below which a share of one slice says nothing."""
DOUBT = 3
"""Of dozens of classes at three points, the unluckiest is about so many standard errors off by chance."""
MIDDLE = 0.25
"""The share of a slice of scores that lies between one quarter and three at most."""
FAINT, SILENT = 1e-3, 1e-8
"""Shares of the largest variance below which a slice is judged by gain alone, and not at all."""
LONG, TRACKS = 128, 8
HEARD = 1e-4
LOST = 0.5


@dataclass(frozen=True, slots=True)
class Part:
    """The share of agreement of one part of an output, what that part is, and how many things the share is of."""

    share: float
    name: str
    count: float


@dataclass(slots=True)
class _Sums:
    """Of each slice: the rows, and the sums of t, s, t^2, s^2 and t s over them, (5, slices)."""

    rows: float = 0.0
    sums: Floats = field(default_factory=lambda: np.zeros((5, 0)))

    def add(self, t: Floats, s: Floats) -> None:
        """Rows (slices, rows)."""
        if not self.sums.shape[1]:
            self.sums = np.zeros((5, len(t)))
        self.rows += t.shape[1]
        self.sums += np.stack(
            [t.sum(1), s.sum(1), *(np.einsum("cr,cr->c", *pair) for pair in ((t, t), (s, s), (t, s)))]
        )

    def moments(self) -> tuple[Floats, Floats, Floats, Floats]:
        """The mean error, the variances of t and of s, and their covariance."""
        t, s, tt, ss, ts = self.sums / max(self.rows, 1.0)
        return s - t, np.maximum(tt - t * t, 0.0), np.maximum(ss - s * s, 0.0), ts - t * s


class Slices:
    """What is summed of one output, batch by batch. Samples are along the first axis."""

    __slots__ = (
        "decides", "axis", "width", "all", "scoring", "low", "high", "middle", "counts", "ranked", "ranks", "bands",
        "lost", "thin_axis", "thin",
    )  # fmt: skip

    def __init__(self, decides: bool = False) -> None:
        """`decides`: all slices are scores, whatever they look like."""
        self.decides = decides
        self.axis: int | None = None
        self.width = 0
        self.all, self.scoring = _Sums(), _Sums()
        self.low = self.high = self.middle = np.zeros(0)
        self.counts: Floats = np.zeros((3, len(POINTS), 0))  # of both, of the teacher, of the student
        self.ranked = self.ranks = 0
        self.bands: dict[int, Floats] = {}  # of each octave: the power, and what both share of it, (2, slices)
        self.lost = False
        self.thin_axis: int | None = None
        self.thin = _Sums()

    def add(self, t: Floats, s: Floats) -> None:
        """A batch of the output, alike in shape and finite; one number for the whole of it counts as a sample."""
        t, s = np.atleast_1d(t, s)
        if not t.size or self.lost:
            return
        if not self.width:
            self.axis = _small_axis(t.shape)
            self.thin_axis = _thin_axis(t.shape) if self.axis is None or t.ndim == 2 else None
            self.width = 1 if self.axis is None else t.shape[self.axis]
            self.low, self.high = np.full(self.width, np.inf), np.full(self.width, -np.inf)
            self.middle = np.zeros(self.width)
            self.counts = np.zeros((3, len(POINTS), self.width))
        if self.axis is not None and (t.ndim <= self.axis or t.shape[self.axis] != self.width):
            self.lost = True  # another axis is open, and no slice is the same one in all samples
            return
        self._hear(t, s)
        if self.thin_axis is not None:
            self._look_for(t, s, self.thin_axis)
        first, second = (self._table(x) for x in (t, s))
        self.all.add(*(x.transpose(1, 0, 2).reshape(self.width, -1) for x in (first, second)))
        self._score(first, second)

    def _table(self, x: Floats) -> Floats:
        """(samples, slices, rows)."""
        if self.axis is None:
            return x.reshape(len(x), 1, -1)
        return np.moveaxis(x, self.axis, 1).reshape(len(x), self.width, -1)

    def _score(self, t: Floats, s: Floats) -> None:
        self.low, self.high = np.minimum(self.low, t.min((0, 2))), np.maximum(self.high, t.max((0, 2)))
        self.middle += ((t > 0.25) & (t < 0.75)).sum((0, 2))
        scores = self._scores()
        if not scores.any():
            return
        for at, point in enumerate(POINTS):
            yes, said = t > point, s > point
            self.counts[:, at] += np.stack([x.sum((0, 2)) for x in (yes & said, yes, said)])
        if not scores.all():
            rows = (t[:, scores] >= POINTS[1]).any(1)
            self.scoring.add(*(x.transpose(1, 0, 2)[:, rows] for x in (t, s)))
        above = (t > POINTS[0]).sum(2)
        for sample, one in zip(*np.nonzero(scores & (above > 0) & (above < t.shape[2])), strict=True):
            k = above[sample, one]
            best, other = (set(np.argpartition(-x[sample, one], k - 1)[:k].tolist()) for x in (t, s))
            self.ranks += int(k)
            self.ranked += len(best & other)

    def _hear(self, t: Floats, s: Floats) -> None:
        """Where it may be a signal."""
        tracks = 1 if t.ndim == 2 else self.width
        apart = t.ndim == 2 or self.axis is not None or 1 in t.shape[1:]
        if t.ndim > 3 or not apart or tracks > TRACKS or t[0].size < LONG * tracks:
            return
        first, second = (
            np.fft.rfft(x[:, None] if t.ndim == 2 else self._table(x), axis=-1) for x in (t, s)
        )  # (samples, tracks, bins)
        products = (np.square(np.abs(first)).sum(0), np.real(first * second.conj()).sum(0))
        for band, (start, end) in enumerate(_octaves(first.shape[-1])):
            self.bands[band] = self.bands.get(band, np.zeros((2, tracks))) + [x[:, start:end].sum(1) for x in products]

    def _look_for(self, t: Floats, s: Floats, axis: int) -> None:
        rows = [np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for x in (t, s)]
        if self.thin.sums.shape[1] not in (0, len(rows[0])):
            self.thin_axis, self.thin = None, _Sums()  # it is open, and no slice is the same one in all samples
            return
        self.thin.add(rows[0], rows[1])

    def _scores(self) -> npt.NDArray[np.bool_]:
        """Which slices look like scores, and score, by what was seen so far."""
        alike = (self.low >= -1e-6) & (self.high <= 1 + 1e-6) & (self.middle <= MIDDLE * max(self.all.rows, 1.0))
        return np.asarray((alike | self.decides) & (self.high >= POINTS[0]))

    def noise(self) -> float | None:
        """The mean over slices of the error's power as a share of the variance, at most 1; `None` where none varies."""
        bias, t, s, ts = self.all.moments()
        used = t > SILENT * t.max(initial=0.0)
        if self.lost or not used.any():
            return None
        return float(np.mean(np.clip((t + s - 2 * ts + bias * bias)[used] / t[used], 0.0, 1.0)))

    def scores_above(self, point: int) -> int:
        """How often the teacher scores above `POINTS[point]`."""
        return int(self.counts[1, point, self._scores()].sum())

    def worst(self, points: Sequence[float] = POINTS) -> Part | None:
        """The part that agrees least, with scores judged at `points`; `None` where no slice can be judged."""
        if self.lost:
            return None
        scores = self._scores()
        parts = [*self._decided(scores, points)]
        if not self.decides:
            parts += [*self._valued(~scores), *self._missing()]
            parts += [] if scores.any() and self.width > 1 else [*self._bands()]
        return min(parts, key=lambda part: part.share, default=None)

    def _decided(self, scores: npt.NDArray[np.bool_], points: Sequence[float]) -> Iterator[Part]:
        if not scores.any():
            return
        for at, point in enumerate(POINTS):
            both, yes, said = self.counts[:, at]
            if point not in points:
                continue
            if yes[scores].sum() + said[scores].sum() > 0:
                share = 2 * both[scores].sum() / (yes[scores].sum() + said[scores].sum())
                yield Part(float(share), f"scores at {point:g}", float(yes[scores].sum()))
            for one in np.flatnonzero(scores & (yes >= MANY)) if self.width > 1 else ():
                share = 2 * both[one] / (yes[one] + said[one])
                doubt = DOUBT * math.sqrt(share * (1 - share) / yes[one])
                yield Part(min(1.0, float(share + doubt)), f"{self._name(one)} at {point:g}", float(yes[one]))
        _, t, _, ts = self.all.moments()
        if t[scores].sum() > 0:
            yield self._gain(float(ts[scores].sum() / t[scores].sum()), "size of scores")
        if self.ranks >= MANY:
            yield Part(self.ranked / self.ranks, "ranking of scores", self.ranks)

    def _valued(self, values: npt.NDArray[np.bool_]) -> Iterator[Part]:
        sums = self.scoring if self.scoring.rows >= MANY else self.all
        if self.all.rows < max(MANY, 4 * self.width):
            return
        bias, t, s, ts = sums.moments()
        most = float(t[values].max(initial=0.0))
        for one in np.flatnonzero(values & (t > SILENT * most)):
            if t[one] < FAINT * most:
                yield self._gain(ts[one] / t[one], self._name(one))
                continue
            correlation = ts[one] / math.sqrt(t[one] * s[one]) if s[one] > 0 else 0.0
            share = min(correlation, 1 - min(1.0, abs(bias[one]) / math.sqrt(t[one])))
            yield Part(float(share), self._name(one), sums.rows)

    def _missing(self) -> Iterator[Part]:
        if self.thin_axis is None or self.thin.rows < MANY:
            return
        _, t, s, ts = self.thin.moments()
        seen = np.flatnonzero(t > SILENT * t.max(initial=0.0))
        gain = ts[seen] / t[seen]
        doubt = DOUBT * np.sqrt(np.maximum(s[seen] / t[seen] - gain * gain, 0.0) / self.thin.rows)
        for at in np.flatnonzero(gain + doubt < LOST):
            yield Part(max(0.0, float(gain[at])), f"[{':, ' * self.thin_axis}{seen[at]}]", self.thin.rows)

    def _bands(self) -> Iterator[Part]:
        power = sum((band[0] for band in self.bands.values()), np.zeros(1))
        for at, (own, shared) in self.bands.items():
            for track in np.flatnonzero(own > HEARD * np.maximum(power, FAINT * power.max())):
                which = f" of {self._name(track)}" if len(power) > 1 else ""
                yield self._gain(shared[track] / own[track], f"octave {at + 1} of the spectrum{which}")

    def _gain(self, gain: float, name: str) -> Part:
        return Part(1 - min(1.0, abs(1 - float(gain))), name, self.all.rows)

    def _name(self, one: int | np.integer) -> str:
        if self.axis is None:
            return "all of it"
        return f"[{':, ' * self.axis}{one}]"


def _small_axis(shape: tuple[int, ...]) -> int | None:
    """The axis whose slices are judged apart; `None` where the whole is one. Places of a map are no slices."""
    if len(shape) < 3:
        return 1 if len(shape) == 2 and 1 < shape[1] <= WIDEST else None
    each = math.prod(shape[1:])
    axes = range(1, len(shape)) if len(shape) == 3 else (1, len(shape) - 1)
    sizes = [(shape[axis], -axis) for axis in axes]
    if len(shape) > 3 and sizes[0][0] == 1 and sizes[1][0] > CHANNELS:
        return None
    fitting = [(size, axis) for size, axis in sizes if 1 < size <= WIDEST and each // size >= 4 * size]
    return -min(fitting)[1] if fitting else None


def _thin_axis(shape: tuple[int, ...]) -> int | None:
    """The axis whose slices are too many to be judged, though one that is lost can be told."""
    sizes = [(size, axis) for axis, size in enumerate(shape) if axis and 1 < size <= MOST]
    return min(sizes)[1] if 2 <= len(shape) <= 3 and sizes else None


def _octaves(bins: int) -> list[tuple[int, int]]:
    """From the highest down, without the mean."""
    ends = [bins]
    while ends[-1] > 8:
        ends.append(ends[-1] // 2)
    return [(low, high) for high, low in zip(ends, [*ends[1:], 1], strict=True)]
