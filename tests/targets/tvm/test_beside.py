"""Kernels are compiled by two processes: the same bytes as by one, and done here where a copy fails or must not be."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

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


def test_a_copy_does_one_of_two(tmp_path: Path) -> None:
    beside.both(lambda: write(tmp_path, "a"), lambda: write(tmp_path, "b"))
    assert written_by(tmp_path, "a") == os.getpid()
    assert written_by(tmp_path, "b") != os.getpid()


def test_a_thread_that_may_hold_a_lock_forbids_it(tmp_path: Path) -> None:
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    beside.both(lambda: None, lambda: write(tmp_path, "b"))
    end.set()
    other.join()
    assert written_by(tmp_path, "b") == os.getpid()


@pytest.mark.parametrize("fault", ["raises", "dies", "hangs"])
def test_what_a_copy_does_not_finish_is_done_here(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_PATIENCE", 0.1)
    here = os.getpid()

    def work() -> None:
        if os.getpid() != here:
            if fault == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "hangs":
                threading.Event().wait()
            raise ValueError
        write(tmp_path, "b")

    beside.both(lambda: None, work)
    assert written_by(tmp_path, "b") == here


def test_where_there_can_be_no_copy_both_are_done_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", fork)
    beside.both(lambda: write(tmp_path, "a"), lambda: write(tmp_path, "b"))
    assert written_by(tmp_path, "a") == written_by(tmp_path, "b") == os.getpid()


def test_a_fault_here_ends_the_copy(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        beside.both(fail, lambda: threading.Event().wait() and None)


def test_kernels_are_the_same_bytes_whoever_compiles_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    import numpy as np

    from optc.ir.graph import Graph
    from optc.ir.types import DType, TensorType
    from optc.targets.tvm.artifact.build import lowered
    from optc.targets.tvm.cpu.machines import host
    from optc.targets.tvm.schedule.pipeline import write_objects

    graph = Graph("net", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, (1, 12)))
    for width in (12, 10, 8, 6):
        weights = graph.constant(np.ones((*(value.static_shape or ())[1:], width), np.float32))
        value = graph.add("MatMul", [value, weights], types=[TensorType(DType.FLOAT, (1, width))]).output
    graph.add_output(graph.add("Softmax", [value]).output, "y")
    machine = host("x86-64-v3")
    mod, _ = lowered(graph, machine, {})
    objects = []
    for name, cores in (("one", 1), ("two", 2)):
        monkeypatch.setattr(beside.cpu, "cores", lambda cores=cores: cores)
        (tmp_path / name).mkdir()
        names = write_objects(mod, machine, str(tmp_path / name))
        assert names == ("kernels0.o", "kernels1.o")
        objects.append([(tmp_path / name / one).read_bytes() for one in names])
    assert objects[0] == objects[1]
