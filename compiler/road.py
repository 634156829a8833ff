"""The one road: read, clean, passes, each judged, legalise, emit, check, report."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from ..errors import DataError, SpecError, TargetError
from ..ir.fingerprint import Fingerprint, file_digest
from ..ir.graph import Graph
from ..ir.opset import lower
from ..passes.base import Context, Override, Pass, Progress
from ..passes.cached import PassCache, environment
from ..passes.guard import Guard
from ..passes.observers import Log, Observer
from ..passes.pipeline import Pipeline, spec
from ..passes.runner import run
from ..report import finished
from ..report.budget import Budget
from ..report.build import BuildReport, SampleRecord
from ..report.finished import Finished
from ..report.locked import Locked
from ..report.verdict import judge
from ..runtime.agreement import agreement
from ..runtime.identity import identity
from ..runtime.latency_table import Estimator, LatencyTable, from_json
from ..runtime.samples import Samples
from ..runtime.session import Session
from ..runtime.sizes import sizes
from ..runtime.store import Store
from ..targets import table
from ..targets.base import Artifact, Target
from ..targets.onnx import newest_loadable
from .beside import beside
from .data import Data, draw, held_count, held_out, is_stream, runnable, sample_notes, source_of, source_text
from .fixed import Shapes, fix_shapes
from .measure import Recorder, compare, estimated, size_of, versions
from .model import Model, forget_types, load, name_of, prepare, read, stored_bytes
from .place import check_place, move, staging
from .reuse import hashes_of, taken

if TYPE_CHECKING:
    from ..runtime.samples import Source

Passes: TypeAlias = "str | Pipeline | Pass | Sequence[str | Pass]"

_GLANCE = 16
"""Samples that what is left of an interrupted build is checked on."""


@dataclass(frozen=True, slots=True)
class Build:
    """What a compilation gives: the graph as emitted, the record of how it came to be, and the files if any.

    `original` is the graph as it was read, for whoever wants to look closer. `key` is what the cache knows the build
    by, empty where it is not kept; `judges` draws the samples that judged (see `held`).
    Where several targets were asked for, this is the first one's, and `others` are the builds for the rest in order.
    """

    graph: Graph
    report: BuildReport
    target: Target
    original: Graph
    artifact: Artifact | None = None
    key: str = ""
    judges: Callable[[], Samples | None] = field(default=lambda: None, repr=False, compare=False)
    others: tuple[Build, ...] = ()

    @property
    def held(self) -> Samples | None:
        """The samples that judged, where there are any; those of a build out of the cache are drawn anew."""
        return self.judges()

    @property
    def each(self) -> tuple[Build, ...]:
        """This build and the others, one a target."""
        return self, *self.others

    @property
    def met(self) -> bool:
        """Whether the budget was met; true where there was none."""
        return self.report.budget is None or self.report.budget.met

    @property
    def artifacts(self) -> tuple[str, ...]:
        """The files that were written, if any."""
        return () if self.artifact is None else self.artifact.files

    def save(self, path: str | os.PathLike[str]) -> Artifact:
        """Write the artifact to `path`; the same bytes each time. Raises `OutputError`."""
        return self.target.emit(self.graph, os.fspath(path))


class Interrupted(KeyboardInterrupt):
    """A build was interrupted, and what the passes before that had made was written all the same: `build`."""

    def __init__(self, message: str, build: Build) -> None:
        super().__init__(message)
        self.build = build


def compile(
    model: Model,
    passes: Passes = "prune,svd,quant",
    *,
    target: str | Target | Sequence[str | Target] = "onnx",
    shapes: Shapes | None = None,
    output: str | os.PathLike[str] | None = None,
    data: Data | Samples | Source | None = None,
    seed: int = 0,
    threads: int = 0,
    clean: bool = True,
    guard: bool = True,
    min_agreement: float | None = None,
    budget: str | Budget | None = None,
    check: bool = True,
    trail: bool = False,
    overrides: Sequence[Override] = (),
    latency_table: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    lock: Locked | Mapping[str, Locked] | None = None,
    observers: Sequence[Observer] = (),
    progress: Progress | None = None,
) -> Build:
    """Compile `model` with `passes` for `target`, and write it to `output` where that is given.

    Several targets (`"onnx,arm64"`, or a sequence) are built one after the other, and `output` is then their folder;
    passes run once for all targets of the same facts. `shapes` fixes sizes that the model leaves open, by input.
    `data` are unlabeled samples; without them the samples of a zoo model are used, or inputs are made up. Part of them
    is fitted on, part held out to judge by. `guard` undoes passes that made the model worse, and any that takes the
    agreement below `min_agreement` (a share of 1). `check` runs the artifact beside the original and times both.
    `budget` (`size=4MB,agreement=99%`) is judged at the end; a result that misses it is written and returned all the
    same: see `Build.met`. `trail` measures the agreement after every lossy pass as well. `overrides` keep single layers
    as they are, or give them options of their own. `latency_table` is a file of latencies measured on the target (`optc
    profile`), which are taken instead of measuring here. `cache` is a folder in which finished passes and builds are
    kept, so that what has not changed is not run again. `lock` is the record of an earlier build (or records by the
    text of the target), whose measurements are taken, and which a strict one must equal.

    Raises `SpecError` for bad text, `ModelError`, `DataError`, `TargetError`, `OutputError`, `LockError`, and
    `PassError` where a pass crashes. A `KeyboardInterrupt` after a lossy pass has finished writes what there is, and is
    raised as `Interrupted`.
    """
    start = time.perf_counter()
    progress = Progress() if progress is None else progress
    pipeline = Pipeline.of(passes)
    limits = Budget.parse(budget) if isinstance(budget, str) else budget
    if limits is not None and limits.measured and not check:
        raise SpecError(f"a budget on {', '.join(limits.measured)} needs the check, which --no-check leaves out")
    aims = table.distinct([target] if isinstance(target, str | Target) else target)
    for aim in aims:
        if limits is not None and limits.measured and aim.cannot_run:
            raise SpecError(f"a budget on {', '.join(limits.measured)} needs the check; {aim.name}: {aim.cannot_run}")
        aim.check_ready(run=check)
    if len(aims) > 1:
        if is_stream(data):
            shown = read(model)
            fix_shapes(shown, shapes or {})
            data = draw(model, data, shown, seed)
        again = partial(compile, model, pipeline, shapes=shapes, data=data, seed=seed, threads=threads, clean=clean,
                        guard=guard, min_agreement=min_agreement, budget=limits, check=check, trail=trail,
                        overrides=overrides, latency_table=latency_table, observers=observers,
                        progress=progress)  # fmt: skip
        return beside(again, name_of(model), aims, output, cache, lock)
    chosen = aims[0]
    if isinstance(lock, Mapping):
        lock = lock.get(table.spec(chosen))
    path = None if output is None else os.path.abspath(os.fspath(output))
    if path is not None:
        check_place(path, target=chosen)
    original = load(model)
    annotated = {value.name for node in original.walk() for value in node.outputs if value.type is not None}
    prepare(original, model)
    if shapes:
        fix_shapes(original, shapes)
    chosen.check_inputs(original)
    if is_stream(data):
        data = draw(model, data, original, seed)
    store = None if cache is None else Store(os.fspath(cache))
    name = os.path.basename(path) if path is not None else f"model{chosen.suffix}"
    passes_known = PassCache(store, known={} if lock is None else lock.rulings)
    latencies = None if latency_table is None else _table(os.fspath(latency_table), chosen)
    options = {
        "passes": [spec(one) for one in pipeline],
        "target": table.spec(chosen),
        "data": [repr(getattr(data, field, None)) for field in ("mean", "std", "layout", "resize", "limit")],
        "overrides": repr(tuple(overrides)),
        "latencies": None if latencies is None else latencies.digest,
        "run": [seed, threads, clean, guard, min_agreement, check],
    }
    hashes, codes_known = hashes_of(original, pipeline, chosen, options)
    if pipeline.lossy or check:
        hashes["data"] = identity(source_of(model, data))
        # What is drawn depends on the model, what is read on how it becomes tensors.
        passes_known.data = Fingerprint(hashes["data"], hashes["model"], json.dumps(options["data"])).text
    if lock is not None:
        lock.check_inputs(hashes, versions())
    words = ["trail"] if trail else []
    key = Fingerprint("build", json.dumps(hashes), name, environment(), *words).text if codes_known and store else ""
    ctx = Context(chosen.facts, overrides=tuple(overrides), seed=seed, threads=threads, progress=progress)
    if store is not None and key and all(observer.passive for observer in observers):
        found_build = taken(store, key, passes_known.known, path, lock, chosen)
        if found_build is not None:
            done, graph, artifact = found_build
            report = replace(done.report, model=name_of(model), artifacts=list(artifact.files) if artifact else [])
            if limits is not None:
                report.budget = judge(limits, report, graph, done.dims)
            report.notes += store.faults
            report.seconds = time.perf_counter() - start
            lower(original, *newest_loadable())
            judges = partial(held_out, model, data, original, ctx) if done.report.samples is not None else lambda: None
            return Build(graph, report, chosen, original, artifact, key, judges)
    notes = lower(original, *newest_loadable())
    graph = original.clone()

    found: Samples | None = None
    teacher: Session | None = None
    if pipeline.lossy or check:
        try:
            found, teacher = runnable(model, data, original, ctx)
        except (DataError, TargetError) as error:
            if isinstance(error, DataError) and not (data is None or (isinstance(data, Data) and data.source is None)):
                raise
            if pipeline.lossy:
                raise type(error)(f"{error}; to clean it without running it: --passes clean --no-check") from error
            notes.append(f"the result was not run beside the original: {error}")
    if found is not None:
        ctx.fit, ctx.held = found.split(held_count(found.count), seed)
        ctx.data = source_text(data)
        notes += sample_notes(found, pipeline)

    dims = sizes(original, found)
    ctx.latencies = None if latencies is None else Estimator(latencies, dims)
    report = BuildReport(
        model=name_of(model),
        pipeline=str(pipeline),
        target=table.spec(chosen),
        seed=seed,
        versions=versions(),
        before=size_of(original, dims),
        after=size_of(original, dims),
        notes=notes,
        hashes=hashes,
    )
    recorder = Recorder(dims, ctx if trail else None)
    warden = Guard(min_agreement) if guard and ctx.held is not None else None
    first = Pipeline.parse("clean") if clean and not any(one.name == "clean" for one in pipeline) else Pipeline()
    last = chosen.legalisation()
    road = Pipeline((*first, *pipeline, *last))
    stopped = ""
    try:
        run(road, graph, ctx, observers=(recorder, Log(), *observers), guard=warden, cache=passes_known)
    except KeyboardInterrupt:
        if path is None or recorder.kept is None or (lock is not None and lock.strict):
            raise
        graph, stopped = recorder.kept, f"interrupted {recorder.where}"
        run(last, graph, ctx)
    # Legalisation that found nothing to do is nobody's business.
    report.steps = [step for i, step in enumerate(recorder.steps) if step.report.changed or i < len(road) - len(last)]
    forget_types(graph, annotated)
    if found is not None and ctx.fit is not None and ctx.held is not None:
        report.samples = SampleRecord(ctx.data, found.synthetic, ctx.fit.count, ctx.held.count)

    report.rulings = passes_known.rulings
    if latencies is not None:
        report.notes.append(
            f"latency is estimated from layers measured on {latencies.device}; on layers that were not, the estimate "
            f"is off by {100 * latencies.unseen()[0]:.0f} % in the median"
        )
    with staging(path) as folder:
        staged = chosen.emit(graph, os.path.join(folder, name))
        report.after = replace(size_of(graph, dims), bytes=staged.bytes)
        report.before = replace(report.before, bytes=stored_bytes(model, original))
        if check and chosen.cannot_run:
            report.notes.append(f"the artifact was not checked: it {chosen.cannot_run}")
        elif check and teacher is not None and ctx.held is not None:
            try:
                with progress.task("check"):
                    # As a user's runtime would open it, beside the original as it was read.
                    after = chosen.open(staged.path, threads=threads)
                    if stopped:
                        report.agreement = agreement(teacher, after, ctx.held.take(_GLANCE))
                    else:
                        known = None if ctx.latencies is None else estimated(ctx.latencies, original, graph)
                        compare(teacher, after, ctx.held, report, known=known)
            except KeyboardInterrupt:
                if stopped or path is None or recorder.kept is None or (lock is not None and lock.strict):
                    raise
                stopped = "interrupted during the check"
        report.outputs = {os.path.basename(file): file_digest(file) for file in staged.files}
        if lock is not None and not stopped:
            lock.check_outputs(report.outputs)
        if store is not None and key and not stopped:
            finished.keep(store, key, Finished.of(report, name, dims), folder, graph)
        if limits is not None:
            report.budget = judge(limits, report, graph, dims)
        artifact = None if path is None else move(staged, path, chosen)
    report.artifacts = [] if artifact is None else list(artifact.files)
    if store is not None:
        store.trim()
        report.notes += store.faults
    report.seconds = time.perf_counter() - start
    build = Build(graph, report, chosen, original, artifact, "" if stopped else key, lambda: ctx.held)
    if stopped:
        ran = ", ".join(step.name for step in report.steps)
        report.notes.append(f"{stopped}: this is the result of {ran}")
        raise Interrupted(f"{stopped}; the result of {ran} is kept at {path}", build)
    return build


def _table(path: str, target: Target) -> LatencyTable:
    """The latencies in a file. Raises `DataError` where they are none, or another target's."""
    try:
        with open(path, encoding="utf-8") as file:
            found = from_json(file.read(), path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DataError(f"{path} cannot be read: {why}; make a table with optc profile") from error
    if found.target != table.spec(target):
        raise DataError(f"{path} was measured on {found.target}, not on {table.spec(target)}; profile that target")
    return found
