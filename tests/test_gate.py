"""Finished models: held against the one they were made from, and against the clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from optc import gate
from optc.compiler import Data, compile
from optc.errors import DataError, ModelError
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.types import DType, TensorType
from optc.models import zoo

FLOAT = "zoo:digits_dscnn"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("gate") / "small.onnx"
    compile(FLOAT, "quant:slower=int8", output=path, threads=1, check=False)
    return str(path)


def plain(path: Path, *, inputs: tuple[str, ...] = ("x",), output: str = "y", size: int = 4) -> str:
    graph = Graph("g", opsets={"": 17})
    values = [graph.add_input(name, TensorType(DType.FLOAT, (1, size))) for name in inputs]
    weight = graph.constant(np.eye(size, dtype=np.float32))
    graph.add_output(graph.add("MatMul", [values[0], weight]).output, output, TensorType(DType.FLOAT, (1, size)))
    save(graph, path)
    return str(path)


def test_a_check_measures_what_a_build_measures(small: str) -> None:
    report = gate.check(small, FLOAT, budget="size=0.5x,agreement=95%,macs=1x", threads=1)
    assert report.after.bytes == Path(small).stat().st_size
    assert report.before.macs == report.after.macs
    assert report.steps == []
    assert report.agreement is not None
    assert report.agreement.samples == 300
    assert report.agreement.share > 0.95
    assert report.latency is not None
    assert report.budget is not None
    assert report.budget.met
    assert report.samples is not None
    assert (report.samples.fit, report.samples.held_out, report.samples.synthetic) == (0, 300, False)


def test_a_check_that_fails_names_the_layers(small: str) -> None:
    verdict = gate.check(small, FLOAT, budget="size=1KB", threads=1, data=Data(limit=20)).budget
    assert verdict is not None
    assert not verdict.met
    assert verdict.layers[0].name == "block5.pointwise"


def test_models_of_other_interfaces_are_refused(small: str, tmp_path: Path) -> None:
    one = plain(tmp_path / "one.onnx")
    with pytest.raises(ModelError, match=r"has other inputs than .*: input, not x"):
        gate.check(small, one)
    other = plain(tmp_path / "other.onnx", output="z")
    with pytest.raises(ModelError, match=r"has other outputs than .*: z, not y"):
        gate.check(other, one)
    with pytest.raises(ModelError, match="takes other inputs"):
        gate.bench([one, small])


def test_bench_times_every_model_with_every_number_of_threads(small: str) -> None:
    timings = gate.bench([FLOAT, small], threads=(1, 2), batch=4, seconds=0.05).timings
    assert [(one.model, one.threads, one.batch) for one in timings] == [
        (FLOAT, 1, 4),
        (small, 1, 4),
        (FLOAT, 2, 4),
        (small, 2, 4),
    ]
    for one in timings:
        assert 0 < one.latency.fast <= one.latency.seconds <= one.latency.slow
    assert timings[0].latency.ratio == timings[2].latency.ratio == 1


def test_a_batch_for_a_model_of_one_sample(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one sample at a time"):
        gate.bench([plain(tmp_path / "one.onnx")], batch=2, seconds=0.01)


def test_contrast_runs_both_where_it_can(small: str, tmp_path: Path) -> None:
    difference = gate.contrast(FLOAT, small, data=zoo.samples("digits_dscnn", "calib"), threads=1)
    assert difference.agreement is not None
    assert difference.agreement.share > 0.95
    assert {change.kind for change in difference.changes} == {"changed", "added", "removed"}
    # A small file does not say of nodes without a name where they come from, nor what codes clip instead.
    assert {change.before for change in difference.changes if change.kind == "removed"} == {("Clip",)}
    assert {change.passes for change in difference.changes if change.kind == "added"} <= {(), ("quant",)}
    one = plain(tmp_path / "one.onnx")
    apart = gate.contrast(one, small)
    assert apart.agreement is None
    assert "other inputs" in apart.reason
    assert gate.contrast(one, one, run=False).reason == "not asked for"
