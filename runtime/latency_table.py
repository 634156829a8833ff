"""Latency by table: seconds of layers measured once on a target, and a cost model for those that were not.

A layer is known by its workload: operator, element types and sizes of what it reads, attributes, and whether its
products are of integers. One that was not measured is estimated as

    t = a + b * MACs + c * bytes,      a, b, c >= 0

where bytes are what the layer reads and writes: a call, work, and traffic, a roofline with its corner rounded
(Williams, Waterman, Patterson, "Roofline", CACM 2009). The three are fitted to the measured layers of the same kind
(integer or float, grouped or not) by non-negative least squares on relative errors. What stands between layers is a
share of their time: a whole run over the sum of the layers, as measured on the models that the table was made of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import DataError
from ..ir.cost import cost
from ..ir.graph import Graph
from ..ir.macs import integer
from ..ir.node import Node
from ..ir.shapes.infer import bind, infer, size_names
from ..ir.text.literal import type_text
from ..ir.types import TensorType

SCHEMA = "optc.latency/1"
_FEWEST = 4
"""Measured layers of a kind that its cost model takes at least; with fewer it is fitted to all."""


@dataclass(frozen=True, slots=True)
class LayerWork:
    """What decides about the time of a layer. `text` is all of it, the figures are what the cost model sees."""

    text: str
    macs: int
    bytes: int
    integer: bool
    grouped: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A workload as it was measured, in seconds."""

    work: LayerWork
    seconds: float


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """`rows` by the text of their workload; `whole` is the time of a run over the sum of its layers. `target` and
    `device` tell where it was measured."""

    target: str
    device: str
    threads: int
    whole: float
    rows: tuple[Row, ...]

    @property
    def integer(self) -> bool:
        """Whether a layer that computes in integers was measured."""
        return any(row.work.integer for row in self.rows)

    def estimate(self, graph: Graph, dims: Mapping[str, int] | None = None) -> float:
        """Seconds of one run of `graph`; open sizes that `dims` does not fix count as one."""
        return self.whole * sum(self.by_node(graph, dims).values())

    def by_node(self, graph: Graph, dims: Mapping[str, int] | None = None) -> dict[Node, float]:
        """Seconds of each layer of `graph` alone."""
        measured = {row.work.text: row.seconds for row in self.rows}
        models = {kind: fit(self.rows, *kind) for kind in ((i, g) for i in (False, True) for g in (False, True))}
        taken = {}
        for node, work in workloads(graph, dims):
            seconds = measured.get(work.text)
            taken[node] = predict(models[work.integer, work.grouped], work) if seconds is None else seconds
        return taken

    def unseen(self) -> tuple[float, float]:
        """The relative error of the cost model on each measured layer that was left out of its fit: median, and the
        nine in ten that stay below. NaN where there are fewer than two layers."""
        errors = []
        for i, row in enumerate(self.rows):
            rest = [*self.rows[:i], *self.rows[i + 1 :]]
            if rest:
                errors.append(abs(predict(fit(rest, row.work.integer, row.work.grouped), row.work) / row.seconds - 1))
        return (float(np.median(errors)), float(np.quantile(errors, 0.9))) if errors else (np.nan, np.nan)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The document that `from_json` reads; the same bytes for the same table."""
        median, most = self.unseen()
        document = {
            "schema": SCHEMA,
            "target": self.target,
            "device": self.device,
            "threads": self.threads,
            "whole": self.whole,
            "unseen_error": None if np.isnan(median) else {"median": median, "most": most},
            "layers": [{**asdict(row.work), "seconds": row.seconds} for row in self.rows],
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Estimator:
    """A table for one model: `dims` are the sizes of its open dimensions."""

    table: LatencyTable
    dims: Mapping[str, int]

    def seconds(self, graph: Graph) -> float:
        """Seconds of one run of `graph`, a form of the model or a part of one."""
        return self.table.estimate(graph, self._sizes(graph))

    def by_node(self, graph: Graph) -> dict[Node, float]:
        """Seconds of each layer of `graph` alone."""
        return self.table.by_node(graph, self._sizes(graph))

    def ratio(self, before: Graph, after: Graph) -> float:
        """How many times as long `after` takes; 1 where nothing in `before` takes time."""
        old = self.seconds(before)
        return self.seconds(after) / old if old > 0 else 1.0

    def _sizes(self, graph: Graph) -> dict[str, int]:
        names = size_names(graph)
        return {name: size for name, size in self.dims.items() if name in names}


def from_json(text: str, name: str) -> LatencyTable:
    """The table in a document of `to_json`. Raises `DataError` with the `name` of the file where it is none."""
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise DataError(f"{name} is of form {document['schema']}, and this version reads {SCHEMA}; profile again")
        rows = tuple(
            Row(LayerWork(str(o["text"]), int(o["macs"]), int(o["bytes"]), bool(o["integer"]), bool(o["grouped"])), s)
            for o in document["layers"]
            if (s := float(o["seconds"])) > 0
        )
        table = LatencyTable(
            str(document["target"]), str(document["device"]), int(document["threads"]), float(document["whole"]), rows
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{name} is no table of latencies: make one with optc profile") from error
    if not rows or not table.whole > 0:
        raise DataError(f"{name} holds no measured layer: make one with optc profile")
    return table


def fixed(graph: Graph, dims: Mapping[str, int] | None = None) -> tuple[Graph, dict[Node, Node]]:
    """A copy with every open size a number (one where `dims` has none), and the original of each of its nodes."""
    copy = graph.clone()
    bind(copy, {name: (dims or {}).get(name, 1) for name in size_names(copy)})
    infer(copy)
    return copy, dict(zip(copy, graph, strict=True))


def workloads(graph: Graph, dims: Mapping[str, int] | None = None) -> Iterator[tuple[Node, LayerWork]]:
    """The layers of `graph` (nodes that multiply and accumulate) with their workloads, in order."""
    copy, originals = fixed(graph, dims)
    costs = cost(copy).nodes
    for node, original in originals.items():
        one = costs[node]
        if one.macs:
            kinds = [value.type for value in node.inputs if value is not None]
            read = sum(_bytes(kind) for kind in kinds)
            attributes = ", ".join(f"{name}={attribute.value!r}" for name, attribute in sorted(node.attributes.items()))
            whole = integer(node)
            text = f"{'integer ' if whole else ''}{node.op}({', '.join(map(type_text, kinds))}) {attributes}".strip()
            yield original, LayerWork(text, one.macs, read + one.activations, whole, node.get_int("group", 1) > 1)


def fit(rows: Sequence[Row], whole: bool, grouped: bool) -> tuple[float, float, float]:
    """a, b and c of the cost model, for layers of one kind."""
    from scipy.optimize import nnls

    alike = [row for row in rows if row.work.integer == whole and row.work.grouped == grouped]
    used = alike if len(alike) >= _FEWEST else list(rows)
    # In units in which the columns are of a size; rows over their time: errors are relative.
    matrix = np.array([[1e-6, row.work.macs * 1e-9, row.work.bytes * 1e-9] for row in used])
    seconds = np.array([row.seconds for row in used])
    (a, b, c), _ = nnls(matrix / seconds[:, None], np.ones(len(used)))
    return a * 1e-6, b * 1e-9, c * 1e-9


def predict(model: tuple[float, float, float], work: LayerWork) -> float:
    a, b, c = model
    return a + b * work.macs + c * work.bytes


def _bytes(kind: object) -> int:
    if not isinstance(kind, TensorType) or kind.static_shape is None:
        return 0
    return (int(np.prod(kind.static_shape, dtype=np.int64)) * kind.dtype.bits + 7) // 8
