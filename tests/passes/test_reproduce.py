"""A crash leaves a command behind that shows the same crash again, through real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from optc.ir.onnx.reader import load
from optc.ir.text.dump import dump
from optc.models import zoo

FUNCTIONS = """
import numpy as np

def rename(graph):
    graph.nodes[0].name = "renamed"

def crash(graph):
    raise ZeroDivisionError(f"at {graph.nodes[0].name}")

def spoil(graph):
    graph.nodes[0].op = "NoSuchOp"
"""


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """The environment of processes that keep their crashes in `crashes` and find `optc` on their path."""
    (tmp_path / "crashes").mkdir()
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "optc"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m optc "$@"\n')
    script.chmod(0o755)
    (tmp_path / "my passes.py").write_text(FUNCTIONS)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "TMPDIR": str(tmp_path / "crashes"), "PATH": path}


def run(words: list[str], folder: Path, place: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, env=place, capture_output=True, text=True, timeout=300, check=False)


def message(done: subprocess.CompletedProcess[str]) -> str:
    """What the process says went wrong, without the position of the pass and the way to reproduce it."""
    assert done.returncode == 1, done.stderr
    match = re.findall(r"pass \d+ \(function\): (.*); to reproduce: optc ", done.stderr)
    assert match, done.stderr
    return str(match[-1])


@pytest.mark.parametrize(
    ("function", "words"), [("crash", "ZeroDivisionError: at renamed"), ("spoil", "NoSuchOp")], ids=["crash", "spoil"]
)
def test_the_command_shows_the_crash_again(tmp_path: Path, place: dict[str, str], function: str, words: str) -> None:
    data = {value.name: np.zeros((4, 1, 16, 16), np.float32) for value in zoo.load("digits_dscnn").inputs}
    np.savez(tmp_path / "my data.npz", **data)  # type: ignore[arg-type]
    passes = f"my passes.py:rename,my passes.py:{function}"
    first = run(
        ["optc", "zoo:digits_dscnn", "--passes", passes, "--data", "my data.npz", "--seed", "7", "-o", "out.onnx"],
        tmp_path,
        place,
    )
    assert words in message(first)
    (folder,) = (tmp_path / "crashes").glob("optc-crash-*")
    again = run(["sh", str(folder / "command.txt")], Path("/"), place)
    assert message(again) == message(first)
    assert "Traceback" in again.stderr
    assert "Traceback" not in first.stderr
    assert not (tmp_path / "out.onnx").exists()
    command = (folder / "command.txt").read_text()
    assert "--seed 7" in command
    assert "--target onnx" in command
    before = load(folder / "before.onnx")
    assert next(iter(before)).name == "renamed", "the model as the failing pass was given it"
    assert dump(before) != dump(zoo.load("digits_dscnn"))


def test_where_nothing_can_be_written_the_crash_is_still_told(tmp_path: Path, place: dict[str, str]) -> None:
    # Python takes another folder where TMPDIR is of no use, so it is told where to put temporary files.
    (tmp_path / "sitecustomize.py").write_text("import tempfile\ntempfile.tempdir = '/dev/null'\n")
    done = run(
        ["optc", "zoo:digits_dscnn", "--passes", "my passes.py:crash", "-o", "out.onnx"],
        tmp_path,
        {**place, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "no reproducer could be written" in done.stderr
    assert "Traceback" not in done.stderr
