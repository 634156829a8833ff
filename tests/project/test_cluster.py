"""A Dask cluster of two workers: it builds the same bytes as this machine, whatever becomes of a worker."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from errands import KEPT, doubled, dying
from processes import optc as command
from searched import model, samples
from searched import search as searched_for

from optc.errors import SpecError
from optc.passes.cached import thread_variables
from optc.project import cluster
from optc.project.cluster import Cluster, Died, Parcel
from optc.searcher import Search
from optc.storage.fingerprint import file_digest
from optc.storage.store import Store

pytestmark = pytest.mark.slow
search = partial(searched_for, target="onnx:cpu=arm")  # for another CPU no pass asks the clock, which is never the same
dask = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    with started(2) as local:
        yield local


def started(count: int) -> Any:
    thread_variables()  # Dask sets them for its workers, in this process too
    settings = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    return dask.LocalCluster(
        n_workers=count, threads_per_worker=1, processes=True, dashboard_address=":0", env=settings
    )


def test_an_errand_comes_back_with_what_it_added_to_the_cache(workers: Any, tmp_path: Path) -> None:
    """Workers of Dask have one thread for libraries; an errand has as many as they have here."""
    (tmp_path / "text").write_text("sent")
    store = Store(str(tmp_path / "cache"))
    threads = thread_variables()["OMP_NUM_THREADS"] or "unset"
    with Cluster(workers.scheduler_address) as there:
        assert there.workers == 2
        parcel = Parcel.of(str(tmp_path / "text"))
        errands = [there.submit(doubled, [parcel], number) for number in range(3)]
        answers = [errand.result(store) for errand in errands]
    assert answers == [(0, "sent", threads), (2, "sent", threads), (4, "sent", threads)]
    assert store.get(KEPT) == b"kept there"


def test_a_process_that_dies_is_told(workers: Any) -> None:
    with Cluster(workers.scheduler_address) as there, pytest.raises(Died, match="its process ended with 7"):
        there.submit(dying, []).result(None)


def test_a_damaged_entry_is_not_taken(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.take("records", "1" * 40, b"digest\nother")
    store.take("objects", "2" * 40, b"other")
    store.take("elsewhere", "3" * 40, b"other")
    store.take("records", "../../escaped", b"other")
    assert not list(store.entries())


def plain(done: Search) -> list[tuple[str, float, bool]]:
    return [(one.passes, round(one.loss, 9), one.met) for one in done.report.candidates]


@pytest.fixture(scope="module")
def searched(workers: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Search, str]:
    folder = tmp_path_factory.mktemp("searched")
    done = search(folder, candidates=8, scheduler=workers.scheduler_address)
    return done, file_digest(folder / "out.onnx")


def test_workers_judge_as_this_machine_does(searched: tuple[Search, str], tmp_path: Path) -> None:
    done, _ = searched
    assert done.met
    assert len(done.report.candidates) >= 6
    alone = {passes: figures for passes, *figures in plain(search(tmp_path, candidates=8))}
    both = {passes: figures for passes, *figures in plain(done) if passes in alone}
    assert len(both) > 3
    assert both == {passes: alone[passes] for passes in both}


def test_a_plan_of_a_cluster_is_built_here_to_the_same_bytes(workers: Any, tmp_path: Path) -> None:
    search(tmp_path, candidates=6, scheduler=workers.scheduler_address)
    digest = file_digest(tmp_path / "out.onnx")
    (tmp_path / "out.onnx").unlink()
    built = command("build", "--config", str(tmp_path / "plan.toml"), "--no-cache")
    assert built.returncode == 0, built.stderr
    assert file_digest(tmp_path / "out.onnx") == digest


def built(line: str) -> bool:
    """Whether a line tells of a candidate that a pass or a strategy made."""
    return "single: " in line or "knapsack: " in line


def test_a_worker_that_is_killed_changes_nothing(searched: tuple[Search, str], tmp_path: Path) -> None:
    killed: list[int] = []
    with started(2) as local:
        client = dask.Client(local.scheduler_address, set_as_default=False)

        def tell(line: str) -> None:
            if built(line) and not killed:
                pids = sorted(client.run(os.getpid).values())
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])

        done = search(tmp_path, candidates=8, scheduler=local.scheduler_address, tell=tell)
        client.close()
    assert killed
    assert plain(done) == plain(searched[0])
    assert file_digest(tmp_path / "out.onnx") == searched[1]


def test_a_cluster_that_is_gone_leaves_the_search_to_this_machine(
    tmp_path: Path, searched: tuple[Search, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ABSENCE", 1.0)
    local = started(2)

    def tell(line: str) -> None:
        if built(line):
            local.close()

    done = search(tmp_path, candidates=8, scheduler=local.scheduler_address, tell=tell)
    assert plain(done)[:2] == plain(searched[0])[:2]
    assert any("the candidates since were built here" in note for note in done.report.notes)


CONFIG = """
passes = "prune:ratio=0.5,quant"
data = "samples.npz"
guard = false
[[model]]
path = "net.onnx"
[[model]]
name = "again"
path = "net.onnx"
passes = "svd:ratio=0.5"
output = "again.onnx"
"""


def test_a_matrix_is_built_to_the_same_bytes(workers: Any, tmp_path: Path) -> None:
    digests = []
    for name, more in (("here", []), ("there", ["--scheduler", workers.scheduler_address])):
        folder = tmp_path / name
        folder.mkdir()
        model(folder)
        samples(folder)
        (folder / "optc.toml").write_text(CONFIG)
        built = command("build", "--config", str(folder / "optc.toml"), "--no-cache", *more)
        assert built.returncode == 0, built.stderr
        assert built.stdout.count("net.optc.onnx") == 1
        digests.append({path.name: file_digest(path) for path in sorted(folder.glob("*.onnx"))})
        assert (folder / "optc.lock").is_file()
    assert sorted(digests[0]) == ["again.onnx", "net.onnx", "net.optc.onnx"]
    assert digests[0] == digests[1]


def test_what_fails_on_a_worker_is_told_as_here(workers: Any, tmp_path: Path) -> None:
    model(tmp_path)
    (tmp_path / "optc.toml").write_text('passes = "prune:kind=nm:n=4"\n[[model]]\npath = "net.onnx"\n')
    lines = []
    for more in ([], ["--scheduler", workers.scheduler_address]):
        done = command("build", "--config", str(tmp_path / "optc.toml"), "--no-cache", *more)
        assert done.returncode == 2
        lines.append(done.stderr)
    assert lines[0] == lines[1]


def test_a_scheduler_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    with pytest.raises(SpecError, match=r"^--scheduler tcp://127.0.0.1:1: cannot be reached: .+") as error:
        Cluster("tcp://127.0.0.1:1")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "tcp://host", "host:8786", "http://host:8786", ""])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(SpecError, match=rf"^--scheduler takes an address such as tcp://host:8786, not '{address}'$"):
        Cluster(address)


def test_a_scheduler_without_workers() -> None:
    with started(0) as local, pytest.raises(SpecError, match=r"it has no workers; start some with dask worker tcp://"):
        Cluster(local.scheduler_address)


def test_workers_of_other_versions_are_refused(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = cluster.environment().replace("numpy ", "numpy 0.")
    monkeypatch.setattr(cluster, "environment", lambda: words)
    with pytest.raises(SpecError, match=r"worker tcp://.* would build other bytes: it has numpy \d.*, not 0\.\d"):
        Cluster(workers.scheduler_address)
    monkeypatch.undo()
    monkeypatch.setattr(cluster, "own_code", lambda: "other")
    with pytest.raises(SpecError, match="its optc is of other code than this one"):
        Cluster(workers.scheduler_address)


def test_what_is_no_file_is_not_sent(workers: Any, tmp_path: Path) -> None:
    import numpy as np

    data = {"x": np.zeros((40, 8, 6, 6), np.float32)}
    with pytest.raises(SpecError, match="a cluster is sent files: give the model and the samples by their paths"):
        search(tmp_path, data=data, scheduler=workers.scheduler_address)


def test_dask_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> ModuleType:
        if name == "distributed":
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(SpecError, match=r"--scheduler needs Dask: pip install 'optc\[dask\]'"):
        Cluster("tcp://127.0.0.1:8786")


def test_dask_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, optc.searcher.function, optc.project.matrix_there; assert 'distributed' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
