"""A training that was killed goes on from its draft, and comes out as one that nobody disturbed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from taught import context, divergence, student

from optc.ir.onnx.writer import to_bytes
from optc.passes.base import Context
from optc.passes.cached import Kept
from optc.passes.distill import Distill
from optc.passes.distill import training as course
from optc.runtime.samples import Feeds
from optc.runtime.training.trainer import Trainer
from optc.storage.store import Store

RUN = Distill(steps=24, rate=1e-2, batch=8, views="none")


class Memory:
    """A draft in memory."""

    def __init__(self) -> None:
        self.document: bytes | None = None
        self.saved = 0

    def load(self) -> bytes | None:
        return self.document

    def save(self, document: bytes) -> None:
        self.document = document
        self.saved += bool(document)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def ctx() -> Context:
    return context(samples=80, judges=24)


@pytest.fixture(autouse=True)
def at_every_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "KEPT", 0.0)


@pytest.fixture(scope="module")
def wanted(ctx: Context) -> bytes:
    graph = student()
    RUN.run(graph, ctx)
    return to_bytes(graph)


def killed(share: float, ctx: Context, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of which the step of that number, counted over all trials, is the last."""
    taken = iter(range(10**6))
    whole = Trainer.step

    def stopped(self: Trainer, feeds: Feeds) -> float:
        if next(taken) == step:
            raise Killed
        return whole(self, feeds)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        RUN.run(student(share), ctx)


def test_a_killed_training_goes_on(ctx: Context, wanted: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx.draft = draft = Memory()
    with pytest.raises(Killed):
        killed(0.2, ctx, 17, monkeypatch)
    assert draft.saved
    graph = student()
    report = RUN.run(graph, ctx)
    assert any("went on from step" in note for note in report.notes)
    assert to_bytes(graph) == wanted
    assert not draft.document, "nothing is left to go on with"
    ctx.draft = None


def test_a_draft_that_is_none_is_not_used(ctx: Context, wanted: bytes) -> None:
    ctx.draft = draft = Memory()
    draft.document = b"PK\x03\x04"
    graph = student()
    RUN.run(graph, ctx)
    assert to_bytes(graph) == wanted
    ctx.draft = None


def test_the_draft_of_another_student_is_not_used(ctx: Context, wanted: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx.draft = Memory()
    with pytest.raises(Killed):
        killed(0.1, ctx, 10, monkeypatch)
    graph = student()
    RUN.run(graph, ctx)
    assert to_bytes(graph) == wanted
    ctx.draft = None


def test_a_full_disk_costs_the_draft_and_no_more(
    ctx: Context, wanted: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "cache"))
    ctx.draft = Kept(store, "0" * 40)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        graph = student()
        RUN.run(graph, ctx)
    assert to_bytes(graph) == wanted
    assert [fault for fault in store.faults if "No space left" in fault]
    assert len(store.faults) == 1
    ctx.draft = None


PROGRAM = """
import sys
from taught import context, student
from optc.ir.onnx.writer import to_bytes
from optc.passes.cached import Kept
from optc.passes.distill import Distill, training
from optc.storage.store import Store

training.KEPT = 0.0
ctx = context(samples=80, judges=24)
ctx.draft = Kept(Store(sys.argv[1]), "0" * 40)
graph = student()
Distill(steps=24, rate=1e-2, batch=8, views="none").run(graph, ctx)
open(sys.argv[2], "wb").write(to_bytes(graph))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_by_the_system_it_goes_on(wanted: bytes, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out.onnx"
    tests = str(Path(__file__).parents[2])
    place = {**os.environ, "PYTHONPATH": tests}
    words = [sys.executable, "-c", PROGRAM, str(cache), str(out)]
    process = subprocess.Popen(words, env=place)
    records = cache / "records"
    while process.poll() is None and not (records.is_dir() and any(records.rglob("0" * 40))):
        time.sleep(0.002)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.returncode != 0:  # it may have been done
        assert not out.exists()
        assert subprocess.run(words, env=place, check=False).returncode == 0
    assert out.read_bytes() == wanted
    assert not list(cache.glob(".optc-*/entry"))


def test_an_interruption_says_so_and_is_not_kept(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = student()
    before = divergence(graph, ctx)
    taken = iter(range(10**6))
    step = Trainer.step

    def interrupted(self: Trainer, feeds: Feeds) -> float:
        if next(taken) == 18:
            raise KeyboardInterrupt
        return step(self, feeds)

    monkeypatch.setattr(Trainer, "step", interrupted)
    report = RUN.run(graph, ctx)
    assert divergence(graph, ctx) < before
    assert report.interrupted
    assert any("interrupted: the best so far is kept" in note for note in report.notes)
