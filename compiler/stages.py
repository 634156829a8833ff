"""The stages of a compilation, in order: read, clean, passes, each judged, legalise, emit, check, report."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from ..errors import DataError, TargetError
from ..ir.graph import Graph
from ..ir.onnx.opset import lower
from ..passes.base import Context
from ..passes.guard import Guard
from ..passes.observers import Log
from ..passes.pipeline import Pipeline
from ..passes.runner import run
from ..report.build import BuildReport, SampleRecord, Size, Validation
from ..report.verdict import judge
from ..runtime.agreement import agreement
from ..runtime.latency_table import Estimator
from ..runtime.samples import Samples
from ..runtime.session import Session
from ..runtime.sizes import sizes
from ..storage.fingerprint import file_digest
from ..targets import table
from ..targets.base import Artifact, Emit, Target
from ..targets.onnx import newest_loadable
from .constant_inputs import freeze as make_constants
from .constant_inputs import open_weights
from .data import draw, held_count, held_out, is_stream, runnable, sample_notes, source_text
from .device import check_there
from .dimension_names import tell_apart
from .emission import reproducible
from .growth import growth, undo_growth
from .measure import Recorder, compare, estimated, size_of, versions
from .model import forget_types, load, name_of, prepare, stored_bytes
from .order import Order
from .place import check_place, move, staging
from .result import Build, Interrupted
from .reuse import Reuse, reuse_of
from .student import stranger, student_of
from .tuning import tuned
from .validate import validate

_GLANCE = 16
"""Samples that what is left of an interrupted build is checked on."""
_GLIMPSE = 0.05
"""Seconds that a model is timed which no lossy pass has changed."""


def build(order: Order, emit: Emit) -> Build:
    """Compile for one target, whose artifact `emit` writes, or take what was made before out of the cache. Raises as
    `compile` does."""
    start = time.perf_counter()
    if order.path is not None:
        check_place(order.path, target=order.target)
    original, annotated = read_order(order)
    order.target.check_inputs(original)
    if is_stream(order.data):
        order = replace(order, data=draw(order.model, order.data, original, order.options.seed))
    student = None if order.options.student is None else student_of(order.options.student, original)
    reuse = reuse_of(order, original, student)
    if order.lock is not None:
        order.lock.check_inputs(reuse.hashes, versions())
    result = _kept(order, original, reuse)
    if result is None:
        outcome = _made(order, original, student, reuse)
        forget_types(outcome.graph, annotated)
        if not outcome.stopped and student is None:
            undone = undo_growth(order, original, annotated, outcome.graph, outcome.report)
            outcome = replace(outcome, size=size_of(outcome.graph, outcome.dims)) if undone else outcome
        result = _written(order, original, reuse, outcome, emit)
    if reuse.store is not None:
        reuse.store.trim()
        result.report.notes += reuse.store.faults
    result.report.seconds = time.perf_counter() - start
    return result


def read_order(order: Order) -> tuple[Graph, set[str]]:
    """The model, sorted, verified, frozen or with sizes as was asked; and the values whose types it told."""
    original = load(order.model)
    annotated = {value.name for node in original.walk() for value in node.outputs if value.type is not None}
    if order.options.freeze:
        make_constants(original)
    prepare(original, order.model)
    order.options.fixed.apply(original)
    return original, annotated


def _context(order: Order) -> Context:
    return Context(
        order.target.facts,
        overrides=tuple(order.options.overrides),
        seed=order.options.seed,
        threads=order.options.threads,
        provider=order.options.provider,
        progress=order.progress,
    )


def _kept(order: Order, original: Graph, reuse: Reuse) -> Build | None:
    """The build as it was made before, its files in their place; `None` where it has to be made."""
    stored = reuse.take(order)
    if stored is None:
        return None
    done, graph, artifact = stored
    files = list(artifact.files) if artifact is not None else []
    report = replace(done.report, model=name_of(order.model), artifacts=files)
    if order.budget is not None:
        report.budget = judge(order.budget, report, graph, done.dims)
    lower(original, *newest_loadable())
    judges = partial(held_out, order.model, order.samples, order.options.min_agreement, original, _context(order))
    return Build(
        graph,
        report,
        order.target,
        original,
        artifact,
        reuse.key,
        judges if report.samples is not None else lambda: None,
    )


@dataclass(frozen=True, slots=True)
class _Made:
    """What the passes made, not written yet. `stopped` tells where an interrupted build got to, and is empty else."""

    graph: Graph
    size: Size
    report: BuildReport
    ctx: Context
    teacher: Session | None
    dims: Mapping[str, int]
    keeps: bool
    """Whether there is something worth keeping of a build that is interrupted from here on."""
    stopped: str


def _made(order: Order, original: Graph, student: Graph | None, reuse: Reuse) -> _Made:
    """Run the passes, each judged, and what makes the result fit the target."""
    ctx = _context(order)
    notes = [*lower(original, *newest_loadable()), *open_weights(original)]
    samples, teacher = _samples(order, original, ctx, notes)
    if samples is not None:
        notes += tell_apart(original, samples)
    graph = original.clone()
    if student is not None:
        lower(student, *newest_loadable())
        ctx.teacher, graph = stranger(graph), student
    dims = sizes(original, samples)
    if order.latencies is not None:
        ctx.latencies = Estimator(order.latencies, dims)
        notes.append(
            f"latency is estimated from layers measured on {order.latencies.device}; on layers that were not, the "
            f"estimate is off by {100 * order.latencies.unseen()[0]:.0f} % in the median"
        )
        if not order.latencies.integer and any(one.name == "quant" for one in order.pipeline):
            notes.append(
                f"the table of {order.latencies.device} holds no integer layer, so quantized layers are timed as float "
                "ones; profile a quantized form of the model beside it"
            )
    recorder = Recorder(dims, ctx if order.options.trail else None)
    warden = Guard(order.options.min_agreement) if order.options.guard and ctx.held_out is not None else None
    passes, last = order.pipelines
    observers = (recorder, Log(), *order.options.observers)
    stopped = ""
    try:
        run(Pipeline((*passes, *last)), graph, ctx, observers=observers, guard=warden, cache=reuse.passes)
    except KeyboardInterrupt:
        if order.path is None or recorder.kept is None or order.strict:
            raise
        graph, stopped = recorder.kept, f"interrupted {recorder.where}"
        run(last, graph, ctx)
    size = size_of(original, dims)
    after = size_of(graph, dims) if stopped or recorder.size is None else recorder.size
    report = BuildReport(
        model=name_of(order.model),
        pipeline=str(order.pipeline),
        target=table.spec(order.target),
        seed=order.options.seed,
        versions=versions(),
        before=replace(size, bytes=stored_bytes(order.model, original)),
        after=size,
        notes=notes,
        hashes=reuse.hashes,
        # Legalisation that found nothing to do is nobody's business.
        steps=[step for i, step in enumerate(recorder.steps) if step.report.changed or i < len(passes)],
        rulings=reuse.passes.rulings,
    )
    if samples is not None and ctx.fit is not None and ctx.held_out is not None:
        report.samples = SampleRecord(ctx.data, samples.synthetic, ctx.fit.count, ctx.held_out.count)
    return _Made(graph, after, report, ctx, teacher, dims, recorder.kept is not None and not order.strict, stopped)


def _samples(
    order: Order, original: Graph, ctx: Context, notes: list[str]
) -> tuple[Samples, Session] | tuple[None, None]:
    """The samples, split in `ctx` into those to fit and those to judge by, and the original ready to run on them.

    Neither where nothing has to run; nor, with a note, where a model that is only cleaned cannot.
    """
    if not order.runs:
        if order.pipeline.lossy:
            notes.append("the model was not run: no samples were given, and the result is not checked")
        return None, None
    data = order.data
    try:
        samples, teacher = runnable(order.model, order.samples, original, ctx)
    except (DataError, TargetError) as error:
        if isinstance(error, DataError) and order.names_samples:
            raise
        if order.pipeline.lossy:
            raise type(error)(f"{error}; to clean it without running it: --passes clean --no-check") from error
        notes.append(f"the result was not run beside the original: {error}")
        return None, None
    ctx.fit, ctx.held_out = samples.split(held_count(samples.count, order.options.min_agreement), order.options.seed)
    ctx.data = source_text(data)
    notes += sample_notes(samples, order.pipeline)
    return samples, teacher


def _written(order: Order, original: Graph, reuse: Reuse, outcome: _Made, emit: Emit) -> Build:
    """Emit, check beside the original, judge, and put the files in their place. Raises `Interrupted` at the end of a
    build that was."""
    report, graph = outcome.report, outcome.graph
    with staging(order.path) as folder:
        with reproducible(order, graph, outcome.ctx.held_out):
            broken = False
            if not outcome.stopped:
                emit, broken = tuned(order, graph, reuse, report.notes, emit)
            if broken:
                if order.path is None or order.strict:
                    raise KeyboardInterrupt
                outcome = replace(outcome, stopped="interrupted during tuning")
            stopped, path = outcome.stopped, os.path.join(folder, order.name)
            staged = emit(graph, path)
        report.after = replace(outcome.size, bytes=staged.bytes, nodes=staged.nodes or outcome.size.nodes)
        report.notes += growth(order, report)
        try:
            with reproducible(order, graph, outcome.ctx.held_out):
                _check(order, original, outcome, staged)
        except KeyboardInterrupt:
            if stopped or order.path is None or not outcome.keeps:
                raise
            stopped = "interrupted during the check"
        report.outputs = {os.path.basename(file): file_digest(file) for file in staged.files}
        if not stopped:
            if order.lock is not None:
                order.lock.check_outputs(report.outputs)
            reuse.keep(order, report, outcome.dims, folder, graph)
        if order.budget is not None:
            report.budget = judge(order.budget, report, graph, outcome.dims)
        artifact = None if order.path is None else move(staged, order.path, order.target)
    report.artifacts = [] if artifact is None else list(artifact.files)
    held_out = outcome.ctx.held_out
    built = Build(graph, report, order.target, original, artifact, "" if stopped else reuse.key, lambda: held_out)
    if stopped:
        ran = ", ".join(step.name for step in report.steps)
        report.notes.append(f"{stopped}: this is the result of {ran}")
        raise Interrupted(f"{stopped}; the result of {ran} is kept at {order.path}", built)
    return built


def _check(order: Order, original: Graph, outcome: _Made, staged: Artifact) -> None:
    """Hold the artifact against the graph that it was built from, and run it beside the original as it was read, as a
    user's runtime would open it. Raises `EmissionError` where it does not answer as its graph."""
    held_out, report = outcome.ctx.held_out, outcome.report
    if not order.options.check:
        report.validation = Validation(0, "left out, --no-check")
        return
    if order.target.cannot_run:
        report.validation = Validation(0, f"it {order.target.cannot_run}")
        return
    if outcome.teacher is None or held_out is None:
        report.validation = Validation(0, "the original does not run here, so there are no samples")
        return
    with order.progress.task("check"):
        if order.options.device is not None and not outcome.stopped:
            check_there(order, original, outcome.graph, outcome.teacher, staged, held_out, report)
            return
        after = order.target.open(staged.path, threads=order.options.threads)
        report.validation = validate(outcome.graph, after, held_out, order.target.error)
        if outcome.stopped:
            report.agreement = agreement(outcome.teacher, after, held_out.take(_GLANCE))
        else:
            latencies = outcome.ctx.latencies
            figure = None if latencies is None else estimated(latencies, original, outcome.graph)
            # Nobody waits for a second figure of what is only compiled, unless something depends on it.
            worked = {step.name for step in report.steps if step.report.changed}
            lost = any(one.lossy and one.name in worked for one in order.pipeline)
            limit = 3.0 if lost or order.budget is not None else _GLIMPSE
            compare(outcome.teacher, after, held_out, report, estimate=figure, limit=limit)
            # A library that runs here is for this CPU, though passes cannot measure its kernels.
            elsewhere = order.target.suffix == Target.suffix and not order.target.facts.measurable
            if figure is None and report.latency is not None and elsewhere:
                report.notes.append("the latency is that of the CPU here, and tells little of the one that this is for")
