"""The program that ships with a library: it says how it is used, names files by outputs and replaces none unasked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from optc.cli.app import run
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.types import DType, TensorType
from optc.targets import table
from optc.targets.tvm.artifact import folder as artifact
from optc.targets.tvm.artifact import manifest

NAMES = ("y", "block/0:out", "Y", "..", "")


def graph() -> Graph:
    net = Graph("net", opsets={"": 17})
    x = net.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    for index, name in enumerate(NAMES):
        net.add_output(net.add("Add", [x, net.constant(np.full(4, index, np.float32))]).output, name or "z")
    return net


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    if shutil.which("g++") is None:
        pytest.skip("g++ is not here: apt-get install g++")
    place = tmp_path_factory.mktemp("runner")
    table.parse("host")[0].emit(graph(), str(place / "a.tar"))
    artifact.unpack(str(place / "a.tar"), str(place))
    save(graph(), place / "m.onnx")
    np.savez(place / "x.npz", x=np.arange(12, dtype=np.float32).reshape(3, 4))
    built = manifest.read(str(place))["commands"]["build"]
    subprocess.run(built.split(), cwd=place, check=True)
    np.save(place / "x.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    return place


def runner(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["./runner", *words], cwd=folder, capture_output=True, text=True, check=False)


def test_help_is_no_error(folder: Path) -> None:
    done = runner(folder, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: runner ")
    assert "  x: <f4 [?, 4]\n" in done.stdout


def test_outputs_are_named_and_replaced_only_by_force(folder: Path) -> None:
    done = runner(folder, "--out", "new", "x.npy")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\.\d{4} ms\n", done.stdout)
    files = manifest.file_names(manifest.ports(manifest.read(str(folder))["outputs"]))
    assert files == ["y.npy", "block_0_out.npy", "Y-2.npy", "_...npy", "z.npy"]
    assert sorted(path.name for path in (folder / "new").iterdir()) == sorted(files)
    x = np.load(folder / "x.npy")
    for index, name in enumerate(files):
        assert np.array_equal(np.load(folder / "new" / name), x + index)
    (folder / "new" / "y.npy").write_bytes(b"kept")
    done = runner(folder, "--out", "new", "x.npy")
    assert done.returncode == 2
    assert done.stderr == "runner: new/y.npy is there already; --force replaces it, --out FOLDER writes elsewhere\n"
    assert (folder / "new" / "y.npy").read_bytes() == b"kept"
    assert runner(folder, "--out", "new", "--force", "x.npy").returncode == 0
    assert np.array_equal(np.load(folder / "new" / "y.npy"), x)


def test_repeated_runs_are_summed_up(folder: Path) -> None:
    done = runner(folder, "--repeat", "5", "--out", "again", "x.npy")
    assert re.fullmatch(r"\d+\.\d{4} ms \(quartiles \d+\.\d{4} to \d+\.\d{4}, 5 runs\)\n", done.stdout)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--repeat", "many", "x.npy"], "--repeat takes a number from 1 on, not many"),
        (["--repeat", "0", "x.npy"], "--repeat takes a number from 1 on, not 0"),
        (["--speed", "x.npy"], "there is no --speed; see --help"),
        (["--out"], "--out needs a value"),
        ([], "the model takes 1 inputs, not 0; see --help"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, words: list[str], said: str) -> None:
    done = runner(folder, *words)
    assert (done.returncode, done.stderr) == (2, f"runner: {said}\n")


@pytest.mark.parametrize("name", ["a.tar", "m.onnx"])
def test_answers_are_saved_by_name(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = folder / f"{name}.npz"
    words = ["run", str(folder / name), "--data", str(folder / "x.npz"), "--save", str(place), "--json"]
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out)["saved"] == str(place)
    x = np.load(folder / "x.npy")
    with np.load(place) as saved:
        assert set(saved.files) == {"y", "block/0:out", "Y", "..", "z"}
        for index, one in enumerate(("y", "block/0:out", "Y", "..", "z")):
            assert np.array_equal(saved[one], x + index)
    assert run([*words[:-2], str(folder / "x.npz")]) == 2


def test_a_library_of_one_sample_runs_beside_a_model_of_many(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = graph()
    one.inputs[0].type = TensorType(DType.FLOAT, (1, 4))
    table.parse("host")[0].emit(one, str(folder / "one.tar"))
    words = ["run", str(folder / "one.tar"), "--data", str(folder / "x.npz"), "--against", str(folder / "m.onnx")]
    assert run([*words, "--save", str(folder / "one.npz"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["samples"], figures["agreement"]) == (3, pytest.approx(1))
    assert np.array_equal(np.load(folder / "one.npz")["y"], np.load(folder / "x.npy"))
    assert run([*words[:4], "--save", str(folder / "alone.npz")]) == 0
    assert np.array_equal(np.load(folder / "alone.npz")["y"], np.load(folder / "x.npy"))


def test_messages_name_the_artifact_and_no_folder_of_ours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cut.tar").write_bytes((folder / "a.tar").read_bytes()[:1536])
    with np.load(folder / "x.npz") as data:
        assert data.files
    assert run(["run", str(folder / "cut.tar"), "--data", str(folder / "x.npz")]) == 2
    assert re.fullmatch(rf"optc: {folder}/cut\.tar[^\n]*\n", said := capsys.readouterr().err)
    assert "/optc-" not in said.replace(str(folder), "")
