"""A search as a whole: what it writes keeps the budget, its plan gives the same bytes, and nothing is done twice."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from processes import optc as command
from searched import model, samples, search

import optc
from optc.compiler.options import Options
from optc.passes import cached
from optc.passes.base import Override
from optc.searcher import Search, Stopped
from optc.searcher.judge import Judge
from optc.searcher.plan import Plan
from optc.searcher.record import plan_text
from optc.storage.fingerprint import file_digest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def done(folder: Path) -> Search:
    return search(folder)


def test_the_answer_keeps_the_budget_and_is_the_best_of_those_that_do(folder: Path, done: Search) -> None:
    report = done.report
    assert done.met
    assert report.budget.met
    assert done.build.report.after.macs <= 0.6 * done.build.report.before.macs
    kept = [one for one in report.candidates if one.met]
    assert report.candidates[report.chosen].loss == min(one.loss for one in kept)
    assert (folder / "out.onnx").is_file()
    assert optc.load(folder / "out.onnx")


def test_a_fresh_process_builds_the_same_bytes_from_the_plan(folder: Path, done: Search, tmp_path: Path) -> None:
    digest = file_digest(folder / "out.onnx")
    (folder / "out.onnx").rename(tmp_path / "searched.onnx")
    built = command("build", "--config", str(folder / "plan.toml"), "--no-cache")
    assert built.returncode == 0, built.stderr
    assert file_digest(folder / "out.onnx") == digest
    config = tomllib.loads((folder / "plan.toml").read_text())
    assert config["model"][0]["guard"] is False


def test_what_is_on_its_way_is_waited_for_before_a_strategy_has_no_more_to_say(
    done: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strategy proposes the same again until it has learned what that comes to, which takes longer on workers."""
    monkeypatch.setattr(Judge, "beside", property(lambda self: 2))
    side_by_side = search(tmp_path)
    assert len(side_by_side.report.candidates) == len(done.report.candidates) == 6


def test_blocks_are_options(done: Search) -> None:
    sites = [site for site in done.report.sites if site.kind == "blocks"]
    assert sites
    assert all([option.word for option in site.options] == ["keep", "remove"] for site in sites)
    assert all(site.options[1].loss > 0.0 for site in sites)


def test_a_search_that_is_asked_for_again_builds_nothing(
    folder: Path, done: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a candidate was built twice")

    monkeypatch.setattr(Judge, "_built", never)
    monkeypatch.setattr("optc.searcher.survey.layer_options", never)
    again = search(folder)
    assert again.report.recalled == len(again.report.candidates)
    assert [one.passes for one in again.report.candidates] == [one.passes for one in done.report.candidates]


def test_a_search_that_goes_on_keeps_the_best_of_the_one_before(folder: Path, done: Search, tmp_path: Path) -> None:
    wanted = file_digest(folder / "out.onnx") if (folder / "out.onnx").exists() else None
    again = search(folder, output=tmp_path / "out.onnx", plan=tmp_path / "plan.toml", candidates=1)
    best = done.report.candidates[done.report.chosen]
    assert best.passes != "clean"
    assert [one.strategy for one in again.report.candidates] == ["as it is", "earlier"]
    assert again.report.candidates[again.report.chosen].loss == best.loss
    assert again.met
    assert wanted in (None, file_digest(tmp_path / "out.onnx"))
    assert search(folder, "macs=61%", candidates=1).report.candidates[-1].passes == "clean"


def test_a_worse_candidate_never_takes_the_place_of_an_earlier_one(
    folder: Path, done: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on disk is the best of all, from the beginning of a search that goes on."""
    sizes: list[float] = []
    build = Judge.build

    def seen(self: Judge, plan: Plan, output: str | None, rulings: Any) -> Any:
        if output is not None:
            sizes.append(self.begin(plan).figures().loss)
        return build(self, plan, output, rulings)

    monkeypatch.setattr(Judge, "build", seen)
    search(folder, output=tmp_path / "out.onnx", plan=tmp_path / "plan.toml")
    assert sizes
    assert set(sizes) == {min(sizes)}


def test_another_models_database_is_never_taken(folder: Path, done: Search, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    graph = optc.load(model(tmp_path))
    for node in graph:
        node.name = f"other {node.name}"
    optc.save(graph, other)
    other_search = optc.search(
        str(other), "macs=60%", data=samples(tmp_path), cache=folder / "cache", threads=1, teach=False, candidates=1
    )
    assert other_search.report.recalled == 0


def test_what_is_interrupted_leaves_the_best_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Judge.begin
    count = 0

    def once(self: Judge, plan: Any) -> Any:
        nonlocal count
        count += 1
        if count > 5:
            raise KeyboardInterrupt
        return real(self, plan)

    monkeypatch.setattr(Judge, "begin", once)
    with pytest.raises(Stopped, match=r"the best so far is kept at .*out\.onnx") as stopped:
        search(tmp_path)
    assert stopped.value.search is not None
    assert stopped.value.search.met
    assert (tmp_path / "out.onnx").is_file()
    assert (tmp_path / "plan.toml").is_file()


def test_what_breaks_the_budget_is_written_at_the_end_alone(tmp_path: Path) -> None:
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        assert not (tmp_path / "out.onnx").exists()

    missed = search(tmp_path, "macs=1%", tell=tell)
    assert not missed.met
    assert lines
    assert (tmp_path / "out.onnx").is_file()
    assert any(
        "macs: at most 0.01x is wanted, and the least any plan reaches is" in note for note in missed.report.notes
    )
    document = json.loads(missed.report.to_json())
    assert document["budget"]["met"] is False


def test_a_key_changes_with_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from optc.searcher import loop

    options = Options(data=samples(tmp_path))
    first = loop.key_of("digest", options, model(tmp_path))
    assert first == loop.key_of("digest", options, model(tmp_path))
    monkeypatch.setattr(loop, "own_code", lambda: cached.own_code() + "x")
    assert loop.key_of("digest", options, model(tmp_path)) != first


CHANGED = {
    "a block gone": ("prune:kind=blocks:ratio=0", "Add", {"prune": {"remove": True}}),
    "another block": ("replace:ratio=0", "Conv", {"replace": {"force": True, "form": "inverted", "expansion": 2.0}}),
    "a layer of floats among integers": ("quant", "Conv", {"quant": {"activations": "none"}}),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_plan_with_a_change_is_built_again(name: str, tmp_path: Path) -> None:
    passes, op, wanted = CHANGED[name]
    path = model(tmp_path)
    label = [node.label for node in optc.load(path) if node.op == op][1 if op == "Conv" else 0]
    plan = Plan(passes, (Override(label, passes=wanted),))
    options = Options(data=samples(tmp_path, 80), threads=1)
    text = plan_text(str(tmp_path / "plan.toml"), path, str(tmp_path / "out.onnx"), options, plan, "onnx", None)
    (tmp_path / "plan.toml").write_text(text)
    digests = set()
    for _ in range(2):
        built = command("build", "--config", str(tmp_path / "plan.toml"), "--no-cache")
        assert built.returncode == 0, built.stderr
        digests.add(file_digest(tmp_path / "out.onnx"))
    assert len(digests) == 1
    ops = [node.op for node in optc.load(tmp_path / "out.onnx")]
    assert ops != [node.op for node in optc.load(path)]


def test_other_blocks_are_options(done: Search) -> None:
    sites = [site for site in done.report.sites if site.kind == "replacement"]
    assert sites
    words = {option.word for site in sites for option in site.options}
    assert {"keep", "conv", "separable"} <= words
    assert all(0.0 < option.macs < 1.0 for site in sites for option in site.options[1:])
