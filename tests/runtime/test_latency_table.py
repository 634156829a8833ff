"""Latencies measured once: what a table knows, how it guesses, and where it stands in for the clock."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optc.cli.app import run
from optc.compiler import compile, read
from optc.errors import DataError
from optc.runtime.latency_table import LatencyTable, LayerWork, Row, fit, from_json, predict, workloads


def work(macs: int, size: int) -> LayerWork:
    return LayerWork(f"Conv {macs} {size}", macs, size, False, False)


def rows() -> tuple[Row, ...]:
    sizes = [(10**5, 10**4), (10**6, 10**5), (4 * 10**6, 10**4), (2 * 10**6, 3 * 10**5), (10**4, 10**6)]
    return tuple(Row(work(m, s), 1e-5 + 2e-10 * m + 5e-11 * s) for m, s in sizes)


def table(target: str = "onnx") -> LatencyTable:
    """Each layer of the network takes its index in microseconds."""
    works = {one.text: one for _, one in workloads(read("zoo:digits_dscnn"))}
    return LatencyTable(target, "here", 1, 1.5, tuple(Row(one, (i + 1) * 1e-6) for i, one in enumerate(works.values())))


def test_the_cost_model_finds_call_work_and_traffic() -> None:
    a, b, c = fit(rows(), False, False)
    assert np.allclose([a, b, c], [1e-5, 2e-10, 5e-11], rtol=1e-3)
    assert predict((a, b, c), work(10**6, 10**6)) == pytest.approx(2.6e-4, rel=1e-3)
    assert LatencyTable("onnx", "here", 1, 1.0, rows()).unseen()[1] < 1e-3


def test_a_table_comes_back_as_it_was() -> None:
    assert from_json(table().to_json(), "t") == table()


def test_known_layers_take_what_was_measured() -> None:
    graph = read("zoo:digits_dscnn")
    count = len(list(workloads(graph)))
    assert count == 12
    seconds = {row.work.text: row.seconds for row in table().rows}
    assert table().estimate(graph) == pytest.approx(1.5 * sum(seconds[one.text] for _, one in workloads(graph)))


@pytest.mark.parametrize(
    "text", ["", "{}", '{"schema": "optc.latency/0"}', '{"schema": "optc.latency/1", "layers": [1]}']
)
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"^t "):
        from_json(text, "t")


def test_a_build_takes_its_latency_from_the_table(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(table().to_json())
    build = compile("zoo:digits_dscnn", "clean", latency_table=path, threads=1, budget="latency=1s")
    assert build.report.latency is not None
    assert build.report.latency.original_ms == pytest.approx(1e3 * table().estimate(read("zoo:digits_dscnn")))
    assert build.met
    assert any("estimated from layers measured on here" in note for note in build.report.notes)
    path.write_text(replace(table(), target="arm64").to_json())
    with pytest.raises(DataError, match="was measured on arm64, not on onnx"):
        compile("zoo:digits_dscnn", "clean", latency_table=path, check=False)


def test_layers_are_profiled_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "zoo:digits_dscnn", "-o", str(tmp_path / "t.json"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    read_back = from_json((tmp_path / "t.json").read_text(), "t")
    assert document["layers"] == len(read_back.rows) > 5
    assert read_back.whole > 0
