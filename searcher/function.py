"""`optc.search`: a budget goes in, the best model that keeps it comes out."""

from __future__ import annotations

import logging
import os
import time as clock
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from ..compiler.data import Data, source_of
from ..compiler.model import Model, name_of, read
from ..compiler.options import Options
from ..compiler.place import check_place
from ..compiler.result import Build
from ..errors import SpecError
from ..ir.text.snapshot import digest
from ..passes.base import Progress
from ..project.cluster import Cluster
from ..report.budget import Budget
from ..report.search import Candidate, OptionRow, SearchReport, SiteRow
from ..storage.store import Store
from ..storage.workspace import Workspace
from .judge import Judge, Judged, Workers
from .loop import Loop, best_text, key_of
from .order import wanted
from .reach import least_reachable
from .record import write_plan
from .strategies import STRATEGIES, strategy
from .task import Task

DEFAULT_TIME = 300.0
"""Seconds of a search that is told none."""

_LOG = logging.getLogger("optc")


@dataclass(frozen=True, slots=True, repr=False)
class Search:
    """What a search gives: the `build` of the best candidate, and the record of all of them."""

    build: Build
    report: SearchReport

    @property
    def met(self) -> bool:
        """Whether the budget was met."""
        return self.report.met


class Stopped(KeyboardInterrupt):
    """A search was interrupted; what it had found by then is `search`, `None` where there was nothing yet."""

    def __init__(self, message: str, search: Search | None) -> None:
        super().__init__(message)
        self.search = search


def search(
    model: Model,
    budget: str | Budget | None = None,
    *,
    time: float = DEFAULT_TIME,
    strategy: str = STRATEGIES[0],
    teach: bool = True,
    candidates: int = 0,
    forms: Sequence[str] = (),
    plan: str | os.PathLike[str] | None = None,
    scheduler: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
    **options: object,
) -> Search:
    """Search the options of all passes for the best model that keeps `budget`, in about `time` seconds.

    Best is what loses least of the answers within limits on costs; where the budget has floors alone, what is smallest
    (and fastest, where latency counts) above them. The best so far is written to `output` and its configuration to
    `plan` after every improvement, once it keeps the budget; at the end what comes nearest, where nothing does
    (`Search.met`). `teach` lets the end of the time go to `distill`. `candidates`
    bounds their number, 0 does not. `forms` are those that layers may compute in (`float`, `int8`, `dynamic`, `none`),
    and those worth trying unless given. `scheduler` is the address of a Dask scheduler, whose workers build the
    candidates. `tell` is given a line for each improvement. Every other option is one of `optc.Options`. What was
    surveyed and judged is kept in `cache`, and goes on from there.

    Raises what `optc.compile` does, and `SpecError`, `DataError`, `ModelError` for a search that cannot be. A
    `KeyboardInterrupt` is raised as `Stopped`, the best so far written.
    """
    whole = Options(budget=budget, **options)  # type: ignore[arg-type]
    return search_with(model, whole, time, strategy, teach, candidates, forms, plan, tell, scheduler)


def search_with(
    model: Model,
    options: Options,
    time: float,
    word: str,
    teach: bool,
    candidates: int,
    forms: Sequence[str],
    plan: str | os.PathLike[str] | None,
    tell: Callable[[str], None],
    scheduler: str | None = None,
) -> Search:
    """`search`, with its options as one value."""
    begin = clock.monotonic()
    if not time > 0:
        raise SpecError(f"a search takes some time, such as 5m, not {time:g} s")
    strategy(word)
    budgeted = wanted(model, options, forms)
    if plan is not None:
        if not isinstance(model, str | os.PathLike):
            raise SpecError("a plan names its model by path: search a file, or leave the plan out")
        if options.output is None:
            raise SpecError("a plan says where its model goes: give an output beside it")
        check_place(os.fspath(plan), "--plan")
    if options.output is not None:
        check_place(os.path.abspath(options.output))
    where = "" if options.output is None else f"; the best so far is kept at {os.fspath(options.output)}"
    tell(f"searches for {time:g} s{where}")
    key = key_of(digest(read(model)), options, model)
    with ExitStack() as stack:
        folder = options.cache if options.cache is not None else stack.enter_context(Workspace())
        judge = Judge(
            model, replace(options, passes="clean", progress=None), budgeted.budget, Store(os.fspath(folder)), key
        )
        if scheduler is not None:
            cluster = stack.enter_context(Cluster(scheduler))
            judge.workers = Workers.of(cluster, model, judge.options)
            tell(f"{cluster.workers} worker(s) of {scheduler} build candidates")
        written = _Written(model, options, judge, plan, tell)
        progress = options.progress or Progress()
        loop = Loop(judge, budgeted, word, time, candidates, progress, written.improved, begin)
        stopped = False
        try:
            task = loop.run(model, key, teaches=teach and _real(model, options))
        except KeyboardInterrupt:
            stopped = True
            if loop.task is None or loop.task.best is None:
                raise Stopped("interrupted before a candidate was built; nothing was written", None) from None
            task = loop.task
        best = task.best
        if best is None:
            reasons = sorted({one.figures.failed for one in task.judged})
            raise SpecError(f"no candidate could be built: {reasons[0]}")
        build = written.final(best)
        report = _report(loop, task, best, build)
        report.notes = [*_notes(task, report.met), *judge.notes, *report.notes]
        judge.store.trim()
        result = Search(build, report)
        if stopped:
            raise Stopped(f"interrupted after {len(task.judged)} candidates{where}", result)
        return result


@dataclass(slots=True)
class _Written:
    """What is on disk: the best candidate that keeps the budget, and its plan."""

    model: Model
    options: Options
    judge: Judge
    plan: str | os.PathLike[str] | None
    tell: Callable[[str], None]

    def improved(self, one: Judged, task: Task) -> None:
        self.tell(f"{one.at:.0f} s, {one.strategy}: {best_text(one)}")
        if one.figures.met:
            self.final(one)

    def final(self, one: Judged) -> Build:
        """Build a candidate where it belongs, and write its plan."""
        output = None if self.options.output is None else os.path.abspath(self.options.output)
        build = self.judge.build(one.plan, output, one.figures.rulings)
        if self.plan is not None and output is not None:
            name = os.fspath(self.model)  # type: ignore[arg-type]
            write_plan(os.fspath(self.plan), name, output, self.options, one.plan, build.report)
        return build


def _real(model: Model, options: Options) -> bool:
    """Whether samples are real ones."""
    source = options.source
    return not isinstance(source, Data) or source_of(model, source) is not None


def _notes(task: Task, met: bool) -> list[str]:
    notes, space = [], task.space
    if not space.layers:
        notes.append(
            "there was no time to survey the layers, so no more than known pipelines were tried; search longer, and it "
            "goes on from here"
        )
    elif space.unseen:
        notes.append(
            f"there was no time to survey {space.unseen} of {len(space.layers)} layers, which keep their structure; "
            "search longer, and it goes on from here"
        )
    failed = [one for one in task.judged if one.figures.failed and one.pick is not None]
    if failed:
        notes.append(f"{len(failed)} candidate(s) could not be built, the first one: {failed[0].figures.failed}")
    if not met:
        notes += least_reachable(task)
    return notes


def _report(loop: Loop, task: Task, best: Judged, build: Build) -> SearchReport:
    verdict, space = build.report.budget, task.space
    assert verdict is not None
    chosen = (
        {} if best.pick is None else {(site.name, site.kind): option.word for site, option in space.chosen(best.pick)}
    )
    return SearchReport(
        model=name_of(loop.judge.model),
        target=build.report.target,
        wanted=str(verdict.budget),
        strategy=loop.strategy,
        allowed=loop.seconds,
        seconds=loop.elapsed,
        candidates=[_candidate(one) for one in task.judged],
        sites=[
            SiteRow(
                site.name,
                site.kind,
                tuple(OptionRow(o.word, o.loss, o.macs, o.params, o.time, o.measured) for o in site.options),
                chosen.get((site.name, site.kind), ""),
            )
            for site in space.sites
        ],
        chosen=task.judged.index(best),
        budget=verdict,
        recalled=loop.recalled,
        notes=list(build.report.notes),
        artifacts=list(build.artifacts),
    )


def _candidate(one: Judged) -> Candidate:
    figures = one.figures
    return Candidate(
        one.at,
        one.strategy,
        one.plan.passes,
        {str(metric): cost for metric, cost in figures.costs.items()},
        figures.loss,
        figures.agreement,
        figures.met,
        one.taught,
        figures.failed,
    )
