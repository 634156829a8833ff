"""What cannot be searched: one line each, before anything is built."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from searched import model, samples

import optc
from optc.errors import DataError, ModelError, OptcError, SpecError
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.searcher import survey

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


class Clock:
    """A clock that stands still until `expire`, and then is past every deadline."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def expire(self) -> None:
        self.now = 1e6


def test_too_little_time_for_the_database_gives_the_known_pipelines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("optc.searcher.loop.time", clock)
    monkeypatch.setattr("optc.searcher.function.clock", clock)
    search = partial(optc.search, model(tmp_path), data=samples(tmp_path), threads=1, time=60.0, cache=tmp_path / "c")

    def expire(line: str) -> None:
        clock.expire()

    at_once = search("size=45%", tell=expire)
    assert at_once.met
    assert [one.strategy for one in at_once.report.candidates] == ["as it is", "single"]
    assert any(note.startswith("there was no time to survey") for note in at_once.report.notes)

    clock.now = 0.0
    unmet = search("macs=1%", tell=expire)
    assert not unmet.met
    assert any("the least of what was tried is" in note for note in unmet.report.notes)


def test_time_that_the_survey_used_up_leaves_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("optc.searcher.loop.time", clock)
    monkeypatch.setattr("optc.searcher.function.clock", clock)

    def expire(*_: object) -> list[Any]:
        clock.expire()
        return []

    monkeypatch.setattr("optc.searcher.survey.Survey._replacements", expire)
    done = optc.search(
        model(tmp_path), "size=40%", data=samples(tmp_path), threads=1, time=60.0, cache=tmp_path / "c", forms=["int8"]
    )
    assert done.met
    tried = {one.passes: one.loss for one in done.report.candidates if one.met}
    assert {"quant", "prune,svd,quant", "prune:kind=channels,quant"} <= {one.passes for one in done.report.candidates}
    assert done.report.candidates[done.report.chosen].loss == min(tried.values())


def test_little_time_for_the_survey_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looked = Clock(), []
    for place in ("survey.time", "block_options.time", "replacement_options.time", "loop.time", "function.clock"):
        monkeypatch.setattr(f"optc.searcher.{place}", clock)
    options = survey.layer_options

    def slow(step: Any, *rest: Any, **words: Any) -> Any:
        clock.now += 10.0
        looked.append(step.layer.name)
        return options(step, *rest, **words)

    monkeypatch.setattr(survey, "layer_options", slow)
    search = partial(optc.search, model(tmp_path), "macs=60%", data=samples(tmp_path), threads=1, teach=False)
    part = search(time=100.0, candidates=1, cache=tmp_path / "c")
    assert {"structure", "blocks"} <= {site.kind for site in part.report.sites}
    assert any("there was no time to survey" in note for note in part.report.notes)
    first = len(looked)
    clock.now = 0.0
    whole = search(time=1e4, candidates=1, cache=tmp_path / "c")
    assert first < len(looked) == len(set(looked)), "each layer is looked at once"
    monkeypatch.setattr(survey, "LAYERS", 0.0)
    alone = search(time=1e4, candidates=1)
    assert [site.options for site in alone.report.sites] == [site.options for site in whole.report.sites]


def test_what_is_wrong_with_the_samples_is_said_as_without_a_search(tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", x=np.zeros((20, 3, 6, 6), np.float32))
    with pytest.raises(DataError) as refused:
        optc.search(model(tmp_path), "macs=50%", data=tmp_path / "wrong.npz", threads=1)
    with pytest.raises(DataError) as plainly:
        optc.compile(model(tmp_path), "svd", data=tmp_path / "wrong.npz", threads=1)
    assert str(refused.value) == str(plainly.value)


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
    words += ["--candidates", "5", "--no-teach", "--threads", "1", "--time", "1h", "--cache", str(tmp_path / "cache")]
    both = [
        subprocess.Popen([*words, "-q", "-o", str(tmp_path / name)], stderr=subprocess.PIPE)
        for name in ("one.onnx", "two.onnx")
    ]
    for process in both:
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
