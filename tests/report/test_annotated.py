"""The result as a model to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from optc import compile
from optc.compiler import Build
from optc.errors import SpecError
from optc.models import zoo
from optc.runtime.session import Session


@pytest.fixture(scope="module")
def build() -> Build:
    return compile("zoo:digits_dscnn", "svd,quant:keep=stem", threads=1)


def test_nodes_carry_what_the_passes_did_to_them(build: Build, tmp_path: Path) -> None:
    build.report.save(tmp_path / "seen.onnx")
    model = onnx.load(tmp_path / "seen.onnx")
    onnx.checker.check_model(model, full_check=True)
    properties = {node.name: {one.key: one.value for one in node.metadata_props} for node in model.graph.node}
    (number,) = (at for at, step in enumerate(build.report.steps, 1) if step.name == "quant")
    for layer in build.report.steps[number - 1].report.layers:
        if layer.name in properties:
            assert properties[layer.name][f"optc.{number}.quant"].startswith(layer.outcome.value)
    assert "bits 8" in properties["block1.depthwise"][f"optc.{number}.quant"]
    head = {one.key: one.value for one in model.metadata_props}
    assert head["optc.passes"] == build.report.pipeline
    assert "top-1" in head["optc.agreement"]


def test_it_answers_as_the_result_does(build: Build, tmp_path: Path) -> None:
    from optc.ir.onnx.reader import load

    build.report.save(tmp_path / "seen.onnx")
    feeds = zoo.samples("digits_dscnn", "test")
    seen, wanted = (Session(graph, threads=1).run(feeds)[0] for graph in (load(tmp_path / "seen.onnx"), build.graph))
    np.testing.assert_array_equal(seen, wanted)
    assert not any("quant" in key for node in build.graph for key in node.metadata or ())


def test_it_needs_the_build(build: Build, tmp_path: Path) -> None:
    import copy

    apart = copy.copy(build.report)
    apart.draw = None
    with pytest.raises(SpecError, match="by its extension"):
        apart.save(tmp_path / "seen.onnx")
