"""Dependency files say what Make and Ninja need, in a way both read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from optc.cli.app import run
from optc.errors import OutputError
from optc.ir.onnx.reader import load
from optc.ir.onnx.writer import save
from optc.models import zoo
from optc.project import depfile


def test_external_data_of_an_input_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graph = zoo.load("digits_dscnn")
    weight = next(value for value in graph.constants if len(value.shape or ()) == 4)
    source = graph.add_input("w", weight.type, default=weight.constant)
    weight.replace_uses(source)
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


HARMLESS = [
    "a b",
    "a#b",
    "a$b",
    "a:b",
    "a~",
    "a!b",
    "a)b",
    "a{b}",
    "a@b",
    "a,b",
    "-a",
    "ä",
    "a]",
    "define",
    "undefine",
    "export",
    "private",
    ".PHONY",
]
HARMFUL = [
    *(f"a{one}b" for one in "\"&'(*;<=>?[^`|\\%"),
    "a ",
    "a:",
    "a(b)",
    "a$(touch pwned)b",
    "~",
    "~root/a",
    "a\nb",
    "a\n\ttouch pwned",
    "a\rb",
    "a\x1b[2Jb",
    "a\tb",
    "\x85",
]


@pytest.mark.parametrize("name", HARMLESS)
def test_make_and_ninja_read_what_was_written(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("")
    depfile.write(str(tmp_path / "out.d"), ["out"], [name, "next"])
    (tmp_path / "next").write_text("")
    (tmp_path / "Makefile").write_text("out:\n\t@printf '%s\\n' \"$$NAMES\"\ninclude out.d\nexport NAMES=$^\n")
    done = subprocess.run(["make", "-r", "out"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.rstrip("\n").removeprefix("./") == f"{name} next", done.stderr
    rule = "rule r\n  command = touch out && cp out.d d\n  depfile = d\n  deps = gcc\nbuild out: r\n"
    (tmp_path / "build.ninja").write_text(rule)
    subprocess.run(["ninja"], cwd=tmp_path, capture_output=True, check=True)
    done = subprocess.run(["ninja", "-t", "deps", "out"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.strip().removeprefix("./") for line in done.stdout.splitlines()[1:3]] == [name, "next"]
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", HARMLESS)
def test_make_reads_the_output_that_was_written(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("")
    depfile.write(str(tmp_path / "out.d"), [name], ["in"])
    (tmp_path / "Makefile").write_text("all:\ninclude out.d\n.DEFAULT:\n\t@:\n")
    done = subprocess.run(["make", "-rpqn"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"{name}: in" in [line.removeprefix("./") for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", HARMFUL)
def test_what_they_read_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    for outputs, inputs in (([name], ["in"]), (["out"], [name])):
        with pytest.raises(OutputError, match="rename it"):
            depfile.write(str(tmp_path / "out.d"), outputs, inputs)
    assert not (tmp_path / "out.d").exists()
