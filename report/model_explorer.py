"""The record as node data for Model Explorer: a figure a layer, which it colours its own picture of the model by.

A file whose name ends in `nodes.json`. Its form: a set of results by node, `{"set": {"results": {node: {"value": …}},
"gradient": […]}}`; nodes go by their names.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .verdict import layer_errors

if TYPE_CHECKING:
    from .build import BuildReport

_CALM, _ALARM = "#e8f0f9", "#b02a10"
_OUTCOMES = {"done": "#0a5aa8", "skipped": "#98a2ad", "reverted": "#b02a10"}


def render(report: BuildReport) -> str:
    """The document: what share of its answer each layer lost, and how each pass ended on it."""
    sets: dict[str, Any] = {}
    errors = {name: error for name, (_, error) in layer_errors(report).items()}
    if errors:
        gradient = [{"stop": 0, "bgColor": _CALM}, {"stop": 1, "bgColor": _ALARM}]
        results = {name: {"value": error} for name, error in sorted(errors.items())}
        sets["error: share of the layer's answer that was lost"] = {"results": results, "gradient": gradient}
    for step in report.steps:
        if step.report.layers:
            outcomes = {
                layer.name: {"value": layer.outcome.value, "bgColor": _OUTCOMES[layer.outcome.value]}
                for layer in step.report.layers
            }
            sets[f"{step.name}: what became of the layer"] = {"results": outcomes}
    return json.dumps(sets, indent=2, ensure_ascii=False) + "\n"
