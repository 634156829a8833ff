"""The student as a whole: its answers, and feature maps on the way to them, beside the teacher's."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ModelError
from ...ir.graph import Graph, Node, Value
from ...ir.tensor import SparseTensor
from ...runtime.agreement import agreement
from ...runtime.providers import provider_of
from ...runtime.samples import Samples
from ...runtime.session import Session
from ...runtime.training.optimizer import AdamW
from ...runtime.training.parameters import Floats, Parameters
from ...runtime.training.trainer import Trainer
from ..base import Context, Report
from ..prune.storage import sparse
from ..recall import count, positive
from .batches import PLAIN, Batches
from .blocks import STEPS, BlockStage, Pace
from .initialisation import initialise, knows_nothing
from .loss import Term, append_loss, drop_loss, hint_terms, output_terms, variance_of
from .parameters import Kind, Parameter
from .student import Student, student_of
from .training import JUDGED, RATES, Training, average_over, channel_axes, onward, sizes, trial_of
from .views import NO_VIEWS, fitting_views

if TYPE_CHECKING:
    from .distill import Distill

PROBED = 64
"""Samples that the variance of the teacher's values is taken of."""
MEMORY = 2 << 30
"""Bytes that a step may take for what lies between the layers of the student, and its gradients."""
BLOCKS = 0.1
"""The share of the time, or of the steps, in which blocks learn by themselves: in as much time the student as a whole,
with hints behind each block, gains more."""
MICRO = "samples that are differentiated at a time"
"""What is asked of the clock."""
KINDS: dict[str, tuple[Kind, ...]] = {
    "all": ("weight", "bias", "affine", "codes", "scale"),
    "bias": ("bias",),
    "affine": ("bias", "affine"),
    "rounding": ("codes", "scale"),
}
"""What the option `parameters` lets move."""
LAYER_KINDS: tuple[Kind, ...] = ("weight", "codes")
"""The kinds of which a layer has one."""
TRIAL_SHARE = 10
"""Where the clock counts, a trial has at most one of so many parts of the steps: three or four of them leave most."""
WARM, TIMED = 3, 8
"""Steps by which the time of a step is measured: some that only warm up, and those that count at the least."""
TIMING = 0.02
"""The share of the time in which they are measured: a few short steps tell nothing of a machine that does other things
besides."""
START_RATE = 1e-2
"""The rate at which two starts of a student that knows nothing are compared, where none was asked for."""
ALIKE = 1e-6
"""The held-out loss from which on there is nothing to learn."""


def train(options: Distill, graph: Graph, ctx: Context) -> Report:
    """Run `distill` on `graph`, end to end."""
    report = Report()
    assert ctx.fit is not None
    assert ctx.teacher is not None
    student = student_of(graph, ctx)
    moving = _moving(options, student, ctx, report)
    terms = output_terms(student.graph, ctx.teacher)
    if not terms:
        report.notes.append("nothing is learnt: no output of the model is one that says how far off it is")
        return report
    if not moving:
        report.notes.append("nothing is learnt: the model has no parameters that may move")
        return report
    if options.hints:
        terms += hint_terms(student.graph, ctx.teacher, options.hints, behind_blocks=student.twin is None)
    try:
        course = _Course(options, student, ctx, terms, moving, report)
    except ModelError as error:  # no gradient reaches any parameter
        report.notes.append(f"nothing is learnt: {error}")
        return report
    course.run()
    return report


def _moving(options: Distill, student: Student, ctx: Context, report: Report) -> list[Parameter]:
    """The parameters that the options and overrides let move; layers that are kept are skipped in `report`."""
    moving = []
    for one in student.parameters():
        users = student.users(one)
        reasons = [reason for node in users if (reason := ctx.kept(options, node))]
        if reasons and one.kind in LAYER_KINDS:
            report.skipped(users[0].label, users[0].op, reasons[0])
        if one.kind in KINDS[options.parameters] and not reasons:
            moving.append(one)
    return moving


class _Course:
    def __init__(
        self,
        options: Distill,
        student: Student,
        ctx: Context,
        terms: list[Term],
        moving: list[Parameter],
        report: Report,
    ) -> None:
        assert ctx.teacher is not None
        assert ctx.fit is not None
        self._begin = time.perf_counter()
        self.options = options
        self.student = student
        self.ctx = ctx
        self.report = report
        self.moving = {one.value: one for one in moving}
        self.sparse = {one.value for one in moving if isinstance(one.value.constant, SparseTensor)}
        self.teacher = Session(ctx.teacher, threads=ctx.threads)
        views = NO_VIEWS
        if options.views == "auto":
            views = fitting_views(ctx.teacher, ctx.fit, seed=ctx.seed, threads=ctx.threads)
        self.views = views
        self.batches = Batches(
            ctx.teacher,
            [term.teacher for term in terms],
            ctx.fit,
            views,
            batch=options.batch,
            # What is quantized has the teacher's own size: views do not take what the samples need.
            plain=PLAIN if student.twin is None else 0,
            seed=ctx.seed,
            threads=ctx.threads,
        )
        self.parameters = Parameters(
            list(self.moving),
            masks={one.value: one.mask for one in moving if one.mask is not None},
            bounds={one.value: one.bounds for one in moving if one.bounds is not None},
        )
        self.terms = terms
        self.better = False
        """Whether what was learnt stays."""
        self._answered = True
        """Whether the teacher's answers to the samples are all numbers."""
        self.trainer = self._trainer()

    def _trainer(self) -> Trainer:
        terms = self.terms
        rows = list(self.batches.plain(PROBED))
        self._answered = all(bool(np.isfinite(answer).all()) for batch in rows for answer in batch)
        variances = {
            term: variance_of(term, [batch[i] for batch in rows])
            for i, term in enumerate(terms)
            if term.measure == "values"
        }
        graph = self.student.graph
        loss = append_loss(graph, terms, variances, self.options.temperature)
        try:
            return Trainer(
                graph,
                loss,
                self.parameters,
                optimizer=AdamW(scale=sizes(self.parameters, self.moving, channel_axes(self.moving))),
                average=average_over(1),
                memory=MEMORY,
                axes=self._axes(len(terms)),
                threads=self.ctx.threads,
                providers=provider_of(self.ctx.provider),
            )
        finally:
            drop_loss(graph)

    def _axes(self, terms: int) -> dict[str, int | None]:
        """The axes of inputs that count samples; where they differ, a batch stays whole."""
        assert self.ctx.fit is not None
        axes = dict(self.ctx.fit.axes)
        return axes if set(axes.values()) == {0} else axes | {f"teacher.{i}": None for i in range(terms)}

    def run(self) -> None:
        report, ctx = self.report, self.ctx
        course = self._course()
        if not self._answered:
            self._put_back(course)
            report.notes.append("nothing is learnt: the model's own answers to the samples hold NaN or infinity")
            return
        if course.start < ALIKE:
            self._put_back(course)
            report.notes.append("nothing is left to learn: the model answers as its teacher does")
            return
        try:
            self._set_out(course)
            way = course.way
            with ctx.progress.task("train", way.steps - way.done) as tick:
                course.run(tick)
        except KeyboardInterrupt:
            report.interrupted = True
            report.notes.append("interrupted: the best so far is kept; interrupt again to end the build")
        self._put_back(course)
        self._tell(course, time.perf_counter() - self._begin)

    def _course(self) -> Training:
        """The training from where the student is; where it knows nothing yet, from its scaled layers if in a trial of
        the same steps more is learned from there."""
        course = Training(self.trainer, self.batches, self._judge, self.ctx.draft, coarse=self.student.twin is not None)
        if self.student.twin is not None or not knows_nothing(self.teacher, self._judges, course.start):
            return course
        assert self.ctx.fit is not None
        plain = self.trainer, self._learned(course)
        count = initialise(self.student.graph, self.parameters, self.moving, self.ctx.fit, threads=self.ctx.threads)
        self.trainer = self._trainer()  # steps are shares of what the weights are now
        scaled = Training(self.trainer, self.batches, self._judge, self.ctx.draft)
        if not self._learned(scaled) < plain[1]:
            self.trainer = plain[0]
            self.parameters.write(course.first)
            return course
        self.report.notes.append(f"the student knew nothing: {count} layers were scaled to what they read")
        scaled.first, scaled.start, scaled.curve = course.first, course.start, course.curve
        return scaled

    def _learned(self, course: Training) -> float:
        """The loss at the end of a trial from where the student is."""
        options = self.options
        return course.try_start(options.rate or START_RATE, trial_of(options.steps), lambda _: None)

    def _set_out(self, course: Training) -> None:
        """Go on from a draft, with what it says was decided, or decide anew."""
        if course.resume():
            way = course.way
            self.ctx.recall(MICRO, lambda: str(self.trainer.micro), positive)
            if not self.options.steps:
                self.ctx.recall(self._question, lambda: str(way.steps), count)
            self.report.notes.append(f"went on from step {way.done} of {way.steps}, where a build was stopped")
            return
        self._blocks(course)
        if self.options.stage != "blocks":
            self._cut()
            tried, steps = self._pace(course)
            raised = self.options.rate is None and not course.coarse
            course.begin(steps, onward(tried, steps) if raised else tried, tried)

    def _blocks(self, course: Training) -> None:
        """The stage of blocks, where there is one: of students of floats."""
        options = self.options
        share = self._share
        if not share:
            return
        stage = BlockStage(self.student.graph, self.parameters, self.moving, self.ctx, self.views, self.batches.batch)
        pace = Pace(math.ceil(share * options.steps), 60.0 * share * options.minutes)
        if len(stage.blocks) < 2 or 0 < pace.steps < STEPS:
            return
        start = course.loss
        stayed, steps = stage.run(pace, options.rate, course.offer)
        self.report.notes.append(
            f"{stayed} of {len(stage.blocks)} blocks learnt by themselves: held-out loss {start:.4g} -> "
            f"{course.loss:.4g} in {steps} steps of a block"
        )

    @property
    def _share(self) -> float:
        """The share of the time in which blocks learn by themselves."""
        if self.student.twin is not None:
            return 0.0
        return {"blocks": 1.0, "both": BLOCKS, "whole": 0.0}[self.options.stage]

    @property
    def _question(self) -> str:
        return f"steps in {self.options.minutes:g} minutes"

    def _tell(self, course: Training, seconds: float) -> None:
        report, way = self.report, course.way
        report.curve = course.curve
        if not self.better:
            for node, _ in self._layers():
                report.skipped(node.label, node.op, f"{course.step or 'the'} steps did not make the held-out loss less")
        else:
            for node, value in self._layers():
                change = self.parameters.view(course.best, value) - self.parameters.view(course.first, value)
                size = float(np.linalg.norm(self.parameters.view(course.first, value)))
                share = round(float(np.linalg.norm(change)) / max(size, 1e-30), 4)
                report.done(node.label, node.op, change=share, **self.student.details(value))
        if way.steps:
            became = f"-> {course.loss:.4g} in" if self.better else "stays: the student was no better after"
            report.notes.append(
                f"held-out loss {course.start:.4g} {became} {course.step} steps of {self.batches.batch} "
                f"samples at rate {way.rate:g} ({seconds:.0f} s; views: {self.views})"
            )
        if way.taken_back:
            why = "the loss was no number" if way.not_numbers == way.taken_back else "the student ran away"
            end = "; then it was given up, and the best so far is kept" if way.given_up else ""
            report.notes.append(f"{why}: taken back {way.taken_back} times, to a lower rate each time{end}")
        report.notes += [str(one) for one in self.trainer.backward.frozen]

    def _cut(self) -> None:
        """Decide how many samples of a step are differentiated at a time: as many as fit in `MEMORY`."""
        axes = set(self.trainer.axes.values())
        if axes != {0}:
            self.trainer.micro = self.batches.batch  # which axis of an answer counts samples is not known
            return

        def measured() -> str:
            self.trainer.gradient(next(iter(self.batches.steps(0, 1))))
            return str(self.trainer.micro)

        self.trainer.micro = self.ctx.recall(MICRO, measured, positive)

    def _pace(self, course: Training) -> tuple[float, int]:
        """The rate and the number of steps: as asked for, or by trial and by the clock. Trials take of the time."""
        options = self.options
        steps = options.steps or self.ctx.recall(self._question, lambda: str(self._steps(course)), count)
        if options.rate is not None:
            return options.rate, steps
        trial = trial_of(steps) if options.steps else min(trial_of(steps), max(steps // TRIAL_SHARE, 1))
        with self.ctx.progress.task("try rates", len(RATES) * trial) as tick:
            rate = course.try_rates(RATES, trial, tick)
        return rate, options.steps or max(steps - course.trials, 1)

    def _steps(self, course: Training) -> int:
        """The steps for which time is left, all taken to show views, as most do; judging takes of it."""
        first, wanted = -(-self.batches.unseen // self.batches.batch), TIMING * 60 * self.options.minutes
        seconds = self._seconds_a_step(course, first, TIMED)
        if seconds * TIMED < wanted:
            seconds = self._seconds_a_step(course, first + TIMED, math.ceil(wanted / seconds))
        judging = time.perf_counter()
        self._judge()
        end = time.perf_counter()
        left = 60 * self.options.minutes - (end - self._begin) - JUDGED * (end - judging)
        return max(int(left / seconds), 1)

    def _seconds_a_step(self, course: Training, first: int, count: int) -> float:
        """The time of each of so many steps, one after the other, as they are taken later: the teacher answers the next
        batch while the student learns from one."""
        begin = time.perf_counter()
        for number, feeds in enumerate(self.batches.steps(first, WARM + count), 1):
            course.trainer.step(feeds)
            if number == WARM:
                begin = time.perf_counter()
        return (time.perf_counter() - begin) / count

    def _judge(self) -> float:
        """The held-out loss of the student as its parameters are now, on views of the samples."""
        return self._loss(self.parameters.flat, self._judges)

    def _loss(self, flat: Floats, samples: Samples) -> float:
        self._write(flat)
        seen = agreement(self.teacher, self.student.answers, samples, threads=self.ctx.threads, exact=self.ctx.exact)
        return sum(output.loss for output in seen.outputs)

    @property
    def _judges(self) -> Samples:
        """What judges: views of the samples that nothing is learned from. Those themselves the teacher may know by
        heart: it is so sure of them that who answers them best is not who answers others best."""
        return self.views.of(self._held_out, self.ctx.seed)

    @property
    def _held_out(self) -> Samples:
        samples = self.ctx.held_out or self.ctx.fit
        assert samples is not None
        return samples

    def _better(self, course: Training) -> bool:
        """Whether the best answers held-out samples better than the first, on views of them and as they are."""
        if not course.loss < course.start:
            return False
        plain = (self._loss(flat, self._held_out) for flat in (course.best, course.first))
        return not self.views or next(plain) <= next(plain)

    def _write(self, flat: Floats) -> None:
        self.parameters.write(flat)
        self.student.write()

    def _put_back(self, course: Training) -> None:
        """Give the graph its final numbers, in the form in which they were stored."""
        self.better = self._better(course)
        self._write(course.best if self.better else course.first)
        if not self.better:
            self.student.restore()
        for value in self.sparse:
            if value.constant is not None and (stored := sparse(value.constant)) is not None:
                value.constant = stored

    def _layers(self) -> list[tuple[Node, Value]]:
        return [(self.student.users(one)[0], v) for v, one in self.moving.items() if one.kind in LAYER_KINDS]
