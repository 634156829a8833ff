"""The sums of which one output is judged, and the figures that come of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .classes import classes
from .columns import Array
from .kinds import Kind
from .margins import Margins
from .slices import LOST, MANY, POINTS, Part, Slices

CEILING_DB = 200.0
"""The SQNR reported for equal outputs, whose noise is zero; the floor for a silent teacher is its negative."""
_TINY = 1e-12
UNSEEN = "nothing was compared: it is empty for every sample"
_ZERO = "nothing was compared: it is zero for every sample"
_SILENT = "nothing was compared: no sample reaches a score of 0.1"


@dataclass(frozen=True, slots=True)
class OutputAgreement:
    """One output. `top1`, `kl`, `kappa` and `equal` are `None` where the kind has none; shares are of 1, KL in nats.

    `equal` is the share of equal elements of a discrete output; `kappa` is given for many decisions a sample, and
    `expected` (`margins`: the top-1 agreement to expect on other samples) for one a sample. `broken` counts elements
    that only the student has as NaN or infinity, or has not at all. `worst` is the share of the slice that agrees
    least, `part` its name; `matched` the share of rows with a counterpart. `noise` is the error's power by slices, each
    as a share of its own variance. `single_class` tells that the teacher gave one class only. `remark` is what the user
    should know of how the output was judged. `count` is how many independent things the share is of, at most: samples
    where each is one answer, else the rows, scores or places that were compared; 0 where nothing was.
    """

    name: str
    kind: Kind
    sqnr_db: float | None = None
    cosine: float | None = None
    top1: float | None = None
    kl: float | None = None
    equal: float | None = None
    broken: int = 0
    kappa: float | None = None
    expected: float | None = None
    worst: float | None = None
    part: str = ""
    matched: float | None = None
    noise: float | None = None
    remark: str = ""
    single_class: bool = False
    count: float = 0.0

    @property
    def error(self) -> float:
        """The standard error of the share, as that of a share of `count` things."""
        return math.sqrt(max(self.share * (1 - self.share), 0.0) / max(self.count, 1.0))

    @property
    def measure(self) -> str:
        """What the share is of, in a word or two."""
        first = next((word for word, value in self._measures.items() if value is not None), "nothing compared")
        word = self.part if self.worst is not None and self.worst == self.share and self.part else first
        return f"{word} before the selection" if self.kind is Kind.BEFORE else word

    @property
    def _measures(self) -> dict[str, float | None]:
        """The measures by their words; the first that the kind has is the one that counts."""
        return {
            "rows matched": self.matched,
            "kappa": self.kappa,
            "top-1": self.top1,
            "equal values": self.equal,
            "cosine": self.cosine,
        }

    @property
    def share(self) -> float:
        """The agreement as one number, 1 for equal answers; NaN where nothing was compared."""
        measures = [value for value in self._measures.values() if value is not None][:1]
        return min([*measures, *([] if self.worst is None else [self.worst])], default=math.nan)

    @property
    def loss(self) -> float:
        """What passes try to make small: KL where the output decides, else the noise of its slices, and what the worst
        of them lacks."""
        if self.kl is not None:
            return self.kl
        if self.matched is not None:
            return 1.0 - self.matched
        lacking = 0.0 if self.worst is None else 1.0 - self.worst
        return lacking + (self.noise if self.noise is not None else 10 ** (-(self.sqnr_db or 0.0) / 10))


class Sums:
    """The running sums for one output."""

    __slots__ = (
        "name", "kind", "axis", "signal", "noise", "answer", "product", "rows", "agreed", "divergence", "broken",
        "elements", "dense", "answers", "margins", "slices",
    )  # fmt: skip

    def __init__(self, name: str, kind: Kind, axis: int = -1) -> None:
        self.name = name
        self.kind = kind
        self.axis = axis
        self.signal = self.noise = self.answer = self.product = self.divergence = 0.0
        self.rows = self.agreed = self.broken = self.elements = 0
        self.dense = False
        self.margins = Margins()
        self.slices = Slices(kind is Kind.DECISIONS)
        self.answers: npt.NDArray[np.int64] | None = None  # (3, classes): how often the two, and both, gave every class

    def add(self, teacher: Array | list[Array], student: Array | list[Array]) -> None:
        """One batch of this output from both; of a sequence, element by element."""
        if isinstance(teacher, list) or isinstance(student, list):
            if not isinstance(teacher, list) or not isinstance(student, list) or len(teacher) != len(student):
                self.rows += 1
                self.broken += 1
                return
            for one, other in zip(teacher, student, strict=True):
                self.add(one, other)
        elif isinstance(teacher, dict) or isinstance(student, dict):
            self._maps(teacher, student)
        elif teacher.dtype.kind in "fV" and self.kind is not Kind.DISCRETE:  # integers below a byte are of kind V, too
            self._floats(np.asarray(teacher, np.float64), np.asarray(student))
        elif teacher.shape == student.shape:
            self.rows += teacher.size
            self.agreed += int(np.count_nonzero(teacher == student))
            self.signal += float(np.count_nonzero(teacher))
        else:
            self.rows += teacher.size
            self.broken += teacher.size

    def _maps(self, teacher: object, student: object) -> None:
        """Two maps, such as a classifier's names of classes to their probabilities, by the keys of the first."""
        if isinstance(teacher, dict) and isinstance(student, dict) and teacher.keys() == student.keys():
            self.add(np.asarray(list(teacher.values())), np.asarray([student[key] for key in teacher]))
        else:
            self.rows += 1
            self.broken += 1

    def _floats(self, t: npt.NDArray[np.float64], answers: Array) -> None:
        if answers.shape != t.shape or answers.dtype.kind not in "fViub":
            self.broken += t.size
            s = np.zeros_like(t)
        else:
            s = answers.astype(np.float64)
        if not (np.isfinite(t).all() and np.isfinite(s).all()):
            finite = np.isfinite(t)
            bad = finite & ~np.isfinite(s)
            self.broken += int(np.count_nonzero(bad))
            s = np.where(finite & ~bad, s, 0.0)
            t = np.where(finite, t, 0.0)
        if not t.size:
            return
        self.elements += t.size
        error = t - s
        self.signal += float(np.vdot(t, t))
        self.noise += float(np.vdot(error, error))
        self.answer += float(np.vdot(s, s))
        self.product += float(np.vdot(t, s))
        if self.kind in (Kind.DECISIONS, Kind.VALUES):
            self.slices.add(t, s)
        if self.kind is Kind.DECISIONS:
            self.dense |= t.size > len(t) if t.ndim else False
            self._decided(t > 0.5, s > 0.5, 2)
            if not self.dense:
                self.margins.add(_two_logits(t.reshape(-1)), _two_logits(s.reshape(-1)))
            self.divergence += float(np.sum(_relative(t, s) + _relative(1 - t, 1 - s)))
        elif self.kind in (Kind.LOGITS, Kind.PROBABILITIES) and t.ndim:
            t, s = np.moveaxis(t, self.axis, -1), np.moveaxis(s, self.axis, -1)
            self.dense |= t.size > len(t) * t.shape[-1]
            self._decided(*classes(t, s, self.kind is Kind.LOGITS), t.shape[-1])
            single = not self.dense and t.shape[-1] > 1
            if self.kind is Kind.LOGITS:
                log_p, log_q = _log_softmax(t), _log_softmax(s)
                self.divergence += float(np.vdot(np.exp(log_p), log_p - log_q))
                if single:
                    self.margins.add(log_p.reshape(-1, t.shape[-1]), log_q.reshape(-1, t.shape[-1]))
            else:
                if single:
                    log_p, log_q = (np.log(np.maximum(x, _TINY)).reshape(-1, t.shape[-1]) for x in (t, s))
                    self.margins.add(log_p, log_q)
                self.divergence += float(np.sum(_relative(t, s)))

    def _decided(self, teacher: Array, student: Array, classes: int) -> None:
        """Count two arrays of class numbers."""
        self.rows += teacher.size
        self.agreed += int(np.count_nonzero(teacher == student))
        both = teacher[teacher == student]
        counts = np.stack(
            [np.bincount(a.reshape(-1).astype(np.intp), minlength=classes) for a in (teacher, student, both)]
        )
        if self.answers is not None:  # the number of classes may differ from sample to sample
            width = max(counts.shape[1], self.answers.shape[1])
            counts, before = (np.pad(a, ((0, 0), (0, width - a.shape[1]))) for a in (counts, self.answers))
            counts = counts + before
        self.answers = counts

    def _chance(self) -> float | None:
        """How many of many decisions a sample would be equal by chance."""
        if not self.dense or self.answers is None or not self.rows:
            return None
        return float(np.prod(self.answers[:2] / self.rows, axis=0).sum())

    def _kappa(self) -> float | None:
        chance = self._chance()
        if chance is None:
            return None
        share = self.agreed / self.rows
        return 1.0 if share == 1.0 else (share - chance) / max(1.0 - chance, _TINY)

    def _count(self, worst: Part | None, kappa: float | None) -> float:
        """How many things the share is of; those that chance would have equal tell nothing."""
        if worst is not None and (kappa is None or worst.share < kappa):
            return worst.count
        return (self.rows or self.elements) * (1.0 - (self._chance() or 0.0))

    def result(self) -> OutputAgreement:
        share = self.agreed / self.rows if self.rows else None
        if self.kind is Kind.DISCRETE:
            remark = "" if self.rows and (self.signal or self.agreed < self.rows) else _ZERO if self.rows else UNSEEN
            equal = None if remark else share
            return OutputAgreement(
                self.name, self.kind, equal=equal, broken=self.broken, remark=remark, count=self.rows
            )
        decides = self.kind is not Kind.VALUES and self.rows > 0
        worst, remark = self._sliced()
        kappa = math.nan if remark and decides else self._kappa()
        return OutputAgreement(
            self.name,
            self.kind,
            sqnr_db=decibel(self.signal, self.noise) if self.elements and remark != _ZERO else None,
            cosine=_cosine(self.product, self.signal, self.answer) if self.elements and remark != _ZERO else None,
            top1=share if decides else None,
            kl=max(0.0, self.divergence / self.rows) if decides else None,
            broken=self.broken,
            kappa=kappa,
            expected=None if self.dense else self.margins.expected(),
            worst=None if worst is None else worst.share,
            part="" if worst is None else worst.name,
            noise=self.slices.noise() if self.kind is Kind.VALUES else None,
            remark=remark,
            single_class=decides and self.answers is not None and bool((self.answers[0] == self.rows).any()),
            count=self._count(worst, kappa),
        )

    def _sliced(self) -> tuple[Part | None, str]:
        """The part that agrees least, and what is to be said of it."""
        if not self.elements:
            return None, UNSEEN
        if self.kind is Kind.VALUES:
            return (None, _ZERO) if self.signal == 0 == self.noise else (self.slices.worst(), "")
        if self.kind is not Kind.DECISIONS:
            return self._lost_class(), ""
        if not self.dense or self.slices.lost:
            return None, ""
        if self.slices.scores_above(2) >= MANY:
            return self.slices.worst(POINTS[2:]), ""
        silent = not self.slices.scores_above(0) and self.agreed == self.rows
        return self.slices.worst(), _SILENT if silent else ""

    def _lost_class(self) -> Part | None:
        """Of many decisions a sample, the class that the student hardly gives where the teacher does."""
        if not self.dense or self.answers is None:
            return None
        yes, said, both = self.answers.astype(np.float64)
        shares = 2 * both / np.maximum(yes + said, 1.0)
        worst = int(np.argmin(np.where(yes >= MANY, shares, 1.0)))
        lost = yes[worst] >= MANY and shares[worst] < LOST
        return Part(float(shares[worst]), f"class {worst}", float(yes[worst])) if lost else None


def decibel(signal: float, noise: float) -> float:
    """10 log10(signal / noise), within plus and minus `CEILING_DB`."""
    if noise == 0:
        return CEILING_DB
    if signal == 0:
        return -CEILING_DB
    return max(-CEILING_DB, min(CEILING_DB, 10 * math.log10(signal / noise)))


def _cosine(product: float, signal: float, answer: float) -> float:
    if signal == 0 or answer == 0:
        return 1.0 if signal == answer else 0.0
    return max(-1.0, min(1.0, product / math.sqrt(signal) / math.sqrt(answer)))


def _relative(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """p (log p - log q), where a q of zero counts as a tiny one and a p of zero contributes nothing."""
    return np.asarray(p * (np.log(np.maximum(p, _TINY)) - np.log(np.maximum(q, _TINY))))


def _two_logits(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Log-probabilities (rows, 2) of no and yes."""
    return np.log(np.maximum(np.stack([1.0 - p, p], axis=1), _TINY))


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
