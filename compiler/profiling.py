"""Measuring the layers of models on a target, once, for a table of latencies.

On ONNX Runtime the layers are timed by its own profiler in a run of the whole model. On a library target each workload
is built alone, a graph of one layer with the quantizers around it, and run here or on a device; so is the whole model,
to know what stands between the layers.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError, TargetError
from ..ir.clone import copy_nodes
from ..ir.graph import Graph, Value
from ..ir.node import Node
from ..ir.types import TensorType
from ..passes.base import Context, Progress
from ..passes.runner import run
from ..runtime.latency import latency
from ..runtime.latency_table import LatencyTable, Row, fixed, workloads
from ..runtime.profile import node_seconds
from ..runtime.session import Session
from ..storage.workspace import Workspace
from ..targets import table
from ..targets.base import Target
from .artifact import OnDevice, opened
from .data import Data, runnable, sizes
from .fixed_sizes import Fixed
from .model import read

if TYPE_CHECKING:
    from ..runtime.samples import Feeds, Samples, Source
    from ..targets.tuning import Device

_RUNS = 20
_LIMIT = 0.3
"""Seconds that one layer of a library is timed for, here."""


def profile(
    models: Sequence[str],
    target: Target,
    *,
    data: Data | Samples | Source | None = None,
    fixed_sizes: Fixed | None = None,
    seed: int = 0,
    threads: int = 1,
    device: Device | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """A table of the layers of `models` on `target`; with `device` there. Raises `TargetError` where nothing
    can be timed: artifacts of another machine need a device, and `DataError` where the models hold no layer."""
    target.check_ready(run=device is None)
    progress = Progress() if progress is None else progress
    rows: dict[str, Row] = {}
    whole = parts = 0.0
    with progress.task("profile", len(models)) as advance:
        for model in models:
            graph = read(model)
            (fixed_sizes or Fixed()).apply(graph)
            ctx = Context(target.facts, seed=seed, threads=threads)
            samples, _ = runnable(model, data, graph, ctx)
            feeds, dims = next(samples.batches(1)), sizes(graph, samples)
            run(target.legalisation(), graph, ctx)
            timed, seconds = (
                _in_runtime(graph, feeds, dims, threads)
                if not target.folder
                else _in_library(graph, feeds, dims, target, threads, device)
            )
            whole += seconds
            parts += sum(row.seconds for row in timed)
            rows.update({row.work.text: row for row in timed})
            advance(1)
    if not rows:
        raise DataError("the models hold no layer that could be timed")
    where = device.name if device is not None else platform.machine()
    ordered = tuple(rows[text] for text in sorted(rows))
    return LatencyTable(table.spec(target), where, threads, whole / parts, ordered)


def _in_runtime(graph: Graph, feeds: Feeds, dims: dict[str, int], threads: int) -> tuple[list[Row], float]:
    seconds = node_seconds(graph, feeds, threads=threads)
    timed = [Row(work, seconds[node]) for node, work in workloads(graph, dims) if seconds.get(node, 0) > 0]
    return timed, latency([Session(graph, threads=threads)], feeds)[0].fast


def _in_library(
    graph: Graph, feeds: Feeds, dims: dict[str, int], target: Target, threads: int, device: Device | None
) -> tuple[list[Row], float]:
    copy, originals = fixed(graph, dims)
    twins = {original: twin for twin, original in originals.items()}
    measured: dict[str, Row] = {}
    timed = []
    for node, work in workloads(graph, dims):
        if work.text not in measured:
            part = cut_out(copy, twins[node])
            measured[work.text] = Row(work, _seconds(part, None, target, threads, device))
        timed.append(measured[work.text])
    return timed, _seconds(graph, feeds, target, threads, device)


def _seconds(graph: Graph, feeds: Feeds | None, target: Target, threads: int, device: Device | None) -> float:
    with Workspace() as folder:
        path = os.path.join(folder, "layer.tar")
        target.emit(graph, path)
        session, interface = opened(path, threads=threads, device=device)
        fed = made_up(interface) if feeds is None else feeds
        if device is not None:
            assert isinstance(session, OnDevice)
            try:
                return session.timed(fed, _RUNS)[1]
            finally:
                session.close()
        if session.emulated:
            raise TargetError(
                f"{table.spec(target)} runs here only under an emulator, whose times tell nothing; give --rpc HOST:PORT"
            )
        return latency([session], fed, limit=_LIMIT)[0].fast


def cut_out(graph: Graph, node: Node) -> Graph:
    """One layer of a graph of fixed sizes as a graph of its own, with DequantizeLinear before and QuantizeLinear behind
    it, so that it is built in integers where it is so in the model."""
    before = [v.producer for v in node.inputs if v is not None and v.producer is not None]
    nodes = [*(one for one in dict.fromkeys(before) if one.op == "DequantizeLinear"), node]
    behind = node.output.users
    if len(behind) == 1 and behind[0].op == "QuantizeLinear" and not node.output.is_output:
        nodes.append(behind[0])
    part = Graph("layer", opsets=graph.opsets)
    twins: dict[Value, Value] = {}
    for one in nodes:
        for value in one.inputs:
            outside = value is not None and value.constant is None and value.producer not in nodes
            if value is not None and outside and value not in twins and value.type is not None:
                twins[value] = part.add_input(f"x{len(part.inputs)}", value.type)
    copy_nodes(graph, nodes, part, twins)
    part.add_output(twins[nodes[-1].output], "y", nodes[-1].output.type)
    return part


def made_up(graph: Graph) -> Feeds:
    """Inputs of any value for a graph of fixed sizes: times do not depend on them."""
    random = np.random.default_rng(0)
    feeds = {}
    for value in graph.inputs:
        assert isinstance(value.type, TensorType)
        size = [one if isinstance(one, int) else 1 for one in value.type.shape or ()]
        feeds[value.name] = np.asarray(random.integers(0, 3, size=size)).astype(value.type.dtype.numpy)
    return feeds
