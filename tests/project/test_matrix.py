"""A matrix of models and targets, built side by side: one line each, the worst status, a lock, and a clean end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from processes import ended

from optc.compiler.options import Options
from optc.errors import LockError, SpecError
from optc.project.config import ModelEntry, load
from optc.project.lock import Lock
from optc.project.matrix import Job, Result, build, jobs_of, worst

TEXT = """
passes = "prune:ratio=0.3"
samples = 40
threads = 1
check = false
output = "out"

[[model]]
path = "zoo:digits_dscnn"
targets = ["onnx", "onnx:cpu=arm"]

[[model]]
path = "zoo:digits_resnet"
passes = "clean"
"""


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "optc.toml"
    path.write_text(text)
    return path


def optc(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    place = {**os.environ, "OPTC_CACHE": str(folder / "cache"), **more}
    words = (sys.executable, "-m", "optc", *words)
    return subprocess.run(words, cwd=folder, env=place, capture_output=True, text=True, check=False)


def test_jobs_are_chosen_by_name(tmp_path: Path) -> None:
    config = load(str(write(tmp_path)))
    names = [job.name for job in jobs_of(config)]
    assert names == ["digits_dscnn@onnx", "digits_dscnn@onnx:cpu=arm", "digits_resnet@onnx"]
    assert [job.name for job in jobs_of(config, ["digits_dscnn"])] == names[:2]
    assert [job.name for job in jobs_of(config, ["digits_dscnn@onnx:cpu=arm", "digits_resnet"])] == names[1:]
    with pytest.raises(SpecError, match="Did you mean 'digits_resnet'"):
        jobs_of(config, ["digits_resnt"])


def test_the_worst_status() -> None:
    assert worst([]) == 0
    assert worst([0, 0]) == 0
    assert worst([0, 3, 0]) == 3
    assert worst([3, 2, 0]) == 2
    assert worst([3, 2, 1]) == 1


@pytest.mark.slow
def test_every_entry_is_built_recorded_and_taken_from_the_cache(tmp_path: Path) -> None:
    write(tmp_path)
    first = optc(tmp_path, "build", "--jobs", "2")
    assert first.returncode == 0, first.stderr
    assert len(first.stdout.splitlines()) == 3
    files = {"digits_dscnn.onnx", "digits_dscnn.onnx-cpu=arm.onnx", "digits_resnet.optc.onnx"}
    assert set(os.listdir(tmp_path / "out")) == files
    lock = (tmp_path / "optc.lock").read_bytes()
    assert set(json.loads(lock)["builds"]) == {
        "digits_dscnn@onnx",
        "digits_dscnn@onnx:cpu=arm",
        "digits_resnet@onnx",
    }
    bytes_ = {name: (tmp_path / "out" / name).read_bytes() for name in files}
    again = optc(tmp_path, "build", "--locked", "--json")
    assert again.returncode == 0, again.stderr
    said = [json.loads(line) for line in again.stdout.splitlines()]
    assert [one["status"] for one in said] == [0, 0, 0]
    assert all("cached" in one["said"] for one in said)
    assert (tmp_path / "optc.lock").read_bytes() == lock
    plain = optc(tmp_path, "build", "--locked", "--no-cache", "--jobs", "1")
    assert plain.returncode == 0, plain.stdout + plain.stderr
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == bytes_
    write(tmp_path, TEXT.replace('"clean"', '"clean:traces=true"'))
    other = optc(tmp_path, "build", "--locked", "-q")
    assert other.returncode == 2
    assert other.stderr.splitlines() == [
        "digits_resnet@onnx: differs from the lock: the options changed; build without --locked to renew it"
    ]


@pytest.mark.slow
def test_a_build_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    text = TEXT + '\n[[model]]\npath = "missing.onnx"\n\n[[model]]\npath = "zoo:digits_resnet"\nname = "small"\n'
    write(tmp_path, text + 'passes = "clean"\nbudget = "params=1%"\n')
    forms = [word for form in ("json", "md", "xml", "html") for word in ("--report", f"all.{form}")]
    done = optc(tmp_path, "build", "digits_resnet", "missing", "small", *forms)
    check_reports(tmp_path)
    assert done.returncode == 2
    assert "missing@onnx: " in done.stderr
    assert "missing.onnx" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "small@onnx: " in done.stdout
    assert "budget missed: params" in done.stdout
    assert set(os.listdir(tmp_path / "out")) == {"digits_resnet.optc.onnx", "small.optc.onnx"}
    assert optc(tmp_path, "build", "small").returncode == 3
    assert optc(tmp_path, "build", "missing@onnx").returncode == 2


def check_reports(folder: Path) -> None:
    """A matrix of three builds, one of which has no model and one of which misses its budget, in every form."""
    document = json.loads((folder / "all.json").read_text())
    assert document["schema"] == "optc.matrix/1"
    assert [(one["name"], one["status"]) for one in document["builds"]] == [
        ("digits_resnet@onnx", 0),
        ("missing@onnx", 2),
        ("small@onnx", 3),
    ]
    assert document["builds"][0]["report"]["schema"] == "optc.build/1"
    assert document["builds"][1]["report"] is None
    root = ElementTree.fromstring((folder / "all.xml").read_text())
    assert (root.get("failures"), root.get("errors")) == ("1", "1")
    assert {suite.get("name") for suite in root} >= {"budget of small@onnx", "passes on digits_resnet@onnx"}
    table = (folder / "all.md").read_text()
    assert table.startswith("## 1 of 3 builds done\n")
    assert table.count("\n| `") == 3
    page = (folder / "all.html").read_text()
    assert page.count("<tr>") == 4
    assert "missing@onnx" in page
    assert "Content-Security-Policy" in page


def test_memory_bounds_what_runs_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [ModelEntry(str(i), f"none{i}.onnx", ("onnx",), None, Options()) for i in range(3)]
    results: list[Result] = []
    jobs = [Job(entry, "onnx") for entry in entries]
    status = build(jobs, Lock(str(tmp_path / "l")), cache=None, processes=3, memory=1, tell=results.append)
    assert status == 2
    assert [result.job.name for result in results] == ["0@onnx", "1@onnx", "2@onnx"], "one after the other"
    assert not (tmp_path / "l").exists()


@pytest.mark.slow
@pytest.mark.parametrize("after", [1.5, 4.0])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_and_leaves_nothing_half_done(how: signal.Signals, after: float, tmp_path: Path) -> None:
    write(tmp_path, TEXT.replace("ratio=0.3", "ratio=0.3,svd:ratio=0.8,distill:minutes=1"))
    words = [sys.executable, "-m", "optc", "build", "--jobs", "3", "--no-cache"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)  # fmt: skip
    time.sleep(after)
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.send_signal(how)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, out + errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("optc: interrupted")
    left = [str(path) for path in tmp_path.rglob("*") if path.name.startswith(".optc-")]
    assert not left
    ended(process.pid)


def test_a_lock_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "optc.lock"
    assert Lock.read(str(path)).builds == {}
    with pytest.raises(LockError, match="build once without --locked"):
        Lock.read(str(path), strict=True)
    for text in ("", "[]", "{}", '{"schema": "optc.lock/1", "builds": {"a": {}}}', "\x00"):
        path.write_text(text)
        with pytest.raises(LockError, match="no lock file, or is damaged"):
            Lock.read(str(path))
    path.write_text('{"schema": "optc.lock/9", "builds": {}}')
    with pytest.raises(LockError, match=r"optc\.lock/9"):
        Lock.read(str(path))
