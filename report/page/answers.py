"""Teacher against student, sample by sample: which answers moved, and which samples disagree most.

One output is looked at, the one that agrees least. Where it decides between classes, a row of scores is one answer:
counted are the pairs (teacher's class, student's class), and a sample's gap is KL(teacher || student) in nats, averaged
over its rows. Of values the gap is |t - s| / |t|, of discrete ones the share that differs. Streamed; kept are counts,
one gap a sample, some points, and small pictures of the samples that disagree most.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ...runtime.columns import Array
from ...runtime.kinds import Kind, output_axis, output_kind
from ...runtime.samples import Feeds, Samples
from ...runtime.session import Session
from .marks import Box, boxes_of, map_of
from .png import thumbnail

_POINTS = 1200
"""Points of a scatter plot, at most."""
_WORST = 8
_BEST = 5
"""Classes of a sample that are named."""
_BATCH = 32
_TINY = 1e-12
_SAME = "the same ones"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Case:
    """One held-out sample. `gap` says how far the answers of `teacher` and `student` are apart; `moved` whether the
    class changed."""

    index: int
    gap: float
    teacher: str
    student: str
    moved: bool = False
    picture: Array | None = None
    maps: tuple[Array, ...] = ()
    """Of both models, where the output is a map."""
    boxes: tuple[tuple[Box, ...], ...] = ()
    """Of both models, where the output holds boxes."""


@dataclass(slots=True)
class Answers:
    """What the two said of one output. `moves` counts (teacher's class, student's class) over `rows` rows;
    `points` are pairs (teacher, student): of values themselves, or of the probability of the teacher's class, and
    `moved` tells of each such pair whether the class changed."""

    output: str
    kind: Kind
    samples: int = 0
    rows: int = 0
    moves: Counter[tuple[int, int]] = field(default_factory=Counter)
    points: list[tuple[float, float]] = field(default_factory=list)
    moved: list[bool] = field(default_factory=list)
    worst: list[Case] = field(default_factory=list)

    @property
    def agreed(self) -> int:
        """Rows on which both chose the same class."""
        return sum(count for (one, other), count in self.moves.items() if one == other)


def answers(teacher: Session, student: Session, samples: Samples, index: int, name: str) -> Answers:
    """Run both on `samples` and compare output `index`, called `name`. Raises `TargetError` where a run fails."""
    value = teacher.graph.outputs[index].value
    compared = Answers(name, output_kind(value))
    axis = output_axis(value)
    share = max(1, _POINTS // max(samples.count, 1))
    rng = np.random.default_rng(0)
    for feeds in samples.batches(_BATCH):
        count = samples.size_of(feeds)
        t, s = teacher.run(feeds)[index], student.run(feeds)[index]
        parts = count if t.ndim and t.shape[0] == count else 1
        if t.shape != s.shape:
            return compared
        for row in range(parts):
            one, other = (t[row : row + 1], s[row : row + 1]) if parts > 1 else (t, s)
            gap, said, answered = _compare(compared, one, other, axis, share, rng)
            _keep(compared, gap, (said, answered), (one, other), axis, feeds, samples, row, parts)
        compared.samples += count
    return compared


def _compare(
    compared: Answers, teacher: Array, student: Array, axis: int, share: int, rng: np.random.Generator
) -> tuple[float, str, str]:
    """Count one sample in; returns its gap and both answers in words."""
    if compared.kind is Kind.DISCRETE:
        compared.rows += teacher.size
        differ = np.asarray(teacher != student)
        return float(differ.mean()) if differ.size else 0.0, _short(teacher), _short(student)
    t, s = np.nan_to_num(teacher.astype(np.float64)), np.nan_to_num(student.astype(np.float64))
    if compared.kind in (Kind.LOGITS, Kind.PROBABILITIES) and t.ndim:
        return _classes(compared, np.moveaxis(t, axis, -1), np.moveaxis(s, axis, -1), share, rng)
    if compared.kind is Kind.DECISIONS:
        yes, no = (t > 0.5).ravel(), (s > 0.5).ravel()
        compared.rows += t.size
        compared.moves.update(zip(yes.astype(int).tolist(), no.astype(int).tolist(), strict=True))
    at = rng.choice(t.size, min(share, t.size), replace=False)
    compared.points += zip(t.ravel()[at].tolist(), s.ravel()[at].tolist(), strict=True)
    compared.moved += (yes[at] != no[at]).tolist() if compared.kind is Kind.DECISIONS else [False] * len(at)
    gap = float(np.linalg.norm(t - s) / max(float(np.linalg.norm(t)), _TINY))
    return gap, _short(teacher), _short(student)


def _classes(compared: Answers, t: Floats, s: Floats, share: int, rng: np.random.Generator) -> tuple[float, str, str]:
    t, s = t.reshape(-1, t.shape[-1]), s.reshape(-1, s.shape[-1])
    p, q = (_softmax(t), _softmax(s)) if compared.kind is Kind.LOGITS else (t, s)
    one, other = t.argmax(-1), s.argmax(-1)
    compared.rows += len(t)
    compared.moves.update(zip(one.tolist(), other.tolist(), strict=True))
    rows = np.arange(len(t))
    at = rng.choice(len(t), min(share, len(t)), replace=False)
    compared.points += zip(p[rows, one][at].tolist(), q[rows, one][at].tolist(), strict=True)
    compared.moved += (one != other)[at].tolist()
    gap = np.sum(p * (np.log(np.maximum(p, _TINY)) - np.log(np.maximum(q, _TINY))), -1)
    if len(t) > 1:
        moved = int(np.count_nonzero(one != other))
        return float(gap.mean()), f"{len(t):,} answers", f"{moved:,} of them another class" if moved else _SAME
    return float(gap[0]), _best(p[0]), _best(q[0])


def _best(scores: Floats) -> str:
    """The classes with the highest probabilities: `class 3 (97.1 %), 5 (1.2 %), …`."""
    order = np.argsort(-scores, kind="stable")[:_BEST]
    return "class " + ", ".join(f"{at} ({100 * scores[at]:.1f}\u00a0%)" for at in order)


def _keep(
    compared: Answers,
    gap: float,
    words: tuple[str, str],
    outputs: tuple[Array, Array],
    axis: int,
    feeds: Feeds,
    samples: Samples,
    row: int,
    parts: int,
) -> None:
    """Note the sample where it is among those that disagree most."""
    if len(compared.worst) == _WORST and gap <= compared.worst[-1].gap:
        return
    said, answered = words
    moved = said.split(" (")[0] != answered.split(" (")[0] and answered != _SAME
    sample = _pictured(feeds, samples, row, parts)
    picture = None if sample is None else thumbnail(sample)
    maps = [map_of(one, compared.kind, axis) for one in outputs]
    boxes: tuple[tuple[Box, ...], ...] = ()
    if sample is not None:
        size = sample.shape[1:] if sample.shape[0] in (1, 3) else sample.shape[:2]
        boxes = tuple(boxes_of(one, (int(size[0]), int(size[1]))) for one in outputs)
    drawn = tuple(one for one in maps if one is not None)
    case = Case(compared.samples + row, gap, said, answered, moved, picture, drawn, boxes if any(boxes) else ())
    compared.worst = sorted((*compared.worst, case), key=lambda one: -one.gap)[:_WORST]


def _pictured(feeds: Feeds, samples: Samples, row: int, parts: int) -> Array | None:
    """The input of one sample that is a picture, if any."""
    for name, array in feeds.items():
        axis = samples.axes[name]
        single = array[0] if axis is None and array.ndim == 4 and len(array) == 1 else array
        sample = np.asarray(single if axis is None else np.take(array, row if parts > 1 else 0, axis))
        if thumbnail(sample) is not None:
            return sample
    return None


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def _short(array: Array) -> str:
    """The first few elements, as a person reads them."""
    flat = array.reshape(-1)[:4]
    more = ", …" if array.size > 4 else ""
    return ", ".join(f"{one:.4g}" if array.dtype.kind == "f" else str(one) for one in flat) + more
