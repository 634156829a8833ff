"""How much a pass that was given no amount may lose: as much as leaves the model agreeing with its teacher.

The pass runs on a copy with one amount or another, by bisection from loose to strict, and the loosest result that
agrees with the teacher on the held-out samples stays. The teacher is the model before the first lossy pass, so all
passes of a pipeline share what may be lost. Where no amount is safe the graph is left as it was, and every layer says
so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...runtime.agreement_text import percent
from ..base import Context, Report

if TYPE_CHECKING:
    from ...ir.graph import Graph

TOLERANCES = (0.005, 0.001)
"""Losses in a layer, as shares of its answer's variance."""

SAFE = 0.995
"""The agreement with the teacher that a result must keep, counted and to be expected (`Agreement.cautious`).

It is high because a user should not find less than 0.95. Samples to calibrate with are few, and often ones that the
network was trained on, of which it is surer than of others: a result of which they told 0.994 was found to keep 0.949.
"""

FAR = 6.0
"""How many times the disagreement that is safe a sketch has that is far from it. `prune` at .005 a layer disagrees on
.40 (MobileNetV2), .039 (a face detector), .033 (a keyword spotter) and .0045 (ResNet-20) in a sketch, on .046, .027,
.033 and less than .005 after a walk."""
FARTHEST = 10.0
"""The same of the strictest tolerance, where nothing is tried at all then. At .001 MobileNetV2 disagrees on .063 in a
sketch, and on more than .005 after a walk."""


@dataclass(frozen=True, slots=True)
class Safe:
    """The outcome of a search: the amount that was taken (`None`: none was safe), the pass's report on it (on the
    strictest where none was safe), the agreement it has (`None`: not judged, or nothing was changed), and the one that
    was demanded."""

    amount: float | None
    report: Report
    share: float | None
    floor: float


def safest(graph: Graph, ctx: Context, amounts: Sequence[float], run: Callable[[Graph, float], Report]) -> Safe:
    """Run a pass, given as a function of graph and amount, with the first of `amounts` (loose to strict) that is safe.

    Safe is an agreement of `SAFE`, or no less than `graph` has where a pass before was told to lose more. Without
    held-out samples or a teacher there is nothing to judge by, and the strictest is taken.
    """
    if ctx.held_out is None or ctx.teacher is None:
        return Safe(amounts[-1], run(graph, amounts[-1]), None, SAFE)
    best: tuple[Graph, Safe] | None = None
    low, high = 0, len(amounts)
    while low < high:
        middle = (low + high - 1) // 2
        trial = graph.clone()
        report = run(trial, amounts[middle])
        share = ctx.agreement(trial).cautious if report.changed else None
        # How far the graph agrees by itself is asked only where that decides.
        floor = SAFE if share is None or share >= SAFE else min(SAFE, ctx.agreement(graph).cautious)
        if share is None or share >= floor:
            best = trial, Safe(amounts[middle], report, share, floor)
            high = middle
        else:
            low = middle + 1
    if best is None:
        return Safe(None, report, share, floor)
    graph.become(best[0])
    return best[1]


def loosest(
    graph: Graph,
    ctx: Context,
    run: Callable[[Graph, float], Report],
    sketched: Callable[[float], float] | None = None,
    left: Callable[[str], Report] | None = None,
) -> Report:
    """Run a pass, given as a function of graph and tolerance, at the loosest of `TOLERANCES` that is safe.

    `sketched` is about the agreement at a tolerance, at once; one whose sketch is far from safe is not tried. Where
    none is left, `left` reports that for the reason it is given."""
    amounts = list(TOLERANCES)
    if sketched is not None and left is not None and ctx.held_out is not None and ctx.teacher is not None:
        while True:
            times = FARTHEST if len(amounts) == 1 else FAR
            loss = 1.0 - sketched(amounts[0])
            # How far the graph agrees by itself is asked only where that decides.
            if not loss > times * (1.0 - SAFE):
                break
            floor = min(SAFE, ctx.agreement(graph).cautious)
            if not loss > times * (1.0 - floor):
                break
            if len(amounts) == 1:
                return left(
                    f"even at an error of {amounts[0]:g} a layer, agreement would be far below {100 * floor:.4g} %"
                )
            del amounts[0]
    safe = safest(graph, ctx, amounts, run)
    if safe.amount is None:
        reason = f"even at an error of {TOLERANCES[-1]:g} a layer, agreement would fall to {percent(safe.share)}"
        safe.report.revert(f"{reason}, below {100 * safe.floor:.4g} %")
    elif safe.share is not None:
        note = f"lost at most {safe.amount:g} of a layer's answer; agreement {percent(safe.share)}"
        safe.report.notes.append(note)
    return safe.report
