"""Tuning of one model: what its kernels are, the search, and what it decided."""

from __future__ import annotations

from collections.abc import Callable

from ....ir.graph import Graph
from ....ir.shapes.infer import infer
from ...tuning import Tuned, Tuning
from ..cpu.machine import Machine
from ..relax.module import workloads
from .choice import Cut, TuningChoice
from .records import Records
from .runner import Here, Runner, There
from .search import search


def tune(graph: Graph, machine: Machine, how: Tuning, advance: Callable[[float], None]) -> Tuned:
    """Measure the kernels of `graph`, as far as records do not tell, and decide how each is cut.

    Raises `TargetError` for a graph that cannot be built and a device that fails, `DataError` and `OutputError` for the
    records.
    """
    records = Records(how.records, machine, how.threads)
    copy = graph.clone()
    infer(copy)
    counts = workloads(copy, machine)

    def runner() -> Runner:
        return Here(machine, how.threads) if how.device is None else There(machine, how.threads, how.device)

    ended = search(counts, machine, records, runner, how.seconds, advance=advance)
    best = {work: records.best(work, work.default(machine)) for work in counts}
    cuts = tuple(Cut(work, tile) for work, tile in best.items() if tile != work.default(machine))
    choice = TuningChoice(len(counts), records.digest(counts), records.gain(counts), cuts)
    summary = (
        f"{len(cuts)} of {len(counts)} kernels are not cut by default; those that were measured should take "
        f"{100 * choice.share:.0f} % of their time; {ended.trials} trials"
    )
    left = f", and {ended.left} kernels have some left: tune again to go on" if ended.left else ""
    return Tuned(choice.to_text(), summary + left, ended.interrupted)
