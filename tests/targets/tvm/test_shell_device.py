"""A device that a shell reaches: stand-ins for `adb` and `ssh` that run the ARM runner under an emulator."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from optc.cli.app import run
from optc.errors import SpecError, TargetError
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.types import DType, TensorType
from optc.runtime.latency_table import from_json
from optc.targets import table
from optc.targets.tuning import Device
from optc.targets.tvm.cpu import toolchain
from optc.targets.tvm.remote.pushed import Pushed, Runs
from optc.targets.tvm.remote.shell import Shell

STAND_IN = """#!{python}
# A device in a folder: what a shell is told runs here, its programs under the emulator.
import os, shutil, subprocess, sys
words, root = sys.argv[1:], {root!r}
with open({log!r}, "a") as log:
    log.write(repr(words) + "\\n")
def there(path):
    return path.replace("/data/local/tmp", root).replace("/tmp/optc-", root + "/optc-")
def shell(script):
    script = there(script).replace("./runner", {emulator!r} + " ./runner")
    for name, text in {facts!r}.items():
        script = script.replace(name, "printf %s " + repr(text))
    return subprocess.run(["sh", "-c", script]).returncode
if {kind!r} == "adb":
    if words[:2] != ["-s", "PHONE1"]:
        sys.exit("adb: device '" + (words[1] if len(words) > 1 else "") + "' not found")
    command, rest = words[2], words[3:]
    if command == "push":
        shutil.copyfile(rest[0], there(rest[1]))
    elif command == "pull":
        shutil.copyfile(there(rest[0]), rest[1])
    else:
        shell(rest[0])  # old bridges lose the status
else:
    assert words[:3] == ["-o", "BatchMode=yes", "board"], words
    sys.exit(shell(words[3]))
"""


def network() -> Graph:
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 4, 6, 6)))
    weight = graph.constant(np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32), "w")
    conv = graph.add("Conv", [x, weight], name="conv")
    graph.add_output(graph.add("Relu", [conv.output]).output, "y", TensorType(DType.FLOAT, (1, 8, 4, 4)))
    return graph


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for ARM, its model and samples."""
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    for program, package in (("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"), ("qemu-aarch64-static", "qemu-user")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here: apt-get install {package}")
    folder = tmp_path_factory.mktemp("shell")
    table.parse("arm64")[0].emit(network(), str(folder / "m.tar"))
    save(network(), folder / "m.onnx")
    np.savez(folder / "x.npz", x=np.random.default_rng(1).standard_normal((3, 4, 6, 6)).astype(np.float32))
    return folder


@pytest.fixture
def device(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is the disk of the stand-in devices `PHONE1` (adb) and `board` (ssh)."""
    root, programs = tmp_path / "disk", tmp_path / "bin"
    root.mkdir()
    programs.mkdir()
    emulator = toolchain.emulator(table.parse("arm64")[0].machine())  # type: ignore[attr-defined]
    assert emulator
    facts = {"uname -m": "aarch64", "getprop ro.product.model": "Stand-in 1"}
    for kind in ("adb", "ssh"):
        text = STAND_IN.format(
            python=sys.executable,
            root=str(root),
            log=str(tmp_path / "log"),
            emulator=" ".join(emulator),
            kind=kind,
            facts=facts,
        )
        (programs / kind).write_text(text)
        (programs / kind).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return root


@pytest.mark.parametrize("way", [["--adb", "PHONE1"], ["--ssh", "board"]], ids=["adb", "ssh"])
def test_a_library_is_timed_there_and_answers_as_its_model(
    way: list[str], kit: Path, device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", str(kit / "m.onnx"), str(kit / "m.tar"), *way, "--runs", "8", "--data", str(kit / "x.npz")]
    assert run([*words, "--json"]) == 0, capsys.readouterr().err
    document = json.loads(capsys.readouterr().out)
    assert document["facts"]["machine"] == "aarch64"
    assert document["facts"]["features"], "the features of the CPU are recorded"
    (one,) = document["timings"]
    assert one["samples"] == 3
    assert one["share"] > 0.999
    assert 0 < one["p50_ms"] <= one["p90_ms"]
    assert one["drift"] > 0
    assert one["runs"] == 8
    assert os.listdir(device) == [], "everything is removed again"
    assert run(words) == 0
    assert "p90" in capsys.readouterr().out


def test_run_on_a_phone(kit: Path, device: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", str(kit / "m.tar"), "--adb", "PHONE1", "--data", str(kit / "x.npz")]
    words += ["--against", str(kit / "m.onnx"), "--save", str(tmp_path / "y.npz"), "--json"]
    assert run(words) == 0, capsys.readouterr().err
    document = json.loads(capsys.readouterr().out)
    assert document["device"] == "PHONE1 by adb"
    assert document["agreement"] > 0.999
    assert np.load(tmp_path / "y.npz")["y"].shape == (3, 8, 4, 4)


def test_a_table_measured_on_the_phone_is_taken_by_a_build(
    kit: Path, device: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "phone.json"
    words = ["profile", str(kit / "m.onnx"), "--target", "arm64", "--adb", "PHONE1", "-o", str(place)]
    assert run([*words, "-q"]) == 0, capsys.readouterr().err
    measured = from_json(place.read_text(), str(place))
    assert measured.device == "PHONE1 by adb"
    assert len(measured.rows) == 1
    out = str(tmp_path / "o.tar")
    words = [str(kit / "m.onnx"), "--target", "arm64", "--passes", "quant", "--latency-table", str(place), "-o", out]
    assert run([*words, "--json"]) == 0, capsys.readouterr().err
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("measured on PHONE1 by adb" in note for note in notes)


def test_what_goes_wrong_on_the_way_is_one_line(kit: Path, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match="OTHER by adb: adb: device 'OTHER' not found"):
        Shell(Device("OTHER", by="adb"))
    with pytest.raises(SpecError, match="--ssh takes a host, not '-oProxyCommand=x'"):
        Shell(Device("-oProxyCommand=x", by="ssh"))
    shell = Shell(Device("PHONE1", by="adb"))
    with pytest.raises(TargetError, match=r"PHONE1 by adb: .*nosuch"):
        shell.run("nosuch 2>&1")
    shell.close()
    android = table.parse("arm64:os=android")[0].machine()  # type: ignore[attr-defined]
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    with pytest.raises(TargetError, match="ANDROID_NDK_HOME"):
        Pushed(str(kit / "m.tar"), Device("PHONE1", by="adb"), android)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TargetError, match="install the package adb"):
        Shell(Device("PHONE1", by="adb"))
    assert os.listdir(device) == []


def test_throttling_is_told_by_the_runs_in_their_order() -> None:
    steady = Runs((1.0,) * 8, (40.0, 41.0))
    assert steady.drift == 1
    assert Runs((1.0, 1.0, 1.0, 1.0, 1.5, 1.6, 2.0, 2.0), (40.0, 70.0)).drift == 2
    assert steady.p50 == steady.p90 == 1
