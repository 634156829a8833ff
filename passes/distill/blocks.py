"""The student block by block: each on what the student itself brings to it, towards what the teacher has behind it.

In the order of the network, as the walk goes (Bai et al. 2023, "Unified data-free compression"; Li et al. 2021,
"BRECQ"): a block repairs what the blocks before it still lack. What the teacher and the student have at its two ends is
kept for some samples and views of them, so that a step is the forward and backward pass of a few layers, and the
teacher does not run. A block stays only where the model as a whole then answers held-out samples better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Graph, Value
from ...runtime.samples import Samples
from ...runtime.session import Session
from ...runtime.training.parameters import Floats, Parameters
from ..base import Context
from ..recall import count
from .batches import TaughtRows
from .cuts import FED, Block, blocks, part
from .loss import Term, channel_axis, least_variance, variance_of
from .parameters import Parameter
from .training import RATES, Training, onward, trainer_of, trial_of
from .views import Views

KEPT = 256 << 20
"""Bytes of values that are kept at one end of a block."""
TIMES = 4
"""How often a sample is kept at most: as it is, and under views."""
JUDGES = 128
"""Held-out samples that judge a block by itself."""
STEPS = 24
"""Steps by which the time of a step is measured; a stage that has fewer for each block is left out."""
RUN = 32
"""Samples that are run at a time."""

Offer = Callable[[Floats], bool]
"""Judges parameters of the whole student, and keeps them where they are better."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long each block learns: so many steps, or the whole stage so many seconds."""

    steps: int
    seconds: float


@dataclass(slots=True)
class _End:
    """What teacher and student have at one value, for samples to learn from and held-out ones."""

    student: Floats
    teacher: Floats
    held_out: Floats
    held_out_teacher: Floats


class BlockStage:
    """Trains the blocks of `student` whose constants are among `parameters`."""

    def __init__(
        self,
        student: Graph,
        parameters: Parameters,
        moving: Mapping[Value, Parameter],
        ctx: Context,
        views: Views,
        batch: int,
    ) -> None:
        assert ctx.teacher is not None
        self.graph, self.teacher, self.ctx = student, ctx.teacher, ctx
        self.parameters, self.moving, self.views, self.batch = parameters, moving, views, batch
        fit = ctx.fit
        able = fit is not None and fit.batched and not any(fit.axes.get(v.name, 0) for v in student.inputs)
        self.blocks = blocks(student, ctx.teacher, moving) if able and len(student.inputs) == 1 else []
        self.rates: Sequence[float] = RATES

    def run(self, pace: Pace, rate: float | None, offer: Offer) -> tuple[int, int]:
        """Train each block; `rate` is by trial in the first where it is none. Returns how many stayed, and the steps
        taken in all."""
        stayed = steps = 0
        if rate is not None:
            self.rates = (rate,)
        end = self._first()
        with self.ctx.progress.task("train blocks", len(self.blocks)) as tick:
            for number, block in enumerate(self.blocks):
                taken, better = self._learn(number, block, end, pace)
                steps += taken
                stayed += better is not None and offer(better)
                self.parameters.write()
                end = self._behind(block, end)
                tick(1)
        return stayed, steps

    def _first(self) -> _End:
        """The samples and their views, and held-out samples, before the first block."""
        ctx = self.ctx
        assert ctx.fit is not None
        largest = max(_bytes(value) for block in self.blocks for value in (block.begin, block.end))
        room = max(KEPT // largest, 2)
        samples = ctx.fit.take(min(room, ctx.fit.count), ctx.seed)
        rows = [_all(samples)]
        for turn in range(1, min(room // samples.count, TIMES) if self.views else 1):
            rng = np.random.default_rng((ctx.seed, turn))
            name = self.graph.inputs[0].name
            rows += [np.asarray(self.views(feeds, rng)[name], np.float32) for feeds in samples.batches(RUN)]
        held_out = _all((ctx.held_out or ctx.fit).take(JUDGES, ctx.seed))
        read = np.concatenate(rows)
        end = _End(read, read, held_out, held_out)
        first = self.blocks[0]
        return end if first.begin.producer is None else self._moved(end, None, first.begin, None, first.taught_begin)

    def _behind(self, block: Block, end: _End) -> _End:
        return self._moved(end, block.begin, block.end, block.taught_begin, block.taught_end)

    def _moved(self, end: _End, begin: Value | None, to: Value, taught: Value | None, taught_to: Value) -> _End:
        mine = Session(part(self.graph, begin or self.graph.inputs[0], to)[0], threads=self.ctx.threads)
        theirs = Session(part(self.teacher, taught or self.teacher.inputs[0], taught_to)[0], threads=self.ctx.threads)
        return _End(
            _run(mine, end.student),
            _run(theirs, end.teacher),
            _run(mine, end.held_out),
            _run(theirs, end.held_out_teacher),
        )

    def _learn(self, number: int, block: Block, end: _End, pace: Pace) -> tuple[int, Floats | None]:
        """Train one block; returns the steps taken, and all parameters with the block's better ones, if there are."""
        graph, copies = part(self.graph, block.begin, block.end)
        mine = {copies[v]: v for v in block.moving if copies[v].uses}
        if not mine:
            return 0, None
        theirs = Session(part(self.teacher, block.taught_begin, block.taught_end)[0], threads=self.ctx.threads)
        answers, held_out = _run(theirs, end.teacher), _run(theirs, end.held_out_teacher)
        term = Term(copies[block.end], block.taught_end, "values", channel_axis(block.taught_end))
        scale = variance_of(term, [answers])
        kinds = {copy: self.moving[v] for copy, v in mine.items()}
        pair = trainer_of(graph, term, answers, kinds, self.ctx.threads)
        if pair is None:
            return 0, None
        trainer, parameters = pair

        def judge() -> float:
            parameters.write()
            answered = _run(Session(graph, outputs=[copies[block.end]], threads=self.ctx.threads), end.held_out)
            return _error(answered, held_out, scale, term.axis)

        course = Training(trainer, TaughtRows(FED, end.student, answers, batch=self.batch, seed=self.ctx.seed), judge)
        steps = pace.steps or self._steps(number, course, pace.seconds)
        if steps < STEPS:
            return course.step, None
        if len(self.rates) > 1:
            self.rates = (onward(course.try_rates(self.rates, trial_of(steps), lambda _: None), steps),)
        (rate,) = self.rates
        course.begin(steps, rate)
        course.run(lambda _: None)
        if course.loss >= course.start:
            return course.step, None
        better = self.parameters.flat.copy()
        for copy, value in mine.items():
            self.parameters.view(better, value)[...] = parameters.view(course.best, copy)
        return course.step, better

    def _steps(self, number: int, course: Training, seconds: float) -> int:
        """The steps for which a block has time: each has as much of it."""

        def measured() -> str:
            begin = time.perf_counter()
            for feeds in course.batches.steps(0, 3):
                course.trainer.step(feeds)
            each = (time.perf_counter() - begin) / 3
            return str(int(seconds / len(self.blocks) / each))

        return self.ctx.recall(f"steps of block {number} in {seconds:g} seconds", measured, count)


def _all(samples: Samples) -> Floats:
    """The one input of all samples."""
    return np.concatenate([np.asarray(next(iter(feeds.values())), np.float32) for feeds in samples.batches(RUN)])


def _run(session: Session, rows: Floats) -> Floats:
    name = session.graph.inputs[0].name
    pieces = [session.run({name: rows[at : at + RUN]})[0] for at in range(0, len(rows), RUN)]
    return np.concatenate([np.asarray(piece, np.float32) for piece in pieces])


def _error(answers: Floats, wanted: Floats, variance: Floats, axis: int) -> float:
    """The squared error over the variance of each channel, a mean."""
    error = np.square(np.moveaxis(answers - wanted, axis, -1), dtype=np.float64)
    return float((error / least_variance(variance)).mean())


def _bytes(value: Value) -> int:
    """Of one sample."""
    size = 4
    for one in (value.shape or ())[1:]:
        size *= one if isinstance(one, int) else 1
    return size
