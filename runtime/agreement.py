"""How far a student answers as its teacher does, without labels.

Streamed over samples in batches; only sums are kept. Every float output is measured by signal-to-noise ratio,
10 log10(sum t^2 / sum (t - s)^2), and cosine, (t . s) / (|t| |s|). Where an output decides between classes, also by
top-1 agreement and KL(teacher || student) = sum p (log p - log q), in nats, averaged over rows. What an output is
follows from how the teacher computes it:

- a Softmax at the end: probabilities along its axis;
- a Sigmoid at the end: independent yes/no probabilities, decided at one half;
- a MatMul, Gemm or Conv at the end, seen through bias, reshapes and pooling, of shape [rows, classes], or a MatMul or
  Gemm of any rank: logits along the last axis, of which the softmax is compared;
- else plain values. Integers, booleans and strings count by how many are equal.

Where every sample is decided at many places (pixels, anchor boxes, labels), nearly all of them may be background, and a
student that finds nothing would agree nearly everywhere. So such outputs are also measured by Cohen's kappa (1960),
(p - e) / (1 - e) with p the share of equal answers and e what it would be if the two answered independently, each as
often with every class as it does.

Where the student gives NaN or infinity and the teacher a number, the student's answer counts as zero, and is counted.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..ir.graph import Graph, Value
from .columns import Array
from .margins import Margins
from .samples import Samples
from .session import Runnable, Session

CEILING_DB = 200.0
"""The SQNR reported for equal outputs, whose noise is zero; the floor for a silent teacher is its negative."""

_RECODED = frozenset({"Identity", "Cast", "Dropout", "DequantizeLinear", "QuantizeLinear"})
_PASSED = _RECODED | {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
_POOLED = frozenset({"GlobalAveragePool", "ReduceMean", "AveragePool", "Relu", "Clip", "BatchNormalization"})
_TINY = 1e-12


class Kind(enum.StrEnum):
    """What an output says."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"
    DECISIONS = "decisions"
    VALUES = "values"
    DISCRETE = "discrete"


@dataclass(frozen=True, slots=True)
class OutputAgreement:
    """One output. `top1`, `kl`, `kappa` and `equal` are `None` where the kind has none; shares are of 1, KL in nats.

    `equal` is the share of equal elements of a discrete output; `kappa` is given for many decisions a sample, and
    `expected` (`margins`: the top-1 agreement to expect on other samples) for one a sample. `broken` counts elements
    that only the student has as NaN or infinity, or has not at all.
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

    @property
    def share(self) -> float:
        """The agreement as one number, 1 for a student that answers as the teacher does."""
        for measure in (self.kappa, self.top1, self.equal, self.cosine):
            if measure is not None:
                return measure
        return 1.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """All outputs, in the graph's order, over `samples` samples."""

    samples: int
    outputs: tuple[OutputAgreement, ...]

    @property
    def share(self) -> float:
        """The share of the worst output."""
        return min((o.share for o in self.outputs), default=1.0)

    @property
    def cautious(self) -> float:
        """The share of the worst output, or what is to be expected of it on other samples where that is less."""
        return min((min(o.share, 1.0 if o.expected is None else o.expected) for o in self.outputs), default=1.0)

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
    first = teacher if isinstance(teacher, Session) else Session(teacher, threads=threads)
    second: Runnable = Session(student, threads=threads, exact=exact) if isinstance(student, Graph) else student
    sums = [Sums(o.name, output_kind(o.value), output_axis(o.value)) for o in first.graph.outputs]
    count = 0
    for feeds in samples.batches(batch):
        for total, t, s in zip(sums, first.run(feeds), second.run(feeds), strict=True):
            total.add(t, s)
        count += samples.size_of(feeds)
    return Agreement(count, tuple(total.result() for total in sums))


def output_kind(value: Value) -> Kind:
    """What the output `value` says; see the rules above."""
    if value.dtype is not None and not value.dtype.is_float:
        return Kind.DISCRETE
    rank = None if value.shape is None else len(value.shape)
    pooled = False
    at: Value | None = value
    while at is not None and at.producer is not None:
        node = at.producer
        if node.op == "Softmax":
            return Kind.PROBABILITIES
        if node.op == "Sigmoid":
            return Kind.DECISIONS
        if node.op == "LogSoftmax":
            return Kind.LOGITS
        if node.op in ("MatMul", "Gemm") or (node.op == "Conv" and rank == 2):
            single = not value.shape or value.shape[-1] == 1 or len(value.shape) < 2
            return Kind.VALUES if single or (pooled and rank != 2) else Kind.LOGITS
        if node.op == "Add" and any(v is not None and v.constant is not None for v in node.inputs):
            at = next(v for v in node.inputs if v is not None and v.constant is None)
        elif node.op in _PASSED or node.op in _POOLED:
            pooled |= node.op in _POOLED
            at = node.input(0)
        else:
            break
    return Kind.VALUES


def output_axis(value: Value) -> int:
    """The axis along which a deciding output holds its classes: the last, or the Softmax's own."""
    node = value.producer
    while node is not None and node.op in _RECODED and (source := node.input(0)) is not None:
        node = source.producer
    if node is None or node.op not in ("Softmax", "LogSoftmax") or node.graph is None:
        return -1
    opset = node.graph.opset()
    # Before opset 13 Softmax normalised everything from `axis` on; that is one axis only where it is the last.
    return node.get_int("axis", -1) if opset >= 13 else -1


class Sums:
    """The running sums for one output."""

    __slots__ = (
        "name", "kind", "axis", "signal", "noise", "answer", "product", "rows", "agreed", "divergence", "broken",
        "dense", "answers", "margins",
    )  # fmt: skip

    def __init__(self, name: str, kind: Kind, axis: int = -1) -> None:
        self.name = name
        self.kind = kind
        self.axis = axis
        self.signal = self.noise = self.answer = self.product = self.divergence = 0.0
        self.rows = self.agreed = self.broken = 0
        self.dense = False
        self.margins = Margins()
        self.answers: npt.NDArray[np.int64] | None = None  # (2, classes): how often each of the two gave every class

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
        elif teacher.dtype.kind in "fV":
            self._floats(np.asarray(teacher, np.float64), np.asarray(student))
        elif teacher.shape == student.shape:
            self.rows += teacher.size
            self.agreed += int(np.count_nonzero(teacher == student))
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

    def _floats(self, t: npt.NDArray[np.float64], given: Array) -> None:
        if given.shape != t.shape or given.dtype.kind not in "fViub":
            self.broken += t.size
            s = np.zeros_like(t)
        else:
            s = given.astype(np.float64)
        if not (np.isfinite(t).all() and np.isfinite(s).all()):
            told = np.isfinite(t)
            bad = told & ~np.isfinite(s)
            self.broken += int(np.count_nonzero(bad))
            s = np.where(told & ~bad, s, 0.0)
            t = np.where(told, t, 0.0)
        if not t.size:
            return
        error = t - s
        self.signal += float(np.vdot(t, t))
        self.noise += float(np.vdot(error, error))
        self.answer += float(np.vdot(s, s))
        self.product += float(np.vdot(t, s))
        if self.kind is Kind.DECISIONS:
            self.dense |= t.size > len(t) if t.ndim else False
            self._decided(t > 0.5, s > 0.5, 2)
            if not self.dense:
                self.margins.add(_two_logits(t.reshape(-1)), _two_logits(s.reshape(-1)))
            self.divergence += float(np.sum(_relative(t, s) + _relative(1 - t, 1 - s)))
        elif self.kind in (Kind.LOGITS, Kind.PROBABILITIES) and t.ndim:
            t, s = np.moveaxis(t, self.axis, -1), np.moveaxis(s, self.axis, -1)
            self.dense |= t.size > len(t) * t.shape[-1]
            self._decided(t.argmax(-1), s.argmax(-1), t.shape[-1])
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
        counts = np.stack([np.bincount(a.reshape(-1).astype(np.intp), minlength=classes) for a in (teacher, student)])
        if self.answers is not None:  # the number of classes may differ from sample to sample
            width = max(counts.shape[1], self.answers.shape[1])
            counts, before = (np.pad(a, ((0, 0), (0, width - a.shape[1]))) for a in (counts, self.answers))
            counts = counts + before
        self.answers = counts

    def _kappa(self) -> float | None:
        if not self.dense or self.answers is None or not self.rows:
            return None
        chance = float(np.prod(self.answers / self.rows, axis=0).sum())
        share = self.agreed / self.rows
        return 1.0 if share == 1.0 else (share - chance) / max(1.0 - chance, _TINY)

    def result(self) -> OutputAgreement:
        share = self.agreed / self.rows if self.rows else 1.0
        if self.kind is Kind.DISCRETE:
            return OutputAgreement(self.name, self.kind, equal=share, broken=self.broken)
        decides = self.kind is not Kind.VALUES and self.rows > 0
        return OutputAgreement(
            self.name,
            self.kind,
            sqnr_db=decibel(self.signal, self.noise),
            cosine=_cosine(self.product, self.signal, self.answer),
            top1=share if decides else None,
            kl=max(0.0, self.divergence / self.rows) if decides else None,
            broken=self.broken,
            kappa=self._kappa(),
            expected=None if self.dense else self.margins.expected(),
        )


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
