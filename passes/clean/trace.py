"""What an exporter noted of its own source code: stack traces, scopes and the names of its nodes.

PyTorch's exporters note on each node where in the Python code it came from, as metadata (`pkg.torch.*`, `namespace`) or
in doc strings. No runtime reads it, it takes up to a third of a small model's file, and it shows paths of the machine
that exported. Names of nodes stay, so every layer is still found by its name.

Does not touch the metadata and doc strings of the model, of graphs, and of the model's inputs and outputs, nor anything
else that was noted on nodes and values.
"""

from __future__ import annotations

import re

from ...ir.graph import Graph
from ...ir.node import Node, Value

_KEYS = ("pkg.torch.", "pkg.onnxscript.")
_TRACE = re.compile(r'File "[^"\n]*", line \d+|\.py(\(\d+\)|:\d+)')


def forget_traces(graph: Graph) -> int:
    """Drop the traces from `graph` and its bodies; returns from how many nodes and values."""
    count = 0
    for each in graph.graphs():
        values = [value for node in each for value in node.outputs]
        items: list[Node | Value] = [*each, *values, *each.constants]
        for item in items:
            metadata = item.metadata or {}
            kept = {key: text for key, text in metadata.items() if not _traces(key)}
            doc = "" if item.doc and _TRACE.search(item.doc) else item.doc
            if len(kept) < len(metadata) or doc != item.doc:
                item.metadata, item.doc = kept or None, doc
                count += 1
    return count


def _traces(key: str) -> bool:
    return key == "namespace" or key.startswith(_KEYS)
