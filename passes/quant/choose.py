"""Which form a model gets (`activations=auto`): static ranges, dynamic ones, or weights stored alone.

Every form is tried on a copy, with the pass's other options. Of those whose agreement with the teacher on held-out
samples is within `TOLERANCE` of the best, the fastest here is taken; where none is faster than the float model, the
weights alone are stored. For a target that cannot be timed here, the first within the tolerance is taken, in the order
in which they are usually fast: static, dynamic, weights alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...runtime.agreement_text import percent
from ..base import Context, Outcome, Report
from ..recall import ratios

if TYPE_CHECKING:
    from ...ir.graph import Graph

Form = Literal["int8", "dynamic", "none"]

TOLERANCE = 0.01
FASTER = 0.97
"""The share of the float model's time below which a form counts as faster."""


@dataclass(frozen=True, slots=True)
class Tried:
    """`share` is the agreement on held-out samples; `ratio` the time of a run relative to the float model."""

    form: Form
    graph: Graph
    report: Report
    share: float
    ratio: float


def run_best(run: Callable[[Form, Graph], Report], graph: Graph, ctx: Context) -> Report:
    """Turn `graph` into the best of the forms, each of which `run` makes of a copy; its report tells of all."""
    from ...runtime.latency import latency
    from ...runtime.session import Session

    forms: list[Form] = ["int8", "dynamic", "none"]
    if not any(node.op in ("MatMul", "Gemm", "LSTM") for node in graph):
        forms.remove("dynamic")
    copies = [graph.clone() for _ in forms]
    reports = [run(form, copy) for form, copy in zip(forms, copies, strict=True)]
    times: Sequence[float] = [1.0] * len(forms)
    if ctx.latencies is not None:
        times = [ctx.latencies.ratio(graph, copy) for copy in copies]
    elif ctx.target.measurable and ctx.held_out is not None:
        feeds = next(ctx.held_out.batches(1))

        def measured() -> str:
            sessions = [Session(g, threads=ctx.threads) for g in (graph, *copies)]
            return json.dumps([one.ratio for one in latency(sessions, feeds)[1:]])

        times = ctx.recall("times of the forms", measured, ratios(len(forms)))
    tried = [
        Tried(form, copy, report, _share(copy, graph, ctx), ratio)
        for form, copy, report, ratio in zip(forms, copies, reports, times, strict=True)
    ]
    best = _pick(tried, ctx)
    graph.become(best.graph)
    figures = "; ".join(
        f"{t.form}: agreement {percent(t.share)}" + (f", {t.ratio:.2f} of the time" if ctx.timed else "") for t in tried
    )
    best.report.notes.insert(0, f"activations=auto chose {best.form} ({figures})")
    return best.report


def _pick(tried: list[Tried], ctx: Context) -> Tried:
    near = [t for t in tried if t.share >= max(t.share for t in tried) - TOLERANCE]
    if not ctx.timed:
        return near[0]
    fastest = min(near, key=lambda t: t.ratio)
    worked = any(layer.outcome is Outcome.DONE for layer in fastest.report.layers)
    return fastest if worked and fastest.ratio < FASTER else next(t for t in tried if t.form == "none")


def _share(student: Graph, graph: Graph, ctx: Context) -> float:
    from ...runtime.agreement import agreement

    if ctx.held_out is None:
        return 1.0
    return agreement(
        graph if ctx.teacher is None else ctx.teacher, student, ctx.held_out, threads=ctx.threads, exact=ctx.exact
    ).share
