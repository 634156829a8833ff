"""Emission, and what becomes of it where it fails: a fault of ours, with what is needed to see it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import EmissionError, OptcError, lacks_memory
from ..ir.graph import Graph
from ..runtime.samples import Samples
from ..targets import table
from .order import Order
from .validate import SAMPLES


@contextmanager
def reproducible(order: Order, graph: Graph, held_out: Samples | None) -> Iterator[None]:
    """Where what is done with `graph`, as it is handed to the target, fails by a fault of ours, observers keep what
    reproduces it. Raises `EmissionError` for that, and what says that the user can do something about it as it is."""
    try:
        yield
    except (OptcError, MemoryError) as error:
        if not isinstance(error, EmissionError):
            raise
        raise EmissionError(_told(order, graph, held_out, str(error))) from error
    except Exception as error:
        if lacks_memory(error):
            raise MemoryError(str(error)) from error
        what = f"{order.target.name} failed on graph '{graph.name}': {type(error).__name__}: {error}"
        raise EmissionError(_told(order, graph, held_out, what)) from error


def _told(order: Order, graph: Graph, held_out: Samples | None, what: str) -> str:
    part = None if held_out is None else held_out.take(SAMPLES)
    target = table.spec(order.target)
    said = [
        said for one in order.options.observers if (said := one.miscompiled(graph, target, order.options.seed, part))
    ]
    return "; ".join([" ".join(what.split()), "nothing was written", *said])
