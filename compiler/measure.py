"""What a graph costs, and how a result compares with what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from .. import __version__
from ..ir.cost import cost
from ..ir.graph import Graph
from ..ir.same import same
from ..passes.base import Context, Pass, Report
from ..passes.observers import Observer
from ..report.build import BuildReport, LatencyFigure, PassRecord, Size
from ..runtime.agreement import Agreement, agreement
from ..runtime.latency import latency
from ..runtime.latency_table import Estimator
from ..runtime.samples import Samples
from ..runtime.session import Runnable, Session

_EMULATED = 4
"""Samples that an artifact for another machine is checked on: an emulator is slow."""
_ROUNDS = 300
"""Measurements at least that the time for a latency is parted into, where runs are short."""


def size_of(graph: Graph, dims: Mapping[str, int]) -> Size:
    whole = cost(graph, dims)
    return Size(whole.bytes, whole.params, whole.macs, sum(1 for _ in graph.walk()))


def compare(
    before: Session,
    after: Runnable,
    held_out: Samples,
    report: BuildReport,
    *,
    estimate: LatencyFigure | None = None,
    limit: float = 3.0,
) -> None:
    """Note in `report` how far `after` agrees with `before`, and how long each takes: measured in about `limit`
    seconds, unless there is an `estimate`."""
    report.latency = estimate
    if after.emulated:
        few = held_out.take(_EMULATED)
        report.agreement = agreement(before, after, few, batch=1)
        report.notes.append(f"checked on {few.count} samples under emulation, which tells nothing of its speed")
        return
    report.agreement = agreement(before, after, held_out)
    report.notes += report.agreement.remarks
    if estimate is not None:
        return
    feeds = next(held_out.batches(1))
    old, new = latency((before, after), feeds, limit=limit, stretch=limit / _ROUNDS)
    report.latency = LatencyFigure(
        1e3 * old.seconds, 1e3 * new.seconds, new.ratio, new.low, new.high, held_out.size_of(feeds), before.threads
    )


def estimated(estimator: Estimator, before: Graph, after: Graph) -> LatencyFigure:
    """The latency of one sample by a table, without a run."""
    old, new = estimator.seconds(before), estimator.seconds(after)
    ratio = new / old if old > 0 else 1.0
    return LatencyFigure(1e3 * old, 1e3 * new, ratio, ratio, ratio, 1, estimator.table.threads)


def versions() -> dict[str, str]:
    return {"optc": __version__, **{name: version(name) for name in ("onnx", "onnxruntime", "numpy", "scipy")}}


class Recorder(Observer):
    """Notes what the model cost after every pass, how far they are, and the graph after the last lossy one.

    Where a context is given, also how far a graph that a pass changed agrees with the teacher.
    """

    def __init__(self, dims: Mapping[str, int], ctx: Context | None = None) -> None:
        self.steps: list[PassRecord] = []
        self.where = ""
        self.kept: Graph | None = None
        self.size: Size | None = None
        """Of the graph as the last pass left it."""
        self._dims = dims
        self._ctx = ctx

    def before(self, position: int, one: Pass, graph: Graph) -> None:
        self.where = f"during '{one.name}'"

    def after(self, position: int, one: Pass, graph: Graph, report: Report) -> None:
        agreed: Agreement | None = None
        ctx = self._ctx
        if ctx is not None and ctx.teacher is not None and ctx.held_out is not None and report.changed:
            agreed = ctx.agreement(graph)
        if report.changed or self.size is None:
            self.size = size_of(graph, self._dims)
        self.steps.append(PassRecord(one.name, report, self.size, agreed))
        self.where = f"after '{one.name}'"
        if one.lossy and not (self.kept is not None and same(self.kept, graph)):
            self.kept = graph.clone()
