"""The search on the command line: what it says, what it writes, its exit status, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import assert_one_line
from processes import optc as command
from searched import model, samples

FEW = ("--candidates", "6", "--no-teach", "--threads", "1", "--time", "1h")


def test_it_says_how_long_and_what_came_out(tmp_path: Path) -> None:
    words = [model(tmp_path), "--data", samples(tmp_path), "--budget", "macs=60%", "--cache", str(tmp_path / "cache")]
    done = command("search", *words, *FEW, "-o", "out.onnx", "--report", "r.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("searches for 3600 s; the best so far is kept at out.onnx")
    assert re.search(r"(single|knapsack): macs 0\.", done.stderr)
    assert "answer" in done.stdout
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["schema"] == "optc.search/1"
    assert document["budget"]["met"] is True
    assert (tmp_path / "out.plan.toml").is_file()
    missed = command("search", *words[:-3], "macs=2%", *words[-2:], *FEW, "-o", "small.onnx", "-q", cwd=tmp_path)
    assert_one_line(
        missed, 3, "the budget was missed: macs: wanted at most 0.020x", "what comes nearest is at small.onnx"
    )
    assert (tmp_path / "small.onnx").is_file()


REFUSED = {
    "no samples": (["--budget", "agreement=98%"], "without --data the samples are made up"),
    "no budget": (["--passes", "auto"], "a search needs a budget"),
    "an option of a build": (["--budget", "size=50%", "--tune", "9s"], "--tune is of a build whose passes are named"),
    "a lock": (["--budget", "size=50%", "--lock", "l.lock"], "--lock is of a build whose passes are named"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_build_that_would_search_refuses_what_a_search_does_not_know(name: str, tmp_path: Path) -> None:
    words, said = REFUSED[name]
    assert_one_line(command(model(tmp_path), *words, cwd=tmp_path), 2, said)
    assert not (tmp_path / "net.optc.onnx").exists()


@pytest.mark.parametrize("words", [["--time", "soon"], ["--report", "r.pdf"], ["--plan", "plan.txt"]])
def test_wrong_words_are_one_line(words: list[str], tmp_path: Path) -> None:
    whole = ["search", model(tmp_path), "--budget", "macs=50%", *words]
    assert_one_line(command(*whole, cwd=tmp_path), 2, words[0] if words[0] != "--report" else "r.pdf")


def test_a_search_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed in the survey, and again when an answer lies on disk: no layer and no candidate is looked at twice."""
    script = "from optc.cli.app import run; import sys; sys.exit(run(sys.argv[1:]))"
    words = ["search", model(tmp_path), "--data", samples(tmp_path), "--budget", "macs=60%", *FEW]
    words += ["--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "out.onnx"), "-q"]
    records = tmp_path / "cache" / "records"

    def kept() -> int:
        return sum(len(files) for _, _, files in os.walk(records))

    for ready in (lambda: kept() > 2, lambda: (tmp_path / "out.onnx").exists()):
        before = kept()
        child = subprocess.Popen([sys.executable, "-c", script, *words], stderr=subprocess.DEVNULL)
        while not ready() and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert kept() >= before
    done = command(*words[:-1], "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["recalled"] >= 2
    assert document["budget"]["met"] is True
