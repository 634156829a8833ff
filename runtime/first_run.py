"""What a model costs an application that starts: time until the first answer, memory, and how runs after it vary."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..ir.graph import Graph
from .columns import Array
from .session import Session
from .training.peak import Peak

_RUNS = 100
_SECONDS = 1.0
"""How long runs are timed for."""


@dataclass(frozen=True, slots=True)
class FirstRun:
    """`seconds` from the model to its first answer; `memory`, bytes that the process grew by at the peak of that and of
    the runs after it (0 where the system does not tell); `p50` and `p90`, seconds of a run."""

    seconds: float
    memory: int
    p50: float
    p90: float


def first_run(graph: Graph, feeds: Mapping[str, Array], *, threads: int = 0) -> FirstRun:
    """Open `graph` in ONNX Runtime and run it on `feeds`. Raises `TargetError` where it does not run."""
    seconds: list[float] = []
    with Peak() as peak:
        start = time.perf_counter()
        session = Session(graph, threads=threads)
        session.run(feeds)
        first = time.perf_counter() - start
        end = time.perf_counter() + _SECONDS
        while len(seconds) < 3 or (len(seconds) < _RUNS and time.perf_counter() < end):
            start = time.perf_counter()
            session.run(feeds)
            seconds.append(time.perf_counter() - start)
    p50, p90 = np.quantile(seconds, (0.5, 0.9)).tolist()
    return FirstRun(first, peak.bytes, p50, p90)
