"""Where the time of a run goes, node by node, as ONNX Runtime's own profiler tells it.

The graph is run optimised, as a user runs it. Nodes that the runtime fuses are timed as one, which counts at the layer
among them (Conv, Gemm, MatMul), or else at the one that gave the fused node its name. Profiling itself costs some
microseconds a node; shares are worth more than sums.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import TargetError
from ..ir.graph import Graph
from ..ir.node import Node
from ..storage.workspace import Workspace
from .columns import Array
from .islands import no_room
from .ort_values import is_foreign, to_value

_RUNS = 5
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FUSED = 4
"""Nodes behind a layer that are taken into it, at most: a normalisation, an activation, a sum."""
_MARK = re.compile(r"optc\.(\d+)\.")
_LIMIT = 1 << 30
"""Bytes of constants above which a graph is not profiled: it would have to be copied to a file first."""


def node_seconds(graph: Graph, feeds: Mapping[str, Array], *, threads: int = 0) -> dict[Node, float]:
    """Seconds that each node of `graph` takes in one run on `feeds`, the median of a few runs.

    Nodes that the runtime folded, fused into others or added itself are absent. Empty for a graph of more than 1 GiB.
    Raises `TargetError` where the graph does not run.
    """
    import onnxruntime

    from ..ir.onnx.writer import to_bytes

    if sum(v.constant.nbytes for g in graph.graphs() for v in g.constants if v.constant is not None) > _LIMIT:
        return {}
    copy = graph.clone()
    nodes = list(graph)
    for index, node in enumerate(copy):
        # Fused nodes are called after a node or after what they make.
        node.name = f"optc.{index}."
        for value in node.outputs:
            value.name = f"optc.{index}.{value.name}"
    for output in copy.outputs:
        if output.value.producer is not None:
            output.name = f"{output.value.producer.name}{output.name}"
    with Workspace() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")
        try:
            session = onnxruntime.InferenceSession(to_bytes(copy), options, providers=["CPUExecutionProvider"])
            names = [output.name for output in session.get_outputs()]
            foreign = any(is_foreign(port.type) for port in (*session.get_inputs(), *session.get_outputs()))
            values = {name: to_value(array) for name, array in feeds.items()} if foreign else {}
            for _ in range(_RUNS + 2):  # the first two warm up
                if foreign:
                    session.run_with_ort_values(names, values)
                else:
                    session.run(names, dict(feeds))
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise TargetError(f"graph '{graph.name}' cannot be profiled: {error}") from error
        try:
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise no_room(folder) from error
    times: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times.setdefault(event["name"], []).append(event["dur"] * 1e-6)
    timed: dict[Node, float] = {}
    for name, taken in times.items():
        mark = _MARK.match(name)
        if mark is not None:
            node = nodes[int(mark[1])]
            timed[node] = timed.get(node, 0.0) + float(np.median(taken[2:] or taken))
    seconds: dict[Node, float] = {}
    for node, taken_in in timed.items():
        layer = _layer(node, timed)
        seconds[layer] = seconds.get(layer, 0.0) + taken_in
    return seconds


def _layer(node: Node, timed: Mapping[Node, float]) -> Node:
    """The layer that was fused into the timed `node`, over other nodes that have no time of their own; else `node`."""
    waiting = [] if node.op in _LAYERS else [node]
    for at in waiting:
        for value in at.inputs:
            maker = None if value is None else value.producer
            if maker is None or maker in timed:
                continue
            if maker.op in _LAYERS:
                return maker
            if len(waiting) < _FUSED and maker not in waiting:
                waiting.append(maker)
    return node
