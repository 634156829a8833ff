"""Batches side by side: order, errors, memory and chance."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.runtime import cpu
from optc.runtime.parallel import BESIDE, beside, imap, single_blas, threads_each, threads_for


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_results_come_in_order_whatever_takes_longest(threads: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (7 - item % 7))
        return item * item

    assert list(imap(work, range(20), threads)) == [i * i for i in range(20)]
    assert list(imap(work, [], threads)) == []


def test_the_first_is_done_before_any_other_begins() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        assert item == 0 or 0 in done
        time.sleep(0.01)
        done.append(item)
        return item

    assert list(imap(work, range(8), 4)) == list(range(8))


def test_no_more_items_are_drawn_than_are_worked_on() -> None:
    drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for i in range(12):
            drawn += 1
            yield i

    for taken, _ in enumerate(imap(lambda item: item, items(), 2), 1):
        assert drawn <= taken + BESIDE + 1


def test_an_error_is_raised_where_its_result_is_due_and_ends_the_rest() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("the fourth")
        return item

    results = imap(work, range(100), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(results)
    assert len(begun) <= 3 + BESIDE + 2
    assert not [t for t in threading.enumerate() if t.name.startswith("optc-batch")]


def test_batches_share_the_cores() -> None:
    assert (beside(1), threads_each(1)) == (1, 1)
    assert (beside(2), threads_each(2)) == (2, 1)
    assert (beside(8), threads_each(8)) == (2, 4)


def test_what_draws_random_numbers_runs_in_order() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (2, 3)))
    graph.add_output(graph.add("Dropout", [x]).output, "y")
    assert threads_for(graph, 4) == 4
    noise = graph.add("RandomNormalLike", [x]).output
    graph.add_output(graph.add("Add", [x, noise]).output, "z")
    assert threads_for(graph, 4) == 1


def test_products_do_not_depend_on_how_many_batches_run_at_a_time() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(64, 32)).astype(np.float32) for _ in range(9)]
    alone = list(imap(lambda x: x.T @ x, batches, 1))
    beside = list(imap(lambda x: x.T @ x, batches, 2))
    for one, two in zip(alone, beside, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5)


def test_blas_has_one_thread_for_as_long_as_it_is_asked_to() -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with single_blas():
        assert len(threads()) >= 2, "numpy and scipy bring one each"
        with single_blas():
            pass
        assert set(threads()) == {1}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, float("inf")),
        ({"cpu.max": "max 100000"}, float("inf")),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, float("inf")),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2.0),
    ],
)
def test_the_quota_of_a_control_group_is_read(files: dict[str, str], cores: float, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert cpu._quota(tmp_path) == cores
    assert cpu.cores() >= 1


def test_cores_are_those_of_the_affinity_within_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_allowed", lambda: 16)
    for paid, few, cores in ((float("inf"), 0, 16), (2.5, 3, 3), (0.2, 1, 1), (32.0, 0, 16)):
        monkeypatch.setattr(cpu, "_quota", lambda groups, paid=paid: paid)
        cpu.quota.cache_clear()
        cpu.cores.cache_clear()
        assert (cpu.quota(), cpu.cores()) == (few, cores)
    monkeypatch.undo()
    cpu.quota.cache_clear()
    cpu.cores.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="reads what a process takes of its addresses from Linux")
def test_linear_algebra_is_not_loaded_where_there_is_no_memory_for_its_buffers() -> None:
    code = """
import resource
from pathlib import Path
import numpy
from optc.errors import lacks_memory
from optc.runtime.parallel import single_blas
import threadpoolctl
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (64 << 20),) * 2)
try:
    with single_blas():
        pass
except Exception as error:
    print(type(error).__name__, lacks_memory(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "OSError True\n"
