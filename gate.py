"""Judging models that are there already: one against another, and several against the clock. Nothing is compiled."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

from .compiler import (
    Data,
    Model,
    compare,
    in_batches,
    name_of,
    opened,
    read,
    runnable,
    size_of,
    sizes,
    stored_bytes,
    versions,
)
from .compiler.artifact import interface
from .compiler.data import draw
from .compiler.first_answer import check_size
from .compiler.fixed_sizes import Fixed
from .errors import DataError, ModelError, SpecError, TargetError
from .ir.graph import Graph
from .passes.base import Context, Progress
from .report.budget import Budget
from .report.build import BuildReport, SampleRecord
from .report.diff import Diff, diff
from .report.on_device import THROTTLED, DeviceBench, DeviceTiming
from .report.timings import Bench, Timing
from .report.verdict import judge
from .runtime.agreement import agreement
from .runtime.latency import latency
from .runtime.samples import Samples, Source
from .runtime.session import Runnable, Session
from .targets.onnx import OnnxTarget
from .targets.tuning import Device

_OPEN = Fixed()
_ON_DEVICE = 16
"""Samples that answers are compared on where each is carried to a device."""


def check(
    model: str,
    against: Model,
    *,
    data: Data | Samples | Source | None = None,
    budget: str | Budget | None = None,
    fixed: Fixed = _OPEN,
    seed: int = 0,
    threads: int = 0,
    progress: Progress | None = None,
) -> BuildReport:
    """Hold `model`, a file or `zoo:NAME`, against the model it was made from: cost, agreement on all samples, latency.

    `budget` is judged by them. The record is that of a build without passes. Raises `SpecError` for bad budget text,
    `ModelError` where the two do not take the same inputs and give the same outputs, `DataError` and `TargetError`.
    """
    start = time.perf_counter()
    limits = Budget.parse(budget) if isinstance(budget, str) else budget
    progress = Progress() if progress is None else progress
    original, result = _fixed([read(against), read(model)], fixed)
    same_interface(original, result, name_of(against), model)
    ctx = Context(OnnxTarget().facts, seed=seed, threads=threads)
    samples, teacher = runnable(against, data, original, ctx, [result])
    after = _open(model, result, threads)
    samples = in_batches(samples, after)
    dims = sizes(original, samples)
    report = BuildReport(
        model=f"{model} against {name_of(against)}",
        pipeline="",
        target=ctx.target.name,
        seed=seed,
        versions=versions(),
        before=replace(size_of(original, dims), bytes=stored_bytes(against, original)),
        after=replace(size_of(result, dims), bytes=stored_bytes(model, result)),
    )
    source = data.source if isinstance(data, Data) else data
    report.samples = SampleRecord(source if isinstance(source, str) else "", samples.synthetic, 0, samples.count)
    report.notes += judged_on(samples)
    with progress.task("check"):
        compare(teacher, after, samples, report)
    if limits is not None:
        report.budget = judge(limits, report, result, dims)
    report.seconds = time.perf_counter() - start
    return report


def same_interface(first: Graph, second: Graph, *names: str) -> None:
    """Raises `ModelError` where two models cannot be run side by side: other inputs, or other outputs."""
    for what, one, other in (
        ("inputs", _fed(first), _fed(second)),
        ("outputs", [o.name for o in first.outputs], [o.name for o in second.outputs]),
    ):
        if one != other:
            raise ModelError(
                f"{names[1]} has other {what} than {names[0]}: {', '.join(other)}, not {', '.join(one)}; "
                "name two forms of one model"
            )


def bench(
    models: Sequence[str],
    *,
    data: Data | Samples | Source | None = None,
    threads: Sequence[int] = (1,),
    fixed: Fixed = _OPEN,
    batch: int = 1,
    seconds: float = 5.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Bench:
    """Time `models` in turns, about `seconds` for each number of threads; ratios are to the first model.

    A model is an ONNX file, `zoo:NAME`, or what a library target wrote.

    Samples are those of the first model, and the others take the same. Raises what reading and running raise, and
    `ModelError` where a model takes other inputs than the first.
    """
    progress = Progress() if progress is None else progress
    graphs = _fixed([_inputs(model) for model in models], fixed)
    for model, graph in zip(models[1:], graphs[1:], strict=True):
        if _fed(graph) != _fed(graphs[0]):
            raise ModelError(f"{model} takes other inputs than {models[0]}; time it by itself")
    ctx = Context(OnnxTarget().facts, seed=seed)
    samples, _ = runnable(models[0], data, graphs[0], ctx, graphs[1:])
    if batch > 1 and not samples.batched:
        raise DataError(f"{models[0]} takes one sample at a time, so no batch of {batch} can be timed")
    feeds = next(samples.batches(batch))
    timings = []
    with progress.task("bench", len(threads)) as advance:
        for count in threads:
            sessions = [_timed(model, count) for model in models]
            results = latency(sessions, feeds, limit=seconds)
            size = samples.size_of(feeds)
            timings += [Timing(model, count, size, one) for model, one in zip(models, results, strict=True)]
            advance(1)
    return Bench(tuple(timings), tuple(timed_on(samples)))


def bench_on(
    models: Sequence[str],
    device: Device,
    *,
    data: Data | Samples | Source | None = None,
    fixed: Fixed = _OPEN,
    threads: int = 1,
    runs: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> DeviceBench:
    """Time the libraries among `models` on a device that a shell reaches, and hold their answers against the model
    among them that is none.

    Raises `TargetError` where nothing among them is a library or the device fails, and `SpecError` for two references.
    """
    from .targets.tvm.remote.pushed import Pushed

    progress = Progress() if progress is None else progress
    libraries = [model for model in models if is_artifact(model)]
    others = [model for model in models if not is_artifact(model)]
    if not libraries:
        raise TargetError("none of these is a library that a device can load; build one with --target arm64")
    if len(others) > 1:
        raise SpecError(f"answers are held against one model, not {len(others)}: {', '.join(others)}")
    graphs = _fixed([_inputs(model) for model in (*others, *libraries)], fixed)
    teacher = None
    if others:
        ctx = Context(OnnxTarget().facts, seed=seed)
        samples, teacher = runnable(others[0], data, graphs[0], ctx, graphs[1:])
    else:
        samples = draw(libraries[0], data, graphs[0], seed)
    feeds = next(samples.batches(1))
    timings: list[DeviceTiming] = []
    facts: dict[str, object] = {}
    notes = timed_on(samples)
    with progress.task("bench", len(libraries)) as advance:
        for model in libraries:
            one, _ = opened(model, threads=threads, device=device)
            if not isinstance(one, Pushed):
                raise TargetError(f"{model} does not run on {device.name}")
            try:
                facts = asdict(one.facts)
                few = in_batches(samples, one).take(_ON_DEVICE)
                met = None if teacher is None else agreement(teacher, one, few, batch=1)
                times = one.measured(feeds, runs)[1]
            finally:
                one.close()
            first = timings[0].p50_ms if timings else times.p50
            share = None if met is None or math.isnan(met.share) else met.share
            timings.append(
                DeviceTiming(
                    model,
                    times.p50,
                    times.p90,
                    times.drift,
                    runs,
                    times.heat,
                    times.p50 / first,
                    share,
                    "" if met is None else met.measure,
                    0 if met is None else met.samples,
                )
            )
            if times.drift > THROTTLED:
                notes.append(f"{model}: runs took {times.drift:.2f} times as long at the end: the device throttled")
            advance(1)
    return DeviceBench(device.name, facts, threads, tuple(timings), tuple(notes))


def contrast(
    first: str,
    second: str,
    *,
    data: Data | Samples | Source | None = None,
    run: bool = True,
    fixed: Fixed = _OPEN,
    seed: int = 0,
    threads: int = 0,
    progress: Progress | None = None,
) -> Diff:
    """What differs between two models; with `run`, also how far their answers do.

    Models that cannot be run side by side are compared all the same, and the result says why. Raises `ModelError`, and
    `DataError` for bad samples.
    """
    progress = Progress() if progress is None else progress
    one, other = _fixed([read(first), read(second)], fixed)
    samples: Samples | None = None
    met, reason = None, "not asked for"
    if run:
        try:
            same_interface(one, other, first, second)
            with progress.task("diff"):
                ctx, student = Context(OnnxTarget().facts, seed=seed, threads=threads), _open(second, other, threads)
                samples, teacher = runnable(first, data, one, ctx, [other])
                samples = in_batches(samples, student)
                met, reason = agreement(teacher, student, samples), ""
        except (ModelError, TargetError) as error:
            reason = str(error)
    notes = () if samples is None else tuple(judged_on(samples) + ([] if met is None else met.remarks))
    return replace(diff(one, other, (first, second), sizes(one, samples)), agreement=met, reason=reason, notes=notes)


def judged_on(samples: Samples) -> list[str]:
    """What the user should know of the samples that models were compared on."""
    drawn = "no --data was given, so inputs were made up; real samples judge truly"
    return [*samples.notes, *([drawn] if samples.synthetic else [])]


def timed_on(samples: Samples) -> list[str]:
    """What the user should know of the samples that models were timed on."""
    drawn = "no --data was given, so inputs were made up; times that depend on what is in them are others"
    return [*samples.notes, *([drawn] if samples.synthetic else [])]


def _fixed(graphs: list[Graph], sizes: Fixed) -> list[Graph]:
    """The graphs, with sizes fixed that the first leaves open; others may have them fixed already."""
    for number, graph in enumerate(graphs):
        sizes.apply(graph, strict=not number)
    return graphs


def _fed(graph: Graph) -> list[str]:
    return [value.name for value in graph.inputs if value.default is None]


def is_artifact(model: str) -> bool:
    """Whether a file or folder is what a library target wrote."""
    return os.path.isdir(model) or model.endswith(".tar")


def _inputs(model: str) -> Graph:
    """The model, or of a library its inputs alone."""
    return interface(model) if is_artifact(model) else read(model)


def _timed(model: str, threads: int) -> Runnable:
    """The model as a user's runtime opens it. Raises `TargetError` for one that only an emulator runs here."""
    try:
        runnable, _ = opened(model, threads=threads)
    except TargetError as error:
        raise error if model in str(error) else TargetError(f"{model}: {error}") from error
    if runnable.emulated:
        raise TargetError(f"{model} runs here only under an emulator, whose times tell nothing; use optc run --rpc")
    return runnable


def _open(model: str, graph: Graph, threads: int) -> Session:
    """The model as a user's runtime opens it."""
    check_size(graph)
    if model.startswith("zoo:"):
        return Session(graph, threads=threads)
    try:
        return Session.open(model, threads=threads)
    except TargetError as error:
        raise TargetError(f"{model}: {error}") from error
