"""Never worse: after every lossy pass, measure size, speed and agreement, and object to one that made the model worse.

Against the model as it was before the pass, worse is more stored bytes, a longer file, or a run that is slower beyond
the noise of the measurement. A pass that at least halved the model may be `BOUND` times as slow, or slower where the
user asked for its bytes (`Pass.may_be_slower`): that trade stays, with a note. A pass that is too slow and saves the
same bytes in another form (`Pass.in_float`) is run anew in that one, by the runner. Speed is that of a table of
latencies where one was given; without, it is not judged where the target is another machine than this one.

Against the teacher, worse is an agreement below the floor: the user's where one was given, and then by any amount and
where nothing could be compared. A pass whose options the user spelled out was told how much to lose, so no other floor
holds for it; a pass left to its own choice must keep `OWN_FLOOR` of the agreement that it was given, but for
the standard error of what was compared: of samples that are one answer each, or of all places, rows or scores in them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..runtime.agreement_text import whole_text
from ..runtime.kinds import Kind
from .base import Context, Pass, Report
from .pipeline import spec

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..runtime.agreement import Agreement
    from ..runtime.samples import Feeds, Samples

OWN_FLOOR = 0.9
"""The agreement that a pass running on its defaults must leave: a net under passes that aim higher by themselves."""

BOUND = 1.05
"""How many times as long a model may run for half of its bytes."""
SLOW = "it would run"
"""How an objection to a slow model begins."""
DISAGREES = "agreement of output"
"""How an objection to what is lost begins; a part of the layers may have lost it."""

NODES = 1 << 17
"""Bytes of weights that what a pass adds to the graph hardly takes."""
_HALVED = 0.5
_SLOWER = 1.01
"""A median ratio above this counts as slower, if three measurements in a row agree on it."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Judges passes on the held-out samples. `floor` is the least agreement the user wants, a share of 1."""

    floor: float | None = None

    def objection(self, one: Pass, before: Graph, after: Graph, ctx: Context, report: Report) -> str:
        """Why `after`, which `one` made out of `before`, must not stay; empty where it may.

        What the user should know of a result that stays goes into the notes of `report`.
        """
        from ..ir.cost import cost

        old, new = cost(before).bytes, cost(after).bytes
        if new > old:
            return f"the weights would grow from {old:,} to {new:,} bytes"
        # Whether the graph runs at all is told by what it answers, before its length is looked at.
        objection = self._disagreement(one, before, after, ctx, report)
        if not objection and ctx.target.contrib_ops and old - new < NODES:
            objection = _growth(before, after)
        if objection or ctx.held_out is None or ctx.teacher is None:
            return objection
        if not ctx.timed:
            return ""
        if ctx.latencies is not None:
            ratio = ctx.latencies.ratio(before, after)
            ratio = ratio if ratio > _SLOWER else 1.0
        else:
            ratio = _slowdown(before, after, ctx.held_out, ctx.threads)
        if ratio > 1 and (new > _HALVED * old or (ratio > BOUND and not one.may_be_slower)):
            return f"{SLOW} {ratio:.2f} times as long"
        if ratio > 1:
            report.notes.append(
                f"the result runs {ratio:.2f} times as long here, and was kept because it stores {new / old:.2f} of "
                "the bytes"
            )
        return ""

    def floor_of(self, one: Pass) -> float | None:
        """The agreement that `one` must leave: the user's, or its own where it chooses by itself."""
        if one.mends:
            return None  # what is below a floor would be further below it without the pass
        return OWN_FLOOR if self.floor is None and spec(one) == one.name else self.floor

    def _disagreement(self, one: Pass, before: Graph, after: Graph, ctx: Context, report: Report) -> str:
        floor = self.floor_of(one)
        if floor is None or ctx.teacher is None or ctx.held_out is None:
            return ""
        agreed = ctx.agreement(after)
        if self.floor is not None and any(output.kind is Kind.BEFORE for output in agreed.outputs):
            agreed = min(agreed, _selected(after, ctx), key=lambda one: one.share)
        if math.isnan(agreed.share):
            said = "; ".join(agreed.remarks)
            if self.floor is not None:
                return f"no agreement was measured, so none reaches {100 * floor:g} % ({said})"
            report.notes.append(f"what this pass costs is not known: {said}")
            return ""
        objection = _below(agreed, floor, lenient=self.floor is None)
        if objection and self.floor is None:
            # What passes before were told to lose is not held against this one.
            start = ctx.agreement(before).share
            objection = _below(agreed, floor * min(start, 1.0), lenient=True)
        return objection


def _selected(after: Graph, ctx: Context) -> Agreement:
    """The agreement of what selections answer, which is what the user is told of the result in the end."""
    from ..runtime.agreement import agreement
    from ..runtime.session import Session

    assert ctx.teacher is not None
    assert ctx.held_out is not None
    student = Session(after, threads=ctx.threads, exact=ctx.exact)
    return agreement(ctx.teacher, student, ctx.held_out, threads=ctx.threads)


def _growth(before: Graph, after: Graph) -> str:
    """The objection that new nodes make the file longer; "" where it is not."""
    if sum(1 for _ in after.walk()) <= sum(1 for _ in before.walk()):
        return ""
    length, longer = _file_size(before), _file_size(after)
    return f"the file would grow from {length:,} to {longer:,} bytes" if longer > length else ""


def _file_size(graph: Graph) -> int:
    """Bytes of the model in a file, which holds no types of what is inside."""
    from ..ir.onnx.writer import size

    copy = graph.clone()
    for node in copy.walk():
        for value in node.outputs:
            value.type = None
    return size(copy)


def _below(agreed: Agreement, floor: float, *, lenient: bool) -> str:
    """What falls below `floor`, or "".

    A floor that the user set is one. The pass's own is a net, and what was compared may be little: what that cannot
    tell from the floor is not held against the pass where that is `lenient`.
    """
    if agreed.share >= floor:
        return ""
    worst = min(agreed.compared, key=lambda output: output.share)
    error = worst.error
    within = agreed.share + error >= floor
    if lenient and within:
        return ""
    part = f" ({worst.part})" if worst.part and worst.share == worst.worst else ""
    unsure = f" (+- {100 * error:.1f} %: so few cannot tell)" if within else ""
    return f"{DISAGREES} '{worst.name}'{part} would fall to {whole_text(agreed)}, below {100 * floor:.4g} %{unsure}"


def _slowdown(before: Graph, after: Graph, held_out: Samples, threads: int) -> float:
    """How many times as long `after` runs; 1 where it is not slower. What looks slower is measured twice more."""
    from ..runtime.latency import latency
    from ..runtime.session import Session

    sessions = Session(before, threads=threads), Session(after, threads=threads)
    feeds: Feeds = next(held_out.batches(1))
    ratio = 1.0
    for seconds in (0.5, 1.5, 1.5):
        measured = latency(sessions, feeds, limit=seconds, border=_SLOWER)[1]
        if measured.ratio <= _SLOWER or measured.low <= 1:
            return 1.0
        ratio = measured.ratio
    return ratio
