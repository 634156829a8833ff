"""Dependency files say what Make and Ninja need, in a way both read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from optc.cli.app import run
from optc.ir.reader import load
from optc.ir.writer import save
from optc.models import zoo


def test_external_data_of_an_input_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graph = zoo.load("digits_dscnn")
    weight = next(value for value in graph.constants if len(value.shape or ()) == 4)
    given = graph.add_input("w", weight.type, default=weight.constant)
    weight.replace_uses(given)
    graph.sweep()
    _, data = save(graph, "m.onnx", external=True)
    assert load("m.onnx").inputs[-1].default is not None
    assert run(["m.onnx", "--passes", "clean", "--no-check", "-q", "--depfile", "out.d"]) == 0
    assert data in (tmp_path / "out.d").read_text()


def test_every_input_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, data = save(zoo.load("digits_dscnn"), "my $model#1.onnx", external=True)
    (tmp_path / "calib").mkdir()
    np.save("calib/a.npy", np.zeros((1, 1, 16, 16), np.float32))
    (tmp_path / "mine.py").write_text("def nothing(graph):\n    return None\n")
    words = ["my $model#1.onnx", "--passes", "mine.py:nothing", "--data", "calib", "-o", "out file.onnx"]
    assert run([*words, "--depfile", "out.d", "-q", "--no-check"]) == 0
    text = (tmp_path / "out.d").read_text()
    target, _, inputs = text.partition(": ")
    assert target == "out\\ file.onnx"
    assert inputs.split("\n")[0].startswith("my\\ $$model\\#1.onnx ")
    for name in (f"my\\ $$model\\#1.onnx.{data.split('.')[-2]}.data", "calib", "calib/a.npy", "mine.py"):
        assert name in inputs
    # Make itself finds every one of them.
    (tmp_path / "Makefile").write_text("include out.d\n%.onnx:\n\t@touch '$@'\n")
    done = subprocess.run(["make", "-q", "out file.onnx"], capture_output=True, text=True, check=False)
    assert "No rule to make" not in done.stderr
