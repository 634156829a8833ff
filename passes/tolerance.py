"""How much a pass that was given no amount may lose: as much as leaves the model agreeing with its teacher.

The pass runs on a copy at one tolerance after the other, from loose to strict, and the first result that agrees on the
held-out samples stays. Where none does the graph is left as it was, and every layer says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .base import Context, Report

if TYPE_CHECKING:
    from ..ir.graph import Graph

TOLERANCES = (0.005, 0.001)
"""Losses in a layer, as shares of its answer's variance."""

SAFE = 0.96
"""The agreement with the teacher that a result must keep."""


def loosest(graph: Graph, ctx: Context, run: Callable[[Graph, float], Report]) -> Report:
    """Run a pass, given as a function of graph and tolerance, at the loosest of `TOLERANCES` that is safe.

    Without held-out samples or a teacher there is nothing to judge by, and the strictest is taken.
    """
    if ctx.held is None or ctx.teacher is None:
        return run(graph, TOLERANCES[-1])
    from ..runtime.agreement import agreement

    report = Report()
    for tolerance in TOLERANCES:
        trial = graph.clone()
        report = run(trial, tolerance)
        if not report.changed:
            return report
        share = agreement(ctx.teacher, trial, ctx.held, threads=ctx.threads).share
        if share >= SAFE:
            graph.become(trial)
            report.notes.append(f"lost at most {tolerance:g} of a layer's answer; agreement {share:.4f}")
            return report
    report.revert(
        f"even at an error of {TOLERANCES[-1]:g} a layer, agreement would fall to {share:.4f}, below {SAFE:g}"
    )
    return report
