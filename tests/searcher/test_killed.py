"""A search killed at ten moments goes on where it was: nothing is tried twice, and what is on disk keeps the budget."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from searched import model, samples

import optc
from optc.ir.cost import cost

MOMENTS = 10
SHARE = 0.6
LOGGED = """
import sys
from dataclasses import replace
from optc.cli.app import run
from optc.searcher.judge import Judge
from optc.searcher.survey import Survey

log = open(sys.argv[1], "a", buffering=1)
begin, keep = Judge.begin, Survey._keep

def judged(self, plan):
    waiting = begin(self, plan)
    if waiting.recalled:
        return waiting

    def figures():
        came = waiting.figures()
        log.write(f"{plan}\\n")
        return came

    return replace(waiting, figures=figures)

def kept(self, about, options):
    keep(self, about, options)
    log.write(f"{about}\\n")

Judge.begin, Survey._keep = judged, kept
sys.exit(run(sys.argv[2:]))
"""

pytestmark = pytest.mark.slow


def start(folder: Path, log: Path, cache: Path) -> subprocess.Popen[bytes]:
    words = ["search", model(folder), "--data", samples(folder), "--budget", f"macs={SHARE:.0%}", "--candidates", "6"]
    words += [
        "--no-teach",
        "--threads",
        "1",
        "--time",
        "1h",
        "--cache",
        str(cache),
        "-o",
        str(folder / "out.onnx"),
        "-q",
    ]
    return subprocess.Popen([sys.executable, "-c", LOGGED, str(log), *words], stderr=subprocess.DEVNULL)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    begin = time.perf_counter()
    assert start(tmp_path, tmp_path / "log", tmp_path / "cache").wait() == 0
    whole = time.perf_counter() - begin
    wanted = (tmp_path / "out.onnx").read_bytes()
    lines = sorted((tmp_path / "log").read_text().splitlines())
    draw, killed, number, fresh = random.Random(0), 0, 0, True
    for _ in range(MOMENTS):
        if fresh:  # a search that came to its end leaves nothing to be killed in
            number += 1
            (tmp_path / "out.onnx").unlink(missing_ok=True)
        log = tmp_path / f"log{number}"
        process = start(tmp_path, log, tmp_path / f"cache{number}")
        try:
            process.wait(draw.uniform(0.2 * whole, whole))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        fresh = process.returncode == 0
        if (tmp_path / "out.onnx").exists():
            original = cost(optc.load(tmp_path / "net.onnx")).macs
            assert cost(optc.load(tmp_path / "out.onnx")).macs <= SHARE * original
    assert killed > MOMENTS // 3
    process = start(tmp_path, log, tmp_path / f"cache{number}")
    assert process.wait() == 0
    assert (tmp_path / "out.onnx").read_bytes() == wanted
    times = Counter(log.read_text().splitlines())
    assert sorted(times) == sorted(set(lines))
    assert max(times.values()) == 1, "nothing is tried twice"
