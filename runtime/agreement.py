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

from ..ir.graph import Graph, Value
from .before_selection import as_table, both, selected_from
from .columns import Array
from .kinds import Kind, output_axis, output_kind
from .rows import Rows, ranked, selected, standing
from .samples import Samples
from .session import Runnable, Session
from .sums import UNSEEN, OutputAgreement, Sums

FEW = 32
"""Samples below which a share of them tells little."""


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
            return OutputAgreement(name, Kind.ROWS, remark=UNSEEN)
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
