"""The runtime is compiled once for a machine, and no library is made of anything but what its sources say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from optc.targets.tvm.cpu import objects, toolchain
from optc.targets.tvm.cpu.machine import Machine

MACHINE = Machine("host", "x86_64-linux-gnu")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """What is run from here on, by a process that has compiled nothing yet."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not here: apt-get install g++")
    ran: list[list[str]] = []
    run = toolchain.run

    def noted(command: list[str], *, folder: str, what: str) -> None:
        ran.append(list(command))
        run(command, folder=folder, what=what)

    monkeypatch.setattr(toolchain, "run", noted)
    objects._object.cache_clear()
    yield ran
    objects._object.cache_clear()


def placed(folder: Path, machine: Machine = MACHINE) -> bytes:
    folder.mkdir()
    assert objects.place(machine, ("rpc.cc",), str(folder)) == ("rpc.o",)
    return (folder / "rpc.o").read_bytes()


def test_a_process_compiles_it_once_without_a_cache(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTC_CACHE", "off")
    assert placed(tmp_path / "a") == placed(tmp_path / "b")
    assert len(commands) == 1


def test_processes_that_share_a_cache_compile_it_once(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTC_CACHE", str(tmp_path / "cache"))
    first = placed(tmp_path / "a")
    objects._object.cache_clear()  # as another process begins
    assert placed(tmp_path / "b") == first
    assert len(commands) == 1
    (record,) = (path for path in (tmp_path / "cache" / "records").rglob("*") if path.is_file())
    record.write_bytes(record.read_bytes()[:-1])
    objects._object.cache_clear()
    assert placed(tmp_path / "c") == first
    assert len(commands) == 2


@pytest.mark.parametrize("change", ["source", "header", "flags"])
def test_what_goes_into_it_makes_another_one(
    change: str, commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTC_CACHE", str(tmp_path / "cache"))
    sources = tmp_path / "sources"
    shutil.copytree(toolchain.SOURCES, sources)
    monkeypatch.setattr(toolchain, "SOURCES", str(sources))
    first = placed(tmp_path / "a")
    objects._object.cache_clear()
    machine = MACHINE
    if change == "flags":
        machine = Machine("host", "x86_64-linux-gnu", flags=("-O0",))
    else:
        path = sources / ("rpc.cc" if change == "source" else "runtime.h")
        path.write_text(path.read_text(encoding="utf-8") + '\nextern "C" int optc_more() { return 3; }\n')
    assert placed(tmp_path / "b", machine) != first
    assert len(commands) == 2
