"""Figures of a report are those of the file that was written, and say where they were measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import optc
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.passes.base import Outcome
from optc.report.build import LatencyFigure
from optc.report.markdown import render

RANDOM = np.random.default_rng(0)


def network() -> Graph:
    """Convolutions with an operator between them that has no integer kernel."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 8, 8)))
    for channels, name in ((3, "a"), (8, "b")):
        weight = graph.constant(RANDOM.standard_normal((8, channels, 3, 3)).astype(np.float32))
        x = graph.add("Softplus", [graph.add("Conv", [x, weight], {"pads": [1] * 4}, name=name).output]).output
    weight = graph.constant(RANDOM.standard_normal((8, 8, 1, 1)).astype(np.float32))
    graph.add_output(graph.add("Conv", [x, weight], name="c").output, "y", TensorType(DType.FLOAT))
    return graph


@pytest.mark.parametrize("target", ["onnx", "onnx:cpu=arm"])
def test_nodes_are_those_of_the_file_and_times_those_of_a_place(target: str, tmp_path: Path) -> None:
    data = {"x": RANDOM.standard_normal((48, 3, 8, 8)).astype(np.float32)}
    out = tmp_path / "o.onnx"
    build = optc.compile(network(), "quant:slower=int8", target=target, data=data, output=out, threads=1, guard=False)
    assert build.report.after.nodes == len(onnx.load(out).graph.node)
    assert any("the CPU here" in note for note in build.report.notes) == (target != "onnx")
    layers = next(step.report.layers for step in build.report.steps if step.name == "quant")
    done = {layer.name for layer in layers if layer.outcome is Outcome.DONE}
    assert done == {"a", "b", "c"}
    if target != "onnx":
        assert not any(layer.detail.get("island") for layer in layers)
    report = replace(build.report, latency=LatencyFigure(7.52, 2.94, 0.63, 0.6, 0.7, 1, 1))
    assert "0.63 (0.60 to 0.70, the median of runs in pairs)" in render(report)
    assert "in pairs" not in render(replace(report, latency=LatencyFigure(2.0, 1.0, 0.5, 0.4, 0.6, 1, 1)))
