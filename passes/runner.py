"""Running a pipeline: every pass verified, watched and, where it is lossy, judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ..errors import ModelError, OptcError, PassError, TargetError, lacks_memory
from ..ir.same import same
from ..ir.shapes.infer import infer
from ..ir.text.snapshot import digest, settle
from ..ir.verify.verify import verify
from ..runtime.parallel import single_blas
from .base import Context, Pass, Report, Rivals
from .bisection import breaking, keeping, tell
from .cached import PassCache, ruling_key
from .guard import DISAGREES, SLOW, Guard
from .half import Stored, look_through, restore
from .observers import Observer
from .pipeline import Pipeline, spec

if TYPE_CHECKING:
    from ..ir.graph import Graph

_T = TypeVar("_T")


def run(
    pipeline: Pipeline,
    graph: Graph,
    ctx: Context,
    *,
    observers: Sequence[Observer] = (),
    guard: Guard | None = None,
    cache: PassCache | None = None,
) -> list[Report]:
    """Run every pass on `graph` in place; one report a pass, in order.

    The graph as the first lossy pass is given it becomes the teacher, unless there is one already. After each pass what
    became dead is removed, nodes are sorted, types inferred anew, the graph verified, and brought into the form in
    which `cache` would give it back. A pass that `guard` rejects is undone and its report says why; one that `cache`
    knows is not run. Raises what a pass raises on purpose (`OptcError`) as it is; anything else, an invalid graph, and
    one that fails where the graph before ran, as `PassError` with what the observers say about it.
    """
    reports = []
    if cache is not None and not cache.serves(pipeline):
        cache = None
    settle(graph)
    state = "" if cache is None else digest(graph)
    teacher = "" if cache is None or ctx.teacher is None else digest(ctx.teacher)
    for position, one in enumerate(pipeline, start=1):
        for observer in observers:
            observer.before(position, one, graph)
        if one.lossy and ctx.teacher is None:
            ctx.teacher, teacher = graph.clone(), state
        ctx.forward, ctx.rewritten = 0.0, None
        ctx.rivals = _rivals(pipeline, position)
        start = time.perf_counter()
        if cache is None:
            report, _ = _checked(position, one, graph, ctx, observers, guard, None, "")
            _time(report, start, ctx)
        else:
            key = cache.key(one, state, teacher, ctx, guard)
            stored = cache.find(key)
            if stored is not None:
                graph.become(stored[0])
                settle(graph)
                state, report = stored[1].graph, stored[1].report
                report.cached = True
            else:
                ctx.recall, ctx.draft = _Recall(cache, one, state), cache.draft(key)
                ctx.measure = partial(cache.measured, ctx.target, ctx.threads)
                report, as_it_was = _checked(position, one, graph, ctx, observers, guard, cache, state)
                _time(report, start, ctx)
                state = cache.keep(None if report.interrupted else key, graph, report, state if as_it_was else "")
        reports.append(report)
        for observer in observers:
            observer.after(position, one, graph, report)
    return reports


def _rivals(pipeline: Pipeline, position: int) -> Rivals:
    words = pipeline.passes[position - 1].rivals
    before, after = pipeline.passes[: position - 1], pipeline.passes[position:]
    return Rivals(tuple(x for x in before if x.name in words), tuple(x for x in after if x.name in words))


def _time(report: Report, start: float, ctx: Context) -> None:
    report.seconds = time.perf_counter() - start
    report.forwards = report.seconds / ctx.forward if ctx.forward else None


def _checked(
    position: int,
    one: Pass,
    graph: Graph,
    ctx: Context,
    observers: Sequence[Observer],
    guard: Guard | None,
    cache: PassCache | None,
    state: str,
) -> tuple[Report, bool]:
    """Run one pass on `graph`, whose digest is `state`, and let the guard judge it; returns the report and whether the
    graph is as it was."""
    before = graph.clone()
    try:
        report = _run_one(one, graph, ctx)
    except (OptcError, MemoryError) as error:
        if isinstance(error, TargetError) and _runs(before, ctx):
            raise _crash(position, one, before, ctx, observers, str(error)) from error
        raise
    except Exception as error:
        if lacks_memory(error):
            raise MemoryError(str(error)) from error
        raise _crash(position, one, before, ctx, observers, f"{type(error).__name__}: {error}") from error
    # What passes before have left is tidy. The report alone does not tell: a layer that stays float may be stored anew.
    if position > 1 and not report.changed and same(graph, before):
        graph.become(before)
        return report, True
    try:
        _tidy(graph)
    except ModelError as error:
        raise _crash(position, one, before, ctx, observers, f"left an invalid graph: {error}") from error
    reason = ""
    if guard is not None and one.lossy and report.changed:
        rules = guard  # which is there, for what is called later

        def objection(result: Graph, record: Report) -> str:
            if cache is None:
                return rules.objection(one, before, result, ctx, record)
            key = ruling_key(one, state, digest(result), repr(guard))
            return cache.judged(key, record, lambda: rules.objection(one, before, result, ctx, record))

        try:
            reason = objection(graph, report)
            if reason.startswith(DISAGREES):
                partly = _in_part(one, before, ctx, rules.floor_of(one) or 0.0, reason, objection)
                if partly is not None:
                    graph.become(partly[0])
                    return partly[1], False
        except TargetError as error:
            if not _runs(before, ctx):
                raise
            raise _crash(position, one, before, ctx, observers, f"left a graph that fails: {error}") from error
        if reason:
            graph.become(before)
            other = _in_float(position, one, reason, graph, ctx, observers, guard, cache, state)
            if other is not None:
                return other, False
            report.revert(reason)
    return report, bool(reason)


def _in_float(
    position: int,
    one: Pass,
    reason: str,
    graph: Graph,
    ctx: Context,
    observers: Sequence[Observer],
    guard: Guard,
    cache: PassCache | None,
    state: str,
) -> Report | None:
    """What the form of `one` that computes in float made of `graph`, where `reason` is that its own was slow or lost
    too much; `None`, and then the graph is as it was, where there is no such form or that did not pay either."""
    other = one.in_float
    # Elsewhere than in ONNX Runtime, weights that are decoded once are floats in the artifact.
    if other is None or not reason.startswith((SLOW, DISAGREES)) or not ctx.target.contrib_ops:
        return None
    report, _ = _checked(position, other, graph, ctx, observers, guard, cache, state)
    if not report.changed:
        return None
    keeps = f" ({one.name}:slower=int8 keeps them)" if reason.startswith(SLOW) else ""
    report.notes.insert(0, f"run as {report.spec}: {reason} in integers here{keeps}")
    report.spec = spec(one)
    return report


def _tidy(graph: Graph) -> None:
    """Raises `ModelError` where a pass left an invalid graph."""
    graph.sweep()
    graph.sort()
    infer(graph, fresh=True)
    verify(graph)
    settle(graph)


def _in_part(
    one: Pass,
    before: Graph,
    ctx: Context,
    floor: float,
    reason: str,
    objection: Callable[[Graph, Report], str],
) -> tuple[Graph, Report] | None:
    """What `one` makes of `before` without the layers that break it, to which there is no `objection`; else `None`.

    Layers are tried as the pass makes them where none is to repair what others lost: weights that do are wrong beside
    layers that lost nothing. A trial that leaves other layers as they were may flatter the rest; where it did, twice as
    many are kept so.
    """
    apart, after = replace(ctx, repairs=False, rewritten=None), before.clone()
    report = _run_one(one, after, apart)
    _tidy(after)
    start = apart.rewritten or before.clone()
    one.requires(start, ctx)  # which may have raised the opset of `after`
    infer(start, fresh=True)
    layers, order = breaking(start, after, report, ctx, floor)
    others = [layer for layer in order if layer not in layers]
    attempts = [(layers, one.in_float), ([*layers, *others[: len(layers)]], None)]
    for kept, form in attempts if layers else ():
        trial = before.clone()
        partial_report = _run_one(one, trial, keeping(ctx, one, kept, form))
        if not partial_report.changed:
            return None
        _tidy(trial)
        if not objection(trial, partial_report):
            tell(partial_report, kept, f"with them {reason}", form)
            return trial, partial_report
    return None


@dataclass(frozen=True, slots=True)
class _Recall:
    """The answers of `one`, run on the graph with the digest `state`."""

    cache: PassCache
    one: Pass
    state: str

    def __call__(self, question: str, decide: Callable[[], str], read: Callable[[str], _T]) -> _T:
        return self.cache.recalled(ruling_key(self.one, self.state, question), question, decide, read)


def _run_one(one: Pass, graph: Graph, ctx: Context) -> Report:
    one.requires(graph, ctx)
    halves = look_through(graph) if one.lossy else Stored()
    # What is lossless solves nothing, and needs no scipy.
    with single_blas() if one.lossy else nullcontext():
        report = one.run(graph, ctx)
    restore(graph, halves)
    report.spec = spec(one)
    return report


def _runs(graph: Graph, ctx: Context) -> bool:
    """Whether the runtime takes the graph and every sample; where it does, a failure inside a pass is the pass's."""
    from ..runtime.session import Session

    try:
        session = Session(graph, threads=ctx.threads)
        for part in (ctx.fit, ctx.held_out):
            for feeds in () if part is None else part.batches(32):
                session.run(feeds)
    except OptcError:
        return False
    return True


def _crash(
    position: int, one: Pass, before: Graph, ctx: Context, observers: Sequence[Observer], what: str
) -> PassError:
    said = [sentence for o in observers if (sentence := o.crashed(position, one, before, ctx))]
    # What others raise may run over many lines.
    return PassError("; ".join([" ".join(what.split()), *said]), pass_name=one.name, position=position)
