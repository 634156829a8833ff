"""Tuning as a stage of a compilation: kernels of a legal graph measured before it is emitted."""

from __future__ import annotations

from ..ir.graph import Graph
from ..ir.text import snapshot
from ..storage.fingerprint import Fingerprint
from ..targets import table
from .order import Order
from .reuse import Reuse


def tune(order: Order, graph: Graph, reuse: Reuse, notes: list[str]) -> tuple[str, bool]:
    """What tuning chose, empty where none is asked for, and whether it was interrupted. What a lock file records is
    taken rather than measured."""
    how = order.tuning
    if how is None:
        return "", False
    interrupted = False
    measured: list[str] = []

    def decide() -> str:
        nonlocal interrupted
        with order.progress.task("tune", how.seconds or None) as advance:
            tuned = order.target.tune(graph, how, advance)
        interrupted = tuned.interrupted
        measured.append(tuned.summary)
        return tuned.choice

    key = Fingerprint("ruling", "tune", table.spec(order.target), snapshot.digest(graph)).text
    choice = reuse.passes.recalled(key, "tuning", decide, str)
    notes.append(f"tuning: {measured[0]}" if measured else "tuning: as the lock file records")
    return choice, interrupted
