"""A model that others are compared with again and again, over the same samples: it is asked once.

What it answers is kept, within a bound, and so is how far each student agreed, by the digest of its graph: a graph that
was judged is not run again, and one that is the model itself never. Where outputs depend on what is selected on the way
(`before_selection`), both run anew, since what is asked of the model depends on the student.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.graph import Graph
from ..ir.text.snapshot import digest
from .agreement import Agreement, AnswerJudge, agreement
from .columns import Array
from .parallel import imap, threads_each, threads_for
from .samples import Feeds, Samples
from .session import Session

KEPT = 32 << 20
"""Bytes of answers that are kept; what is beyond is computed anew each time."""
BATCH = 8

Answers = list[Array]


class Original:
    """`graph`, which must not be edited, as it answers `samples`, on so many `threads` (0: all cores)."""

    def __init__(self, graph: Graph, samples: Samples, *, threads: int = 0) -> None:
        self.graph = graph
        self.samples = samples
        self._threads = threads_for(graph, threads)
        self._digest = digest(graph)
        self._answers: list[Answers] = []
        self._room = KEPT
        self._whole = False
        """Whether the answers to all samples are kept."""
        self._known: dict[tuple[str, bool], Agreement] = {}

    def agreement(self, student: Graph, *, exact: bool = False) -> Agreement:
        """How far `student` agrees; `exact` is that of its `Session`. Raises as `runtime.agreement.agreement` does."""
        key = digest(student), exact
        if key not in self._known:
            self._known[key] = self._judged(student, exact, itself=key == (self._digest, False))
        return self._known[key]

    def _judged(self, student: Graph, exact: bool, *, itself: bool) -> Agreement:
        judge = AnswerJudge(self.graph)
        if judge.picked:
            return agreement(self.graph, student, self.samples, threads=self._threads, exact=exact)
        count = 0
        for size, answers, other in self._both(student, exact, itself):
            judge.add(answers, other)
            count += size
        return Agreement(count, judge.results())

    def _both(self, student: Graph, exact: bool, itself: bool) -> Iterator[tuple[int, Answers, Answers]]:
        """Batch by batch the number of samples, what the model answers, and what `student` does."""
        threads = threads_for(student, self._threads)
        each = threads_each(threads)
        model = None if self._whole else Session(self.graph, threads=each, spins=False)
        other = None if itself else Session(student, threads=each, exact=exact, spins=False)

        def work(item: tuple[int, Feeds]) -> tuple[int, Answers, Answers]:
            number, feeds = item
            if number < len(self._answers):
                answers = self._answers[number]
            else:
                assert model is not None
                answers = model.run(feeds)
            return self.samples.size_of(feeds), answers, answers if other is None else other.run(feeds)

        number = -1
        for number, (size, answers, said) in enumerate(imap(work, enumerate(self.samples.batches(BATCH)), threads)):
            self._keep(number, answers)
            yield size, answers, said
        self._whole = number + 1 == len(self._answers)

    def _keep(self, number: int, answers: Answers) -> None:
        size = sum(getattr(array, "nbytes", KEPT) for array in answers)
        if number == len(self._answers) and size <= self._room:
            self._room -= size
            # An answer of ONNX Runtime may keep the memory of its whole session.
            self._answers.append([array.copy() for array in answers])
