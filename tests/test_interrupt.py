"""Ctrl-C on a real process: it stops at once, keeps what finished passes made, and says so."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnxruntime
import pytest

from optc.compiler import Interrupted, compile
from optc.passes.base import Pass, Report
from optc.passes.observers import Observer

pytestmark = pytest.mark.slow


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "out").mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "optc", *arguments, "-o", str(tmp_path / "out" / "out.onnx"), "--no-cache"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
    )


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith(word):
        assert line, "the build ended before it was interrupted"


def test_what_finished_passes_made_is_kept(tmp_path: Path) -> None:
    record = tmp_path / "out" / "report.json"
    process = start(tmp_path, "zoo:digits_resnet", "--passes", "quant,prune", "--report", str(record))
    wait_for(process, "quant")
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=120)[1]
    assert time.monotonic() - started < 60
    assert process.returncode == 130
    out = tmp_path / "out" / "out.onnx"
    where = "(during 'prune'|after 'quant')"  # the signal may come before `prune` has begun
    pattern = rf"optc: interrupted {where}; the result of clean, quant is kept at {re.escape(str(out))}"
    assert re.fullmatch(pattern, rest.strip().splitlines()[-1])
    assert "Traceback" not in rest
    assert sorted(os.listdir(tmp_path / "out")) == ["out.onnx", "report.json"]
    assert os.listdir(tmp_path / "temporary") == []
    onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    report = json.loads(record.read_text())
    assert [step["name"] for step in report["passes"]] == ["clean", "quant"]
    assert report["after"]["bytes"] == out.stat().st_size < 0.5 * report["before"]["bytes"]
    assert report["agreement"]["samples"] == 16
    assert report["latency"] is None
    assert any("this is the result of clean, quant" in note for note in report["notes"])


@pytest.mark.parametrize("pause", [0.0, 0.3])
def test_a_second_ctrl_c_leaves_nothing_half_written(pause: float, tmp_path: Path) -> None:
    process = start(tmp_path, "zoo:digits_resnet", "--passes", "quant,prune")
    wait_for(process, "quant")
    process.send_signal(signal.SIGINT)
    time.sleep(pause)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in rest
    left = os.listdir(tmp_path / "out")
    assert left in ([], ["out.onnx"])
    if left:  # the first one had written it already: then it is whole
        onnxruntime.InferenceSession(str(tmp_path / "out" / "out.onnx"), providers=["CPUExecutionProvider"])
    assert os.listdir(tmp_path / "temporary") == []


class StopAt(Observer):
    """Presses Ctrl-C as a pass begins."""

    def __init__(self, name: str) -> None:
        self.name = name

    def before(self, position: int, one: Pass, graph: object) -> None:
        if one.name == self.name:
            raise KeyboardInterrupt

    def after(self, position: int, one: Pass, graph: object, report: Report) -> None:
        pass


def test_a_library_build_raises_with_what_it_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    with pytest.raises(Interrupted, match=r"interrupted during 'svd'; the result of clean, quant is kept") as caught:
        compile("zoo:digits_dscnn", "quant,svd", output=path, threads=1, observers=[StopAt("svd")])
    assert isinstance(caught.value, KeyboardInterrupt)
    build = caught.value.build
    assert build.report.after.bytes == path.stat().st_size
    assert build.report.agreement is not None
    assert build.report.agreement.samples == 16


def test_without_a_finished_lossy_pass_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        compile("zoo:digits_dscnn", "quant", output=tmp_path / "out.onnx", observers=[StopAt("quant")])
    assert not isinstance(caught.value, Interrupted)
    assert os.listdir(tmp_path) == []


def test_without_a_place_to_keep_it_there_is_only_the_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        compile("zoo:digits_dscnn", "quant,svd", threads=1, guard=False, check=False, observers=[StopAt("svd")])
    assert not isinstance(caught.value, Interrupted)
