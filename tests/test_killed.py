"""A build killed at any moment leaves nothing half-written, and the next one equals one that nobody disturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optc.ir.onnx.reader import load

MOMENTS = 20
PASSES = "prune:ratio=0.3,prune:ratio=0.5"
WORDS = ["zoo:digits_dscnn", "--passes", PASSES, "--samples", "40", "--threads", "1", "-q", "--no-guard"]

pytestmark = pytest.mark.slow


def start(folder: Path, cache: Path) -> subprocess.Popen[str]:
    place = {**os.environ, "OPTC_CACHE": str(cache), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    words = [sys.executable, "-m", "optc", *WORDS, "-o", "out.onnx", "--lock", "optc.lock", "--no-check"]
    return subprocess.Popen(words, cwd=folder, env=place, stderr=subprocess.PIPE, text=True)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    begin = time.perf_counter()
    process = start(tmp_path / "plain", tmp_path / "unused")
    assert process.wait() == 0, process.stderr and process.stderr.read()
    whole = time.perf_counter() - begin
    wanted = (tmp_path / "plain" / "out.onnx").read_bytes()
    lock = (tmp_path / "plain" / "optc.lock").read_bytes()
    folder, cache = tmp_path / "work", tmp_path / "cache"
    folder.mkdir()
    draw = random.Random(0)
    killed, fresh = 0, True
    for moment in range(MOMENTS):
        if fresh:  # begin anew: a full cache would leave no time to be killed in
            cache = tmp_path / f"cache{moment}"
            for path in folder.iterdir():
                path.unlink() if path.is_file() else None
        process = start(folder, cache)
        try:
            process.wait(draw.uniform(0, whole))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        fresh = process.returncode == 0
        if (folder / "out.onnx").exists():
            assert (folder / "out.onnx").read_bytes() == wanted, "whole or not at all"
        if (folder / "optc.lock").exists():
            assert (folder / "optc.lock").read_bytes() == lock
    assert killed > MOMENTS // 4
    process = start(folder, cache)
    assert process.wait() == 0, process.stderr and process.stderr.read()
    assert (folder / "out.onnx").read_bytes() == wanted
    load(folder / "out.onnx")
    assert sorted(os.listdir(folder)) == ["optc.lock", "out.onnx"], "what was left behind is gone"
    assert not list(cache.glob(".optc-*"))
