"""Tuning: what is tried and in what order, what is kept, and that any choice answers as the default does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optc.cli.app import run
from optc.compiler import Interrupted, compile
from optc.compiler.locked import Locked
from optc.errors import DataError, SpecError, TargetError
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.shapes.infer import infer
from optc.runtime.session import Session
from optc.targets import table
from optc.targets.tuning import Tuning, duration
from optc.targets.tvm.artifact import manifest
from optc.targets.tvm.tuning.choice import Cut, TuningChoice

from .test_codes import picture_net
from .test_library import images, need, picture, small


class Ticks:
    """A clock that goes on by a second each time it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def tuned(
    graph: Graph,
    path: Path,
    limit: float,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stop_at: int = 10**9,
    slow: bool = False,
) -> TuningChoice:
    """Tune with kernels that are their tiles, and need half the time (or twice) where those are of one block."""
    from optc.targets.tvm.cpu.machines import host
    from optc.targets.tvm.relax.module import workloads
    from optc.targets.tvm.tuning import search
    from optc.targets.tvm.tuning.records import Records
    from optc.targets.tvm.tuning.runner import Runner

    loads = 0

    class Pretending(Runner):
        def load(self, kernel: Any) -> Callable[[int], float]:
            nonlocal loads
            loads += 1
            if loads == stop_at:
                raise KeyboardInterrupt
            return lambda runs: 1e-3 * (1.0 if kernel.chunks > 1 else 2.0 if slow else 0.5)

    machine = host()
    works = workloads(graph, machine)
    monkeypatch.setattr(search, "alone", lambda work, tile, machine: tile)
    records = Records(str(path), machine, 1)
    ended = search.search(works, machine, records, lambda: Pretending(machine, 1), limit, clock=Ticks())
    best = {work: records.best(work, work.default(machine)) for work in works}
    cuts = tuple(Cut(work, tile) for work, tile in best.items() if tile != work.default(machine))
    assert ended.interrupted == (loads >= stop_at)
    return TuningChoice(ended.left, records.digest(works), records.gain(works), cuts)


def wide() -> Graph:
    """Two convolutions that take tiles of one, two and more blocks."""
    from .test_library import Net

    net = Net()
    x = net.input("x", "N", 16, 8, 8)
    first = net.add("Relu", net.add("Conv", x, net.constant(32, 16, 1, 1)))
    graph = net.done(net.add("Conv", first, net.constant(32, 32, 1, 1)))
    infer(graph)
    return graph


def test_the_fastest_tile_is_taken_and_the_search_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("host")
    whole = tuned(wide(), tmp_path / "whole.jsonl", 1e9, monkeypatch)
    assert whole.kernels == 0  # none has tiles left
    assert {cut.tile.chunks for cut in whole.cuts} == {1}
    assert whole.share == 0.5
    lines = (tmp_path / "whole.jsonl").read_text().splitlines()
    left = 99
    for limit in (6, 12, 1e9):  # seconds, of which each look at the clock takes one
        part = tuned(wide(), tmp_path / "parts.jsonl", limit, monkeypatch)
        assert part.kernels <= left
        left = part.kernels
    assert sorted((tmp_path / "parts.jsonl").read_text().splitlines()) == sorted(lines)
    assert part == whole
    # Nothing is left to measure: the file stays as it is.
    assert tuned(wide(), tmp_path / "whole.jsonl", 1e9, monkeypatch) == whole
    assert (tmp_path / "whole.jsonl").read_text().splitlines() == lines


def test_an_interrupt_keeps_what_is_known_and_a_line_that_was_cut_off_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("host")
    path = tmp_path / "r.jsonl"
    tuned(wide(), path, 1e9, monkeypatch, stop_at=7)
    lines = path.read_text().splitlines()
    assert len(lines) == 4  # two defaults were timed first
    deep = '{"default": ' + "[" * 100_000
    path.write_text("\n".join([*lines[:3], deep, lines[3][:40]]))
    assert tuned(wide(), path, 1e9, monkeypatch).share == 0.5
    assert sum(line.startswith('{"default"') and line.endswith("}") for line in path.read_text().splitlines()) > 4


def test_what_is_slower_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("host")
    assert tuned(wide(), tmp_path / "r.jsonl", 1e9, monkeypatch, slow=True).cuts == ()


@pytest.mark.parametrize("coded", [False, True])
def test_any_cut_answers_as_the_default_does(coded: bool, tmp_path: Path) -> None:
    """Every kernel is cut in the last way that would be tried, with every other property changed too."""
    need("host")
    from optc.targets.tvm.cpu.machines import host
    from optc.targets.tvm.relax.module import workloads
    from optc.targets.tvm.tuning.kernel import alone

    graph = picture_net(np.uint8) if coded else images()
    infer(graph)
    target, machine = table.parse("host")[0], host()
    works = workloads(graph, machine)
    cuts = []
    for work in works:
        lists = dict(work.candidates(machine))
        tile = lists["tile"][-1]
        for name, tiles in lists.items():
            if name != "tile":
                tile = replace(tile, **{name: getattr(tiles[-1], name)})
        assert alone(work, tile, machine) is not None, work.text
        cuts.append(Cut(work, tile))
    assert any(cut.tile != cut.workload.default(machine) for cut in cuts)
    target.emit(graph, str(tmp_path / "a.tar"), TuningChoice(len(cuts), "", 1.0, tuple(cuts)).to_text())
    shape = [size if isinstance(size, int) else 1 for size in graph.inputs[0].shape or ()]
    feeds = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)} if coded else picture(1)
    answers = target.open(str(tmp_path / "a.tar"), threads=1).run(feeds)
    for one, other in zip(answers, Session(graph, threads=1, exact=True).run(feeds), strict=True):
        apart = np.abs(one - other) > 1e-5 * np.abs(other).max()
        assert apart.mean() <= (0.001 if coded else 0)  # codes may fall to the other side of a tie


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its records, and the library that tuning made of it."""
    need("host")
    folder = tmp_path_factory.mktemp("tuning")
    save(small(), folder / "m.onnx")
    words = [str(folder / "m.onnx"), "--passes", "clean", "--target", "host", "--threads", "1", "--no-cache"]
    assert run([*words, "--tune", "2s", "--tune-records", str(folder / "r.jsonl"), "-o", str(folder / "a.tar")]) == 0
    return folder


def test_a_model_is_tuned_and_records_make_the_same_bytes(once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from optc.targets.tvm.artifact import folder as artifact

    lines = (once / "r.jsonl").read_text().splitlines()
    assert lines
    with artifact.opened(str(once / "a.tar")) as folder:
        tuning = manifest.read(folder)["tuning"]
    assert tuning["kernels"] == 1
    words = [str(once / "m.onnx"), "--passes", "clean", "--target", "host", "--threads", "1", "--no-cache", "--json"]
    assert run([*words, "--tune-records", str(once / "r.jsonl"), "-o", str(once / "b.tar")]) == 0
    assert (once / "a.tar").read_bytes() == (once / "b.tar").read_bytes()
    assert (once / "r.jsonl").read_text().splitlines() == lines
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("of 1 kernels are not cut by default" in note and "; 0 trials" in note for note in notes)


def test_a_lock_repeats_what_was_measured(once: Path, tmp_path: Path) -> None:
    model = str(once / "m.onnx")
    how = {"target": "host", "threads": 1, "check": False, "tune": 2.0}
    first = compile(model, "clean", output=tmp_path / "a.tar", tune_records=once / "r.jsonl", **how)  # type: ignore[arg-type]
    again = compile(model, "clean", output=tmp_path / "b.tar", lock=Locked.of(first.report), **how)  # type: ignore[arg-type]
    assert "tuning: as the lock file records" in again.report.notes
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_build_that_is_interrupted_while_it_tunes_is_kept(
    once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optc.targets.tvm.tuning import runner

    def stop(*arguments: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.Here, "load", stop)
    with pytest.raises(Interrupted, match=r"interrupted during tuning; the result of clean is kept at"):
        compile(str(once / "m.onnx"), "clean", target="host", output=tmp_path / "a.tar", tune=9.0, threads=1)
    library = table.parse("host")[0].open(str(tmp_path / "a.tar"), threads=1)
    x = np.ones((1, 3, 8, 8), np.float32)
    want = Session(small(), threads=1, optimise=False).run({"x": x})[0]
    assert np.allclose(library.run({"x": x})[0], want, atol=1e-5)


def test_what_cannot_be_tuned_is_told_at_once(once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(once / "m.onnx")
    for words, said in (
        (["--tune", "ten"], "--tune takes a time such as 90s, 10m or 1h, not 'ten'"),
        (["--tune", "0s", "--target", "host"], "--tune takes a time"),
        (["--tune", "9s"], "onnx has no kernels that can be tuned; --tune is for host, arm64 and armv7"),
        (["--tune", "9s", "--target", "opencl"], "opencl has no kernels that can be tuned"),
        (["--tune", "9s", "--target", "arm64"], "under an emulator, whose times tell nothing: tune on a device, --rpc"),
        (["--target", "onnx", "--rpc", "localhost:1"], "onnx artifacts do not run on a device"),
        (["--target", "host", "--tune-records", model], "m.onnx cannot be read: it is no text"),
    ):
        assert run([model, "--passes", "clean", "-o", str(once / "none.tar"), "--no-cache", *words]) == 2
        assert said in capsys.readouterr().err
    assert not (once / "none.tar").exists()


def test_durations() -> None:
    assert [duration(text) for text in ("90s", "10m", "1.5h")] == [90, 600, 5400]
    with pytest.raises(SpecError, match="not '10'"):
        duration("10")


def test_other_files_are_no_records(tmp_path: Path) -> None:
    need("host")
    (tmp_path / "r").write_text("hello\n")
    target = table.parse("host")[0]
    with pytest.raises(DataError, match="holds no records of tuning"):
        target.tune(small(), Tuning(1.0, str(tmp_path / "r")), lambda seconds: None)
    with pytest.raises(TargetError, match="tune on a device"):
        table.parse("armv7")[0].check_tuning(Tuning(1.0, None))
    table.parse("armv7")[0].check_tuning(Tuning(0.0, str(tmp_path / "r")))
