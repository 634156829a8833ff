"""The result as a model to look at: each node carries what the passes did to it in its `metadata_props`.

Viewers such as Netron show these beside a node, and those of the model beside its inputs. The nodes, the weights and so
the answers are those of the result; what is deployed is the result itself, which carries none of this.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ..runtime.agreement_text import whole_text
from .amount import amount, detail_text

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..passes.base import Layer
    from .build import BuildReport

PREFIX = "optc."


class Built(Protocol):
    """What is drawn: a graph, and the record of how it came about."""

    @property
    def graph(self) -> Graph: ...
    @property
    def report(self) -> BuildReport: ...


def write(build: Built, path: str | os.PathLike[str]) -> None:
    """Write the annotated model to `path`, whole or not at all. Raises `ModelError` and `OutputError`."""
    from ..ir.onnx.writer import save

    save(annotated(build.graph, build.report), path)


def annotated(graph: Graph, report: BuildReport) -> Graph:
    """A copy of `graph` whose nodes and head hold the figures of `report`, as text by keys that begin with `PREFIX`."""
    copy = graph.clone()
    of_layer: dict[str, dict[str, str]] = {}
    for number, step in enumerate(report.steps, 1):
        for layer in step.report.layers:
            of_layer.setdefault(layer.name, {})[f"{PREFIX}{number}.{step.name}"] = _told(layer)
    for node in copy.walk():
        lines: dict[str, str] = {}
        for name in (*node.origin.nodes, node.label):
            lines |= of_layer.get(name, {})
        if lines:
            node.metadata = {**(node.metadata or {}), **lines}
    before, after = report.before, report.after
    head = {
        "passes": report.pipeline,
        "target": report.target,
        "file": f"{amount(before.bytes, 'B')} -> {amount(after.bytes, 'B')}",
        "parameters": f"{amount(before.params)} -> {amount(after.params)}",
        "MACs": f"{amount(before.macs)} -> {amount(after.macs)}",
    }
    if report.agreement is not None:
        head["agreement"] = whole_text(report.agreement)
    if report.latency is not None:
        head["latency"] = f"{report.latency.ratio:.2f} of the original's"
    lines = {f"{PREFIX}{key}": text for key, text in head.items()}
    copy.header = replace(copy.header, metadata=(*copy.header.metadata, *lines.items()))
    return copy


def _told(layer: Layer) -> str:
    """What became of a layer, with its figures."""
    figures = detail_text(layer.detail, 4)
    return " ".join(part for part in (layer.outcome.value, f"({figures})" if figures else "", layer.reason) if part)
