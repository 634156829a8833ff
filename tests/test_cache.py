"""What has not changed is not run again, and nobody can tell from the bytes."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import optc

from optc.compiler import Build, Data, compile
from optc.compiler.locked import Locked
from optc.errors import LockError
from optc.ir.graph import Graph
from optc.models import zoo
from optc.passes import cached
from optc.passes.base import Context, Override, Pass, Report
from optc.passes.guard import Guard
from optc.passes.observers import Dump
from optc.storage.store import Store

MODEL = "zoo:digits_dscnn"
PASSES = "prune:ratio=0.3,prune:ratio=0.5"

pytestmark = pytest.mark.slow


def build(folder: Path, passes: str = PASSES, *, cache: bool = True, name: str = "out.onnx", **more: object) -> Build:
    options: dict[str, object] = {"data": Data(limit=40), "threads": 1, "check": False, **more}
    place = str(folder / "cache") if cache else None
    return compile(MODEL, passes, output=folder / name, cache=place, **options)  # type: ignore[arg-type]


def ran(done: Build) -> list[str]:
    return [step.report.spec for step in done.report.steps if not step.report.cached]


def test_the_second_build_is_the_first_and_much_faster(tmp_path: Path) -> None:
    start = time.perf_counter()
    first = build(tmp_path, check=True)
    between = time.perf_counter()
    (tmp_path / "out.onnx").rename(tmp_path / "first.onnx")
    second = build(tmp_path, check=True)
    end = time.perf_counter()
    assert not first.report.cached
    assert second.report.cached
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "first.onnx").read_bytes()
    assert end - between < (between - start) / 10
    one, two = first.report.as_dict(), second.report.as_dict()
    for document in (one, two):
        for key in ("seconds", "cached"):
            document.pop(key)
            for step in document["passes"]:
                step.pop(key, None)
    assert two == one, "measured figures and all"
    second.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "first.onnx").read_bytes()


def test_a_shape_is_measured_once_for_all_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def ratio(step: object, *more: object) -> float:
        measured.append(step)
        return 0.5

    monkeypatch.setattr("optc.passes.walk.layer_time._measured", ratio)
    first = build(tmp_path, "svd:error=0.05:align=1", guard=False)
    assert first.report.steps[-1].report.changed
    count = len(measured)
    assert count
    other = build(tmp_path, "svd:error=0.0500001:align=1", guard=False)
    assert ran(other) == ["svd:error=0.0500001:align=1"]
    assert len(measured) == count
    build(tmp_path, "svd:error=0.05:align=1", threads=2, guard=False)
    assert len(measured) > count, "with other threads, times are others"


def test_only_what_comes_after_a_change_runs_and_gives_what_it_gives_without_the_cache(tmp_path: Path) -> None:
    build(tmp_path)
    other = "prune:ratio=0.3,prune:ratio=0.6"
    after = build(tmp_path, other)
    assert ran(after) == ["prune:ratio=0.6"]
    # Whether a pass stays depends on times that the guard measures: the lock repeats what it said.
    plain = build(tmp_path, other, cache=False, name="plain.onnx", lock=Locked.of(after.report))
    assert ran(plain) == ["clean", "prune:ratio=0.3", "prune:ratio=0.6"]
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "plain.onnx").read_bytes()
    assert ran(build(tmp_path, "prune:ratio=0.4,prune:ratio=0.5")) == ["prune:ratio=0.4", "prune:ratio=0.5"]


CHANGES: dict[str, dict[str, object]] = {
    "seed": {"seed": 1},
    "threads": {"threads": 2},
    "samples": {"data": Data(limit=36)},
    "guard": {"guard": False},
    "floor": {"min_agreement": 0.5},
    "overrides": {"overrides": (Override("conv*", keep=True),)},
    "target": {"target": "onnx:cpu=arm"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_pass_runs_again_where_anything_differs(change: dict[str, object], tmp_path: Path) -> None:
    build(tmp_path, "prune:ratio=0.5")
    assert "prune:ratio=0.5" in ran(build(tmp_path, "prune:ratio=0.5", **change))


def test_versions_and_code_are_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, "clean")
    assert build(tmp_path, "clean").report.cached
    with monkeypatch.context() as patch:
        patch.setattr(cached, "environment", lambda: "numpy 0.1")
        assert ran(build(tmp_path, "clean", name="other.onnx")) == ["clean"]
    monkeypatch.setattr(cached, "own_code", lambda: "edited")
    assert ran(build(tmp_path, "clean", name="third.onnx")) == ["clean"]


def test_a_users_function_is_known_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def rename(graph):\n    graph.nodes[0].name = 'a'\n")
    spec = f"{file}:rename"
    build(tmp_path, spec)
    assert build(tmp_path, spec).report.cached
    file.write_text("def rename(graph):\n    graph.nodes[0].name = 'b'\n")
    again = build(tmp_path, spec)
    assert ran(again) == [spec]
    assert next(iter(again.graph)).name == "b"


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("from helper import NAME", "helper.py"),
        ("import helper.name as helper; NAME = helper.NAME", "helper/name.py"),
        ("NAME = open('helper.txt').read().split(chr(39))[1]", "helper.txt"),
        ("import pathlib; NAME = pathlib.Path('helper.txt').read_text().split(chr(39))[1]", "helper.txt"),
        ("from pathlib import Path; NAME = Path('helper.txt').open().readline().split(chr(39))[1]", "helper.txt"),
        ("import io; NAME = io.open('helper.txt').readline().split(chr(39))[1]", "helper.txt"),
        ("from io import open as spell; NAME = spell('helper.txt').readline().split(chr(39))[1]", "helper.txt"),
        ("from numpy import fromfile as of; NAME = chr(of('helper.txt', 'u1')[8])", "helper.txt"),
        ("import subprocess as s; NAME = s.getoutput('cat helper.txt').split(chr(39))[1]", "helper.txt"),
        ("import os; NAME = 'ba'[os.stat('helper.txt').st_size % 2]", "helper.txt"),
        ("import re; NAME = 'ba'[re.enum.sys.modules['os'].stat('helper.txt').st_size % 2]", "helper.txt"),
        (
            "import numpy as np, operator\nNAME = chr(operator.methodcaller('from' 'file', 'helper.txt', 'u1')(np)[8])",
            "helper.txt",
        ),
        (
            "import numpy as np; from operator import attrgetter as of\n"
            "NAME = chr(of('from' 'file')(np)('helper.txt', 'u1')[8])",
            "helper.txt",
        ),
        (
            "NAME = getattr(__builtins__, 'open', None) or __builtins__['open']\n"
            "NAME = NAME('helper.txt').readline().split(chr(39))[1]",
            "helper.txt",
        ),
    ],
)
def test_a_users_function_with_code_elsewhere_always_runs(
    line: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "mine.py").write_text(f"{line}\n\ndef rename(graph):\n    graph.nodes[0].name = NAME\n")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    for name in ("a", "b"):
        (tmp_path / file).write_text(f"NAME = '{name}'\n" + " " * (name == "b"))
        for module in ("helper", "helper.name"):
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
        again = build(tmp_path, "mine.py:rename")
        assert not again.report.cached
        assert next(iter(again.graph)).name == name


@pytest.mark.parametrize(
    "name", ["../stolen", "/tmp/stolen-by-optc", "stolen", ".bashrc", "out.onnx/../stolen", "out.onnx.\n"]
)
@pytest.mark.parametrize("where", ["main", "files"])
def test_a_record_says_nothing_of_where_files_go(name: str, where: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    build(folder, "clean")
    before = (folder / "out.onnx").read_bytes()
    for path in (folder / "cache" / "records").rglob("*"):
        if path.is_file() and "main" in (record := json.loads(path.read_bytes().partition(b"\n")[2])):
            digest = record["files"][0][1]
            record.update({"main": name} if where == "main" else {"files": [*record["files"], [name, digest]]})
            document = json.dumps(record).encode()
            Store(str(folder / "cache")).put(path.name, document)
    again = build(folder, "clean")
    assert not again.report.cached
    assert (folder / "out.onnx").read_bytes() == before
    assert sorted(os.listdir(folder)) == ["cache", "out.onnx"]
    assert os.listdir(tmp_path) == ["work"]
    assert not os.path.exists("/tmp/stolen-by-optc")


@dataclasses.dataclass(frozen=True, slots=True)
class Counted(Pass):
    """A pass of a module that belongs to no package, of which no version is known."""

    name = "counted"

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        report.rewrote("counted")
        return report


def test_a_pass_that_nothing_is_known_by_always_runs(tmp_path: Path) -> None:
    for _ in range(2):
        done = compile(MODEL, ["prune:ratio=0.3", Counted()], output=tmp_path / "o", cache=tmp_path / "cache",
                       data=Data(limit=40), threads=1, check=False)  # fmt: skip
    assert ran(done) == ["counted"]
    assert not done.report.cached


@pytest.mark.parametrize("kind", ["objects", "records"])
def test_damage_is_noticed_told_and_mended(kind: str, tmp_path: Path) -> None:
    lock = Locked.of(build(tmp_path).report)  # what the guard measured, which another run would not measure the same
    first = (tmp_path / "out.onnx").read_bytes()
    for path in (tmp_path / "cache" / kind).rglob("*"):
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    again = build(tmp_path, lock=lock)
    assert not again.report.cached
    assert any("damaged" in note for note in again.report.notes)
    assert (tmp_path / "out.onnx").read_bytes() == first
    third = build(tmp_path)
    assert third.report.cached
    assert not any("damaged" in note for note in third.report.notes)


def test_a_record_of_another_form_is_made_again(tmp_path: Path) -> None:
    build(tmp_path, "clean")
    store = Store(str(tmp_path / "cache"))
    for path in (tmp_path / "cache" / "records").rglob("*"):
        if path.is_file():
            store.put(path.name, json.dumps({"unknown": 1}).encode())
    assert ran(build(tmp_path, "clean")) == ["clean"]


def test_who_wants_to_see_every_graph_sees_it(tmp_path: Path) -> None:
    build(tmp_path)
    done = build(tmp_path, observers=[Dump(str(tmp_path / "dump"))])
    assert len(os.listdir(tmp_path / "dump")) > len(done.report.steps)
    assert not ran(done), "out of the cache all the same"


def test_a_budget_is_judged_anew(tmp_path: Path) -> None:
    assert build(tmp_path, "clean", budget="params=10%").met is False
    done = build(tmp_path, "clean", budget="params=200%")
    assert done.report.cached
    assert done.met


def test_streams_and_arrays_of_the_same_samples_are_the_same(tmp_path: Path) -> None:
    arrays = {name: array[:40] for name, array in zoo.samples("digits_dscnn", "calib").items()}
    build(tmp_path, "prune:ratio=0.5", data=arrays)
    assert build(tmp_path, "prune:ratio=0.5", data=dict(arrays)).report.cached
    name = next(iter(arrays))
    stream = ({name: arrays[name][i : i + 1]} for i in range(40))
    build(tmp_path, "prune:ratio=0.5", data=stream)
    stream = ({name: arrays[name][i : i + 1]} for i in range(40))
    assert build(tmp_path, "prune:ratio=0.5", data=stream).report.cached


def test_what_the_guard_measured_is_taken_from_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objections = iter(["it would run 1.50 times as long", ""])
    monkeypatch.setattr(Guard, "objection", lambda *_: next(objections))
    first = build(tmp_path, "prune:ratio=0.5", cache=False)
    assert [step.report.changed for step in first.report.steps if step.name == "prune"] == [False]
    lock = dataclasses.replace(Locked.of(first.report), strict=True)
    for cache in (False, True):
        again = build(tmp_path, "prune:ratio=0.5", cache=cache, lock=lock)
        assert again.report.outputs == first.report.outputs
    # A busy machine, another day: without the lock the pass stays, and the lock tells.
    other = build(tmp_path, "prune:ratio=0.5", cache=False)
    assert other.report.outputs != first.report.outputs
    with pytest.raises(LockError, match="other bytes"):
        build(tmp_path, "prune:ratio=0.5", cache=False, lock=dataclasses.replace(lock, rulings=other.report.rulings))


@pytest.mark.parametrize(
    ("change", "says"),
    [({"seed": 5}, "the options changed"), ({"data": Data(limit=36)}, "the options changed"),
     ({"data": zoo.samples("digits_dscnn", "test")}, "the samples changed")],
)  # fmt: skip
def test_a_strict_lock_names_what_differs(change: dict[str, object], says: str, tmp_path: Path) -> None:
    lock = dataclasses.replace(Locked.of(build(tmp_path, "prune:ratio=0.5").report), strict=True)
    with pytest.raises(LockError, match=says):
        build(tmp_path, "prune:ratio=0.5", lock=lock, name="locked.onnx", **change)
    assert not (tmp_path / "locked.onnx").exists()
    older = dataclasses.replace(lock, versions={**lock.versions, "numpy": "0.1"})
    with pytest.raises(LockError, match=r"numpy is \d.*, not 0.1"):
        build(tmp_path, "prune:ratio=0.5", lock=older)


# The guard measures times, and these differ from run to run.
WORDS = [MODEL, "--passes", PASSES, "--samples", "40", "--threads", "1", "-q", "--no-guard"]


def test_processes_with_other_hash_seeds_give_the_same_bytes(tmp_path: Path) -> None:
    artifacts = set()
    for seed in ("0", "77"):
        words = [sys.executable, "-m", "optc", *WORDS, "-o", f"{seed}.onnx", "--no-check"]
        subprocess.run(words, cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": seed}, check=True)
        artifacts.add((tmp_path / f"{seed}.onnx").read_bytes())
    assert len(artifacts) == 1


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_nothing_is_written_but_the_result_and_the_cache(tmp_path: Path) -> None:
    for name in ("home", "work", "tmp"):
        (tmp_path / name).mkdir()
    place = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path / "xdg")}

    def build_in(name: str, **more: str) -> None:
        done = optc(*WORDS, "-o", name, cwd=tmp_path / "work", environment={**place, **more})
        assert done.returncode == 0, done.stderr

    build_in("out.onnx")
    assert tree(tmp_path) == {"home", "work", "tmp", "work/out.onnx"}
    build_in("out.onnx", OPTC_CACHE="")
    assert tree(tmp_path / "work") == {"out.onnx"}
    assert not tree(tmp_path / "home")
    assert not tree(tmp_path / "tmp")
    assert tree(tmp_path / "xdg")
    assert all(name.split(os.sep)[0] == "optc" for name in tree(tmp_path / "xdg"))
    # A home that cannot be written keeps nobody from building.
    (tmp_path / "file").write_text("")
    build_in("third.onnx", XDG_CACHE_HOME=str(tmp_path / "file"), OPTC_CACHE="")
    assert (tmp_path / "work" / "third.onnx").read_bytes() == (tmp_path / "work" / "out.onnx").read_bytes()
