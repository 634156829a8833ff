"""What cannot be searched: one line each, before anything is built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from searched import model, samples

import optc
from optc.errors import DataError, ModelError, OptcError, SpecError
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType

CASES: dict[str, tuple[dict[str, Any], type[OptcError], str]] = {
    "no budget": ({"budget": None}, SpecError, "needs a budget to keep"),
    "a budget that does not parse": ({"budget": "speed=2"}, SpecError, "no metric is called 'speed'"),
    "no time": ({"time": 0.0}, SpecError, "takes some time"),
    "no such strategy": ({"strategy": "knapsak"}, SpecError, "Did you mean 'knapsack'"),
    "no such form": ({"forms": ["int9"]}, SpecError, "Did you mean 'int8'"),
    "no check": ({"check": False}, SpecError, "--no-check cannot be"),
    "a floor on made-up samples": (
        {"data": None, "budget": "size=30%,agreement=98%"},
        DataError,
        "tell nothing of",
    ),
    "several targets": ({"target": "onnx,onnx:cpu=arm"}, SpecError, "for one target"),
    "a target that nobody times": (
        {"target": "onnx:cpu=arm", "budget": "latency=50%"},
        SpecError,
        "give a table of its layers with --latency-table",
    ),
    "a limit twice": ({"budget": "macs=50%,macs=40%"}, SpecError, "macs"),
    "a plan without an output": ({"plan": "plan.toml"}, SpecError, "give an output beside it"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name: str, tmp_path: Path) -> None:
    changes, error, words = CASES[name]
    options: dict[str, Any] = {"budget": "macs=50%", "data": samples(tmp_path), "threads": 1, **changes}
    with pytest.raises(error, match=words) as refused:
        optc.search(model(tmp_path), options.pop("budget"), **options)
    assert len(str(refused.value).splitlines()) == 1 or "\n  " in str(refused.value)


def test_a_model_without_a_layer_that_can_change_is_refused(tmp_path: Path) -> None:
    graph = Graph("plain", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    graph.add_output(graph.add("Relu", [x]).output, "y", TensorType(DType.FLOAT, ("N", 4)))
    with pytest.raises(ModelError, match="no layer of this model can change"):
        optc.search(graph, "size=50%", data={"x": np.ones((20, 4), np.float32)}, threads=1)


def test_samples_that_are_made_up_are_said_to_be(tmp_path: Path) -> None:
    done = optc.search(model(tmp_path), "macs=60%", threads=1, teach=False, candidates=1, samples=20)
    assert any("made up" in note for note in done.report.notes)


def test_too_little_time_for_the_database_gives_what_there_is(tmp_path: Path) -> None:
    done = optc.search(model(tmp_path), "macs=60%", data=samples(tmp_path), threads=1, time=0.01)
    assert done.report.candidates
    assert any(note.startswith("there was no time to survey") for note in done.report.notes)


def test_two_searches_share_one_cache(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "optc",
        "search",
        model(tmp_path),
        "--data",
        samples(tmp_path),
        "--budget",
        "macs=60%",
    ]
    words += ["--candidates", "2", "--no-teach", "--threads", "1", "--time", "1h", "--cache", str(tmp_path / "cache")]
    both = [
        subprocess.Popen([*words, "-q", "-o", str(tmp_path / name)], stderr=subprocess.PIPE)
        for name in ("one.onnx", "two.onnx")
    ]
    for process in both:
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
