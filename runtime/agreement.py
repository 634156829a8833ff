"""How far a student answers as its teacher does, without labels.

Streamed over samples in batches; only sums are kept. Every float output is measured by signal-to-noise ratio,
10 log10(sum t^2 / sum (t - s)^2), and cosine, (t . s) / (|t| |s|). Where an output decides between classes, also by
top-1 agreement (what the teacher holds for a tie counts for both: `classes.py`) and KL(teacher || student) =
sum p (log p - log q), in nats, averaged over rows. What an output is follows from how the teacher computes it
(`kinds.py`). Integers, booleans and strings count by how many are equal.

One figure over a whole tensor hides what is small in it, so values and decisions are also judged slice by slice
(`slices.py`), and the worst counts. Outputs whose order or length depends on the data, as those of NonMaxSuppression
do, are judged by what these select from (`before_selection.py`) or matched row by row (`rows.py`). Where no sample had
anything to compare, there is no figure: a share of NaN, which meets no floor.

Where every sample is decided at many places (pixels, anchor boxes, labels), nearly all of them may be background, and a
student that finds nothing would agree nearly everywhere. So such outputs are also measured by Cohen's kappa (1960),
(p - e) / (1 - e) with p the share of equal answers and e what it would be if the two answered independently, each as
often with every class as it does. A class that is given at hardly a place where the teacher gives it (`LOST`), of at
least `MANY`, is named, and its share counts, however rare it is.

Where the student gives NaN or infinity and the teacher a number, the student's answer counts as zero, and is counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..ir.graph import Graph, Value
from .before_selection import as_table, both, selected_from
from .classes import classes
from .columns import Array
from .kinds import Kind, output_axis, output_kind
from .margins import Margins
from .rows import Rows, ranked, selected, standing
from .samples import Samples
from .session import Runnable, Session
from .slices import LOST, MANY, POINTS, Part, Slices

CEILING_DB = 200.0
"""The SQNR reported for equal outputs, whose noise is zero; the floor for a silent teacher is its negative."""

FEW = 32
"""Samples below which a share of them tells little."""
_TINY = 1e-12
_UNSEEN = "nothing was compared: it is empty for every sample"
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


@dataclass(frozen=True, slots=True)
class Agreement:
    """All outputs, in the graph's order, over `samples` samples."""

    samples: int
    outputs: tuple[OutputAgreement, ...]

    @property
    def share(self) -> float:
        """The share of the worst output; NaN where there are outputs, and nothing of them was compared."""
        return min((o.share for o in self.compared), default=math.nan if self.outputs else 1.0)

    @property
    def measure(self) -> str:
        """What the share is of."""
        worst = min(self.compared, key=lambda output: output.share, default=None)
        return "nothing compared" if worst is None else worst.measure

    @property
    def compared(self) -> list[OutputAgreement]:
        """The outputs that have a share."""
        return [o for o in self.outputs if not math.isnan(o.share)]

    @property
    def remarks(self) -> list[str]:
        """What the user should know of how outputs were judged, a sentence each."""
        names: dict[str, list[str]] = {}
        for output in self.outputs:
            names.setdefault(output.remark, []).append(f"'{output.name}'")
        lines = [f"of {', '.join(of)} {remark}" for remark, of in names.items() if remark]
        one_class = [f"'{output.name}'" for output in self.outputs if output.single_class]
        if one_class:
            lines.append(
                f"the original answers {', '.join(one_class)} with one class for all {self.samples} samples, "
                "so agreement tells little; give samples of several classes"
            )
        if self.samples < FEW and any(output.top1 is not None and output.kappa is None for output in self.outputs):
            lines.append(
                f"{self.samples} samples are too few to tell agreements apart that differ by less than "
                f"{100 / max(self.samples, 1):.0f} %; give more"
            )
        return lines

    @property
    def cautious(self) -> float:
        """The share of the worst output, or what is to be expected of it on other samples where that is less."""
        expected = [o.share if o.expected is None else min(o.share, o.expected) for o in self.compared]
        return min(expected, default=self.share)

    @property
    def top1(self) -> float | None:
        """The lowest top-1 agreement of the outputs that decide."""
        return min((o.top1 for o in self.outputs if o.top1 is not None), default=None)

    @property
    def kl(self) -> float | None:
        """The highest KL of the outputs that decide."""
        return max((o.kl for o in self.outputs if o.kl is not None), default=None)

    @property
    def sqnr_db(self) -> float | None:
        """The lowest signal-to-noise ratio of the float outputs."""
        return min((o.sqnr_db for o in self.outputs if o.sqnr_db is not None), default=None)


def agreement(
    teacher: Graph | Session,
    student: Graph | Runnable,
    samples: Samples,
    *,
    batch: int = 8,
    threads: int = 0,
    exact: bool = False,
) -> Agreement:
    """Run both on all `samples`. A session may be given where it is used again; its outputs must be its graph's.
    `exact` is that of `Session`, for a student that is a graph.

    Raises `DataError` for bad samples and `TargetError` where a graph does not run.
    """
    graph = teacher if isinstance(teacher, Graph) else teacher.graph
    judge = AnswerJudge(graph)
    before = selected_from(graph, student) if judge.picked and isinstance(student, Graph) else None
    first = teacher if isinstance(teacher, Session) else Session(teacher, threads=threads)
    second: Runnable = Session(student, threads=threads, exact=exact) if isinstance(student, Graph) else student
    if before is not None and isinstance(student, Graph):
        judge.judge_before(before[0])
        first = Session(graph, outputs=both(graph, before[0]), threads=threads)
        second = Session(student, outputs=both(student, before[1]), threads=threads, exact=exact)
    count = 0
    for feeds in samples.batches(1 if judge.picked else batch):
        judge.add(first.run(feeds), second.run(feeds))
        count += samples.size_of(feeds)
    return Agreement(count, judge.results())


class AnswerJudge:
    """What is summed of all outputs of `teacher`, the outputs numbered in `picked` together, as rows to be matched, or
    by the values that they are selected from."""

    def __init__(self, teacher: Graph) -> None:
        self.outputs = teacher.outputs
        self.picked = selected(teacher)
        upright, flat = (
            frozenset(i for i, number in enumerate(self.picked) if number in numbers)
            for numbers in (standing(teacher), ranked(teacher))
        )
        self._rows = Rows(upright, flat)
        self._sums = {
            number: Sums(o.name, output_kind(o.value), output_axis(o.value))
            for number, o in enumerate(teacher.outputs)
            if number not in self.picked
        }
        self._before: list[Sums] = []
        self._table: list[Sums] = []

    def judge_before(self, values: Sequence[Value]) -> None:
        """Judge what is `picked` by `values`, which come behind the outputs."""
        self._before = [Sums(value.name, output_kind(value), output_axis(value)) for value in values]
        self._table = [Sums("' and '".join(value.name for value in values), Kind.VALUES)]

    def add(self, teacher: Sequence[Array | list[Array]], student: Sequence[Array | list[Array]]) -> None:
        """One batch of all outputs from both; where any is `picked`, a single sample."""
        for number, total in self._sums.items():
            total.add(teacher[number], student[number])
        if self.picked:
            self._rows.add(*([np.asarray(outputs[i]) for i in self.picked] for outputs in (teacher, student)))
        before = [[np.asarray(array) for array in arrays[len(self.outputs) :]] for arrays in (teacher, student)]
        tables = [as_table(arrays) for arrays in before] if self._before else [None]
        if any(table is None for table in tables):
            self._table = []
        for total, one, other in zip(self._before, *before, strict=False):
            total.add(one, other)
        for total in self._table:
            total.add(*tables)

    def results(self) -> tuple[OutputAgreement, ...]:
        return tuple(
            self._sums[number].result() if number in self._sums else self._selected(output.name)
            for number, output in enumerate(self.outputs)
        )

    def _selected(self, name: str) -> OutputAgreement:
        if self._rows.share is None:
            return OutputAgreement(name, Kind.ROWS, remark=_UNSEEN)
        values = [total.result() for total in self._table or self._before]
        silent = any(not total.slices.scores_above(0) for total in self._table)
        if not values or silent or any(math.isnan(one.share) for one in values):
            count = (self._rows.teacher + self._rows.student) / 2
            return OutputAgreement(name, Kind.ROWS, matched=self._rows.share, count=count)
        worst = min(values, key=lambda one: one.share)
        if self._table:  # where nothing scores, a box may be anywhere
            worst = replace(worst, cosine=None)
        part = f"'{worst.name}'" + f", {worst.part}" * bool(worst.part)
        return replace(worst, name=name, kind=Kind.BEFORE, part=part)


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
            remark = "" if self.rows and (self.signal or self.agreed < self.rows) else _ZERO if self.rows else _UNSEEN
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
            return None, _UNSEEN
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
