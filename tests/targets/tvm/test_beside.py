"""Kernels are compiled by several processes: the same bytes as by one, done here where a copy fails or must not be."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optc.targets.tvm.cpu import beside


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has; and whatever threads run the tests."""
    monkeypatch.setattr(beside.cpu, "cores", lambda: 2)
    others = [one for one in threading.enumerate() if one is not threading.main_thread()]
    monkeypatch.setattr(beside.threading, "enumerate", lambda: [t for t in _enumerate() if t not in others])


_enumerate = threading.enumerate


def written_by(folder: Path, name: str) -> int:
    return int((folder / name).read_text())


def write(folder: Path, name: str) -> None:
    (folder / name).write_text(str(os.getpid()))


def test_a_copy_does_its_share(tmp_path: Path) -> None:
    """One process waits until the other has begun, so both have a share."""
    out, into = os.pipe()

    def work(number: int) -> None:
        write(tmp_path, f"{number}")
        if number == 0:
            os.read(out, 1)
        elif number == 1:
            os.write(into, b".")

    beside.each(work, 5)
    assert written_by(tmp_path, "0") != written_by(tmp_path, "1")
    assert os.getpid() in {written_by(tmp_path, "0"), written_by(tmp_path, "1")}
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2", "3", "4"]


def test_as_many_copies_as_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []
    monkeypatch.setattr(beside.cpu, "cores", lambda: 4)
    monkeypatch.setattr(beside, "copy", lambda work: copied.append(work) or _gone())
    beside.each(lambda number: None, 3)
    assert len(copied) == 2
    beside.each(lambda number: None, 9)
    assert len(copied) == 5


def _gone() -> int:
    """A process that has ended."""
    process = os.fork()
    if not process:
        os._exit(1)
    return process


def test_a_thread_that_may_hold_a_lock_forbids_it(tmp_path: Path) -> None:
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    beside.each(lambda number: write(tmp_path, f"{number}"), 2)
    end.set()
    other.join()
    assert {written_by(tmp_path, "0"), written_by(tmp_path, "1")} == {os.getpid()}


@pytest.mark.parametrize("fault", ["raises", "dies", "hangs"])
def test_what_a_copy_does_not_finish_is_done_here(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_PATIENCE", 0.1)
    here = os.getpid()
    out, into = os.pipe()

    def work(number: int) -> None:
        if os.getpid() != here:
            os.write(into, b".")
            if fault == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "hangs":
                threading.Event().wait()
            raise ValueError
        if not any(tmp_path.iterdir()):
            os.read(out, 1)  # until the copy has begun
        write(tmp_path, f"{number}")

    beside.each(work, 3)
    assert {written_by(tmp_path, name) for name in "012"} == {here}


def test_where_there_can_be_no_copy_all_is_done_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", fork)
    beside.each(lambda number: write(tmp_path, f"{number}"), 2)
    assert {written_by(tmp_path, "0"), written_by(tmp_path, "1")} == {os.getpid()}


def test_a_fault_here_ends_the_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    here, copies = os.getpid(), list[int]()
    copy = beside.copy
    monkeypatch.setattr(beside, "copy", lambda work: copies.append(copy(work)) or copies[-1])

    def work(number: int) -> None:
        if os.getpid() != here:
            threading.Event().wait()
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        beside.each(work, 2)
    (process,) = copies
    with pytest.raises(ChildProcessError):
        os.waitpid(process, os.WNOHANG)


@pytest.fixture
def network() -> Any:
    """Four products and a softmax, lowered for a machine with two hundred and fifty-six bits."""
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    from optc.ir.graph import Graph
    from optc.ir.types import DType, TensorType
    from optc.targets.tvm.artifact.build import lowered
    from optc.targets.tvm.cpu.machines import host

    graph = Graph("net", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, (1, 12)))
    for width in (12, 10, 8, 6):
        weights = graph.constant(np.ones((*(value.static_shape or ())[1:], width), np.float32))
        value = graph.add("MatMul", [value, weights], types=[TensorType(DType.FLOAT, (1, width))]).output
    graph.add_output(graph.add("Softmax", [value]).output, "y")
    return lowered(graph, host("x86-64-v3"), {})[0], host("x86-64-v3")


def test_kernels_are_the_same_bytes_whoever_compiles_them(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optc.targets.tvm.schedule.pipeline import write_objects

    objects = []
    for name, cores in (("one", 1), ("two", 2)):
        monkeypatch.setattr(beside.cpu, "cores", lambda cores=cores: cores)
        (tmp_path / name).mkdir()
        names = write_objects(*network, str(tmp_path / name)).files
        assert names == ("kernels0.o", "kernels1.o", "kernels2.o", "kernels3.o")
        objects.append([(tmp_path / name / one).read_bytes() for one in names])
    assert objects[0] == objects[1]


def test_kernels_that_no_rule_cuts_are_named_whoever_compiles_them(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optc.targets.tvm.schedule.blocks import MachineRule
    from optc.targets.tvm.schedule.pipeline import write_objects

    assert write_objects(*network, str(tmp_path)).unscheduled == ()
    monkeypatch.setattr(MachineRule, "apply", lambda *_: None)
    assert len(write_objects(*network, str(tmp_path)).unscheduled) == 5
