"""Tuning as a stage of a compilation: kernels of a legal graph measured before it is emitted."""

from __future__ import annotations

from functools import partial

from ..ir.graph import Graph
from ..ir.text import snapshot
from ..storage.fingerprint import Fingerprint
from ..targets import table
from ..targets.base import Emit, MeasuredTarget
from .order import Order
from .reuse import Reuse


def tuned(order: Order, graph: Graph, reuse: Reuse, notes: list[str], emit: Emit) -> tuple[Emit, bool]:
    """What emits with what tuning chose, `emit` where none is asked for, and whether it was interrupted. What a lock
    file records is taken rather than measured."""
    how, target = order.tuning, order.target
    if how is None:
        return emit, False
    assert isinstance(target, MeasuredTarget)
    interrupted = False
    measured: list[str] = []

    def decide() -> str:
        nonlocal interrupted
        with order.progress.task("tune", how.seconds or None) as advance:
            result = target.tune(graph, how, advance)
        interrupted = result.interrupted
        measured.append(result.summary)
        return result.choice

    key = Fingerprint("ruling", "tune", table.spec(target), snapshot.digest(graph)).text
    choice = reuse.passes.recalled(key, "tuning", decide, str)
    notes.append(f"tuning: {measured[0]}" if measured else "tuning: as the lock file records")
    return partial(target.emit, choice=choice), interrupted
