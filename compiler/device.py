"""The check on a device over RPC: the result beside the original, both built for the target, in one session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ..errors import TargetError
from ..ir.graph import Graph
from ..passes.base import Context
from ..passes.runner import run
from ..report.build import BuildReport, LatencyFigure
from ..runtime.agreement import agreement
from ..runtime.samples import Samples
from ..storage.workspace import Workspace
from ..targets.base import Artifact, MeasuredTarget
from .order import Order
from .validate import validate

if TYPE_CHECKING:
    from ..runtime.session import Session

_ROUNDS = 7
_RUNS = 3


def check_there(
    order: Order,
    original: Graph,
    graph: Graph,
    teacher: Session,
    staged: Artifact,
    held_out: Samples,
    report: BuildReport,
) -> None:
    """Hold the artifact, built from `graph`, against it on the order's device, and note in `report` how far it agrees
    with the original and how long both take.

    Raises `EmissionError` where it does not answer as its graph, and `TargetError` where the original cannot be built
    for the target, or the device fails.
    """
    assert order.options.device is not None
    assert isinstance(order.target, MeasuredTarget)
    with Workspace() as folder:
        path = os.path.join(folder, "original.tar")
        before = original.clone()
        run(order.target.legalisation(), before, Context(order.target.facts, seed=order.options.seed))
        try:
            order.target.emit(before, path)
        except TargetError as error:
            raise TargetError(f"the original, which the result is timed against, cannot be built: {error}") from error
        old, new = order.target.open_on(order.options.device, [path, staged.path], threads=order.options.threads)
        try:
            report.validation = validate(graph, new, held_out, order.target.error)
            report.agreement = agreement(teacher, new, held_out)
            feeds = next(held_out.batches(1))
            times = np.array([[one.timed(feeds, _RUNS)[1] for one in (old, new)] for _ in range(_ROUNDS)])
        finally:
            new.close()
    ratios = times[:, 1] / times[:, 0]
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    before_ms, after_ms = (1e3 * np.median(times, axis=0)).tolist()
    report.latency = LatencyFigure(
        before_ms, after_ms, middle, low, high, held_out.size_of(feeds), order.options.threads
    )
    report.notes.append(f"run and timed on the device {order.options.device.name}, the original built for it too")
