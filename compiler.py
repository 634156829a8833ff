"""The one road: read, clean, passes, each judged, legalise, emit, check, report."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from . import __version__
from .errors import DataError, ModelError, OutputError, SpecError, TargetError
from .ir import snapshot
from .ir.atomic import ABANDONED, discard_abandoned, hold
from .ir.cost import cost
from .ir.fingerprint import Fingerprint, file_digest
from .ir.graph import Graph
from .ir.opset import lower
from .ir.shapes import infer
from .ir.tensor import FileTensor
from .ir.verify import verify
from .passes.base import Context, Override, Pass, Progress, Report
from .passes.cached import PassCache, Ruling, code_of, code_of_module, environment, own_code
from .passes.guard import Guard
from .passes.observers import Log, Observer
from .passes.pipeline import Pipeline, spec
from .passes.runner import run
from .report import finished
from .report.budget import Budget
from .report.build import BuildReport, LatencyFigure, SampleRecord, Size, Step
from .report.finished import Finished
from .report.locked import Locked
from .report.verdict import judge
from .runtime.agreement import Agreement, agreement
from .runtime.identity import identity
from .runtime.latency import latency
from .runtime.samples import Samples, load_samples
from .runtime.session import Runnable, Session
from .runtime.store import Store
from .runtime.synthesise import synthesise
from .targets import table
from .targets.base import Artifact, Target
from .targets.onnx import newest_loadable

if TYPE_CHECKING:
    import onnx
    import onnx_graphsurgeon as gs

    from .runtime.samples import Source

Model: TypeAlias = "str | os.PathLike[str] | bytes | Graph | onnx.ModelProto | gs.Graph"
Passes: TypeAlias = "str | Pipeline | Pass | Sequence[str | Pass]"

_EMULATED = 4
"""Samples that an artifact for another machine is checked on: an emulator is slow."""
_FEW = 32
"""Samples below which fitting is a gamble."""
_GLANCE = 16
"""Samples that what is left of an interrupted build is checked on."""


@dataclass(frozen=True, slots=True)
class Data:
    """Samples as a user names them: a `source` that `load_samples` takes (none: those of a zoo model, or made-up ones),
    how its images become tensors, and how many to use at most."""

    source: Source | None = None
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    layout: Literal["auto", "NCHW", "NHWC"] = "auto"
    resize: int | tuple[int, int] | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Build:
    """What a compilation gives: the graph as emitted, the record of how it came to be, and the files if any.

    `original` is the graph as it was read, and `held` are the samples that judged, for whoever wants to look closer.
    """

    graph: Graph
    report: BuildReport
    target: Target
    original: Graph
    held: Samples | None = None
    artifact: Artifact | None = None

    @property
    def met(self) -> bool:
        """Whether the budget was met; true where there was none."""
        return self.report.budget is None or self.report.budget.met

    def save(self, path: str | os.PathLike[str]) -> Artifact:
        """Write the artifact to `path`; the same bytes each time. Raises `OutputError`."""
        return self.target.emit(self.graph, os.fspath(path))


class Interrupted(KeyboardInterrupt):
    """A build was interrupted, and what the passes before that had made was written all the same: `build`."""

    def __init__(self, message: str, build: Build) -> None:
        super().__init__(message)
        self.build = build


def read(model: Model) -> Graph:
    """The graph of a model in any form: a path, `zoo:NAME`, bytes, a ModelProto, a graphsurgeon graph, a `Graph`.

    Sorted, verified, and with types inferred. A `Graph` is copied, so the caller's own stays as it is. Raises
    `ModelError`.
    """
    graph = _load(model)
    _prepare(graph, model)
    return graph


def compile(
    model: Model,
    passes: Passes = "prune,svd,quant",
    *,
    target: str | Target = "onnx",
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
    cache: str | os.PathLike[str] | None = None,
    lock: Locked | None = None,
    observers: Sequence[Observer] = (),
    progress: Progress | None = None,
) -> Build:
    """Compile `model` with `passes` for `target`, and write it to `output` where that is given.

    `data` are unlabeled samples; without them the samples of a zoo model are used, or inputs are made up. Part of them
    is fitted on, part held out to judge by. `guard` undoes passes that made the model worse, and any that takes the
    agreement below `min_agreement` (a share of 1). `check` runs the artifact beside the original and times both.
    `budget` (`size=4MB,agreement=99%`) is judged at the end; a result that misses it is written and returned all the
    same: see `Build.met`. `trail` measures the agreement after every lossy pass as well. `overrides` keep single layers
    as they are, or give them options of their own. `cache` is a folder in which finished passes and builds are kept, so
    that what has not changed is not run again. `lock` is the record of an earlier build, whose measurements are taken,
    and which a strict one must equal.

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
    chosen = _one_target(target) if isinstance(target, str) else target
    path = None if output is None else os.path.abspath(os.fspath(output))
    if path is not None:
        check_place(path, target=chosen)
    original = _load(model)
    annotated = {value.name for node in original.walk() for value in node.outputs if value.type is not None}
    _prepare(original, model)
    if _is_stream(data):
        data = _samples(model, data, original, seed)
    store = None if cache is None else Store(os.fspath(cache))
    name = os.path.basename(path) if path is not None else f"model{chosen.suffix}"
    passes_known = PassCache(store, known={} if lock is None else lock.rulings)
    options = {
        "passes": [spec(one) for one in pipeline],
        "target": table.spec(chosen),
        "data": [repr(getattr(data, field, None)) for field in ("mean", "std", "layout", "resize", "limit")],
        "overrides": repr(tuple(overrides)),
        "run": [seed, threads, clean, guard, min_agreement, check],
    }
    hashes, codes_known = _hashes(original, pipeline, chosen, options)
    if pipeline.lossy or check:
        hashes["data"] = identity(_source(model, data))
        # What is drawn depends on the model, what is read on how it becomes tensors.
        passes_known.data = Fingerprint(hashes["data"], hashes["model"], json.dumps(options["data"])).text
    if lock is not None:
        lock.check_inputs(hashes, versions())
    key = Fingerprint("build", json.dumps(hashes), name, environment()).text if codes_known and not trail else ""
    if store is not None and key and all(observer.passive for observer in observers):
        taken = _taken(store, key, passes_known.known, path, lock, chosen)
        if taken is not None:
            done, graph, artifact = taken
            report = replace(done.report, model=name_of(model), artifacts=list(artifact.files) if artifact else [])
            if limits is not None:
                report.budget = judge(limits, report, graph, done.dims)
            report.notes += store.faults
            report.seconds = time.perf_counter() - start
            return Build(graph, report, chosen, original, None, artifact)
    notes = lower(original, *newest_loadable())
    graph = original.clone()

    ctx = Context(chosen.facts, overrides=tuple(overrides), seed=seed, threads=threads, progress=progress)
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
        ctx.fit, ctx.held = found.split(_held(found.count), seed)
        ctx.data = _source_text(data)
        notes += _sample_notes(found, pipeline)

    dims = sizes(original, found)
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
    recorder = _Recorder(dims, ctx if trail else None)
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
    _forget_types(graph, annotated)
    if found is not None and ctx.fit is not None and ctx.held is not None:
        report.samples = SampleRecord(ctx.data, found.synthetic, ctx.fit.count, ctx.held.count)

    report.rulings = passes_known.rulings
    with _staging(path) as folder:
        staged = chosen.emit(graph, os.path.join(folder, name))
        report.after = replace(size_of(graph, dims), bytes=staged.bytes)
        report.before = replace(report.before, bytes=stored_bytes(model, original))
        if check and teacher is not None and ctx.held is not None:
            try:
                with progress.task("check"):
                    # As a user's runtime would open it, beside the original as it was read.
                    after = chosen.open(staged.path, threads=threads)
                    if stopped:
                        report.agreement = agreement(teacher, after, ctx.held.take(_GLANCE))
                    else:
                        compare(teacher, after, ctx.held, report)
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
        artifact = None if path is None else _move(staged, path, chosen)
    report.artifacts = [] if artifact is None else list(artifact.files)
    if store is not None:
        store.trim()
        report.notes += store.faults
    report.seconds = time.perf_counter() - start
    build = Build(graph, report, chosen, original, ctx.held, artifact)
    if stopped:
        ran = ", ".join(step.name for step in report.steps)
        report.notes.append(f"{stopped}: this is the result of {ran}")
        raise Interrupted(f"{stopped}; the result of {ran} is kept at {path}", build)
    return build


def _hashes(
    original: Graph, pipeline: Pipeline, target: Target, options: Mapping[str, object]
) -> tuple[dict[str, str], bool]:
    """The digests of what goes into a build but for the samples, and whether the code of every pass is known."""
    codes = [*map(code_of, pipeline), code_of_module(type(target).__module__)]
    found = {
        "model": snapshot.digest(original),
        "data": "",
        "options": Fingerprint(json.dumps(options, sort_keys=True)).text,
        "code": Fingerprint(own_code(), *(code or "unknown" for code in codes)).text,
    }
    return found, None not in codes


def _taken(
    store: Store, key: str, known: Mapping[str, Ruling], path: str | None, lock: Locked | None, target: Target
) -> tuple[Finished, Graph, Artifact | None] | None:
    """The build under `key`, with its files in their place; `None` where it has to be built."""
    found = finished.find(store, key, known)
    if found is None or path is None:
        return None if found is None else (*found, None)
    if lock is not None:
        lock.check_outputs(found[0].report.outputs)
    with _staging(path) as folder:
        staged = finished.place(store, found[0], folder)
        return None if staged is None else (*found, _move(staged, path, target))


def _one_target(text: str) -> Target:
    found = table.parse(text)
    if len(found) != 1:
        raise SpecError(f"one target is built at a time, not {len(found)}", text=text, position=0)
    return found[0]


class _Recorder(Observer):
    """Notes what the model cost after every pass, how far they are, and the graph after the last lossy one.

    Where a context is given, also how far a graph that a pass changed agrees with the teacher.
    """

    def __init__(self, dims: Mapping[str, int], ctx: Context | None = None) -> None:
        self.steps: list[Step] = []
        self.where = ""
        self.kept: Graph | None = None
        self._dims = dims
        self._ctx = ctx

    def before(self, position: int, one: Pass, graph: Graph) -> None:
        self.where = f"during '{one.name}'"

    def after(self, position: int, one: Pass, graph: Graph, report: Report) -> None:
        found: Agreement | None = None
        ctx = self._ctx
        if ctx is not None and ctx.teacher is not None and ctx.held is not None and report.changed:
            found = agreement(ctx.teacher, graph, ctx.held, threads=ctx.threads)
        self.steps.append(Step(one.name, report, size_of(graph, self._dims), found))
        self.where = f"after '{one.name}'"
        if one.lossy:
            self.kept = graph.clone()


def _load(model: Model) -> Graph:
    if isinstance(model, Graph):
        return model.clone()
    if isinstance(model, bytes):
        from .ir.reader import from_bytes

        return from_bytes(model)
    if isinstance(model, str | os.PathLike):
        path = os.fspath(model)
        if path.startswith("zoo:"):
            from .models.zoo import load as load_zoo

            return load_zoo(path.removeprefix("zoo:"))
        from .ir.reader import load

        return load(path)
    if type(model).__module__.startswith("onnx_graphsurgeon"):
        from .ir.surgeon import from_surgeon

        return from_surgeon(model)
    from .ir.reader import from_proto

    return from_proto(model)


def _prepare(graph: Graph, model: Model) -> None:
    """Sort, verify and type a graph that was just loaded; a complaint names the file it came from."""
    try:
        graph.sort()
        verify(graph)
        infer(graph)
    except ModelError as error:
        if isinstance(model, str | os.PathLike):
            raise ModelError(f"{os.fspath(model)}: {error}") from error
        raise


def _forget_types(graph: Graph, annotated: Collection[str]) -> None:
    """Drop the types inferred of values inside, but for the names given: a file must not grow by annotations."""
    for node in graph.walk():
        for value in node.outputs:
            if value.name not in annotated:
                value.type = None


def runnable(model: Model, data: Data | Samples | Source | None, graph: Graph, ctx: Context) -> tuple[Samples, Session]:
    """The samples, and the model ready to run on them.

    Many an exported model declares a batch axis and holds a Reshape to one sample: it is fed one at a time. Raises
    `DataError` where there are no samples, and `TargetError` where the model does not run on the first.
    """
    found = _samples(model, data, graph, ctx.seed)
    session = Session(graph, threads=ctx.threads)
    try:
        session.run(next(found.batches(1)))
    except TargetError as error:
        fix = "give samples with --data" if found.synthetic else "see whether the samples are what the model takes"
        raise TargetError(f"{error}; {fix}") from error
    if found.batched and found.count > 1:
        try:
            session.run(next(found.batches(2)))
        except TargetError:
            return found.singly(), session
    return found, session


def _samples(model: Model, data: Data | Samples | Source | None, graph: Graph, seed: int) -> Samples:
    if isinstance(data, Samples):
        return data
    given = data if isinstance(data, Data) else Data(data)
    source = _source(model, given)
    assert not isinstance(source, Samples)
    if source is None:
        found = synthesise(graph, seed=seed)
    else:
        found = load_samples(source, graph, mean=given.mean, std=given.std, layout=given.layout, resize=given.resize)
    return found if given.limit is None else found.take(given.limit, seed)


def _source(model: Model, data: Data | Samples | Source | None) -> Samples | Source | None:
    """Where samples come from: as given, or those a model of the zoo was made with; `None` where they are drawn."""
    source = data.source if isinstance(data, Data) else data
    if source is None and isinstance(model, str) and model.startswith("zoo:"):
        from .models import zoo

        name = model.removeprefix("zoo:")
        return zoo.samples(name, "calib") if zoo.find(name).kind == "trained" else None
    return source


def _is_stream(data: Data | Samples | Source | None) -> bool:
    """Whether the samples can be read only once."""
    source = data.source if isinstance(data, Data) else data
    return not (source is None or isinstance(source, Samples | str | os.PathLike | np.ndarray | Mapping))


def _source_text(data: Data | Samples | Source | None) -> str:
    source = data.source if isinstance(data, Data) else data
    return os.fspath(source) if isinstance(source, str | os.PathLike) else ""


def _sample_notes(found: Samples, pipeline: Pipeline) -> list[str]:
    notes = list(found.notes)
    if found.synthetic:
        notes.append("no --data was given, so inputs were made up; real samples fit better and judge truly")
    elif pipeline.lossy and found.count < _FEW:
        notes.append(f"only {found.count} samples were given; a few hundred fit much better")
    return notes


def _held(count: int) -> int:
    """Samples kept out of every fit: a fifth, at least 16, at most 128."""
    return max(16, min(128, count // 5))


def sizes(graph: Graph, found: Samples | None) -> dict[str, int]:
    """What the symbolic dimensions are for one sample: 1 for the batch, the sample's own sizes elsewhere."""
    if found is None:
        return {}
    feeds = next(found.batches(1))
    return {
        dim: size
        for value in graph.inputs
        if value.name in feeds and value.shape is not None
        for dim, size in zip(value.shape, feeds[value.name].shape, strict=True)
        if isinstance(dim, str)
    }


def size_of(graph: Graph, dims: Mapping[str, int]) -> Size:
    found = cost(graph, dims)
    return Size(found.bytes, found.params, found.macs, sum(1 for _ in graph.walk()))


def compare(before: Session, after: Runnable, held: Samples, report: BuildReport) -> None:
    """Note in `report` how far `after` agrees with `before`, and how long each of them takes."""
    if after.emulated:
        few = held.take(_EMULATED)
        report.agreement = agreement(before, after, few, batch=1)
        report.notes.append(f"checked on {few.count} samples under emulation, which tells nothing of its speed")
        return
    report.agreement = agreement(before, after, held)
    feeds = next(held.batches(1))
    old, new = latency((before, after), feeds)
    report.latency = LatencyFigure(
        1e3 * old.seconds, 1e3 * new.seconds, new.ratio, new.low, new.high, held.size_of(feeds), before.threads
    )


def name_of(model: Model) -> str:
    return os.fspath(model) if isinstance(model, str | os.PathLike) else type(model).__name__


def stored_bytes(model: Model, graph: Graph) -> int:
    """Bytes of the model as it was given: its file and its external data, or what a file of it would take."""
    if isinstance(model, str | os.PathLike) and not os.fspath(model).startswith("zoo:"):
        files = {os.path.abspath(os.fspath(model))}
        for owner in graph.graphs():
            files.update(v.constant.source.path for v in owner.constants if isinstance(v.constant, FileTensor))
        return sum(os.path.getsize(file) for file in files)
    from .ir.writer import size

    return size(graph)


def versions() -> dict[str, str]:
    return {"optc": __version__, **{name: version(name) for name in ("onnx", "onnxruntime", "numpy", "scipy")}}


def check_place(path: str, flag: str = "-o", target: Target | None = None) -> None:
    """Fail before the work rather than after it where no file can be put at `path`. Raises `OutputError`."""
    path = os.path.abspath(path)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise OutputError(f"there is no folder {folder}; make it, or choose another place with {flag}")
    if target is not None:
        target.check_place(path)
    if os.path.isdir(path) and (target is None or not target.folder):
        raise OutputError(f"{path} is a folder; name a file with {flag}")
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        # A device or a pipe would be replaced by a file.
        raise OutputError(f"{path} is not a plain file; name one with {flag}")
    with _staging(path, flag):  # the only sure way to know is to try
        pass


@contextlib.contextmanager
def _staging(path: str | None, flag: str = "-o") -> Iterator[str]:
    """A folder to emit into, beside the output so that moving the files there is a rename; gone afterwards."""
    if path is not None:
        discard_abandoned(os.path.dirname(path))
    try:
        folder = tempfile.mkdtemp(prefix=ABANDONED, dir=None if path is None else os.path.dirname(path))
        handle = os.open(folder, os.O_RDONLY) if os.name == "posix" else None
    except OSError as error:
        where = os.path.dirname(path) if path is not None else tempfile.gettempdir()
        raise OutputError(f"cannot write in {where}: {error.strerror}; choose another place with {flag}") from error
    try:
        if handle is not None:
            hold(handle)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _move(staged: Artifact, path: str, target: Target) -> Artifact:
    """Put the checked files in their place."""
    try:
        return target.place(staged, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another place with -o") from error
