"""Commands that read samples or sizes take the same options, and say what they took by default."""

from __future__ import annotations

import inspect as python
import json
from pathlib import Path

import numpy as np
import pytest

from optc.cli.app import run
from optc.cli.bench import bench
from optc.cli.check import check
from optc.cli.compile import compile_model
from optc.cli.diff import diff
from optc.cli.flags import READING
from optc.cli.inspect import inspect
from optc.cli.profile import profile
from optc.cli.run import run_artifact
from optc.compiler.option import declared
from optc.compiler.options import Options
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.types import DType, TensorType

FLAGS = {declared(Options)[name].flag for name in READING}


@pytest.mark.parametrize("command", [bench, check, compile_model, diff, profile, run_artifact])
def test_a_command_that_reads_samples_takes_all_that_says_how(command: object) -> None:
    assert set(python.signature(command).parameters) >= FLAGS  # type: ignore[arg-type]
    assert {"shape", "dim"} <= set(python.signature(inspect).parameters)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(4):
        image.fromarray(random.integers(0, 255, (20, 24, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A convolution whose input leaves its size open."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, "H", "W")))
    weight = graph.constant(np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32))
    graph.add_output(graph.add("Conv", [x, weight]).output, "y", TensorType(DType.FLOAT, ("N", 4, "h", "w")))
    save(graph, tmp_path / "m.onnx")
    return str(tmp_path / "m.onnx")


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert run([*words, "--json"]) == 0, capsys.readouterr().err
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def commands(model: str) -> dict[str, list[str]]:
    return {
        "bench": ["bench", model, "--seconds", "0.01", "--threads", "1"],
        "check": ["check", model, "--against", model, "--threads", "1"],
        "diff": ["diff", model, model, "--threads", "1"],
        "run": ["run", model, "--against", model, "--threads", "1"],
    }


@pytest.mark.parametrize("name", ["bench", "check", "diff", "run"])
def test_pictures_are_read_alike_and_what_was_taken_is_said(
    name: str, model: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*commands(model)[name], "--data", str(pictures), "--resize", "16x16"]
    assert any("pixel / 255" in note for note in said(words, capsys)["notes"])  # type: ignore[attr-defined]
    exact = said([*words, "--mean", "127.5", "--std", "58"], capsys)
    assert not any("pixel / 255" in note for note in exact["notes"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["bench", "check", "diff", "run"])
def test_made_up_inputs_are_said_and_have_the_sizes_asked_for(
    name: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = commands(model)[name]
    for sizes in (["--shape", "x=1x3x9x11"], ["--dim", "H=9", "--dim", "W=11"]):
        shown = said([*words, *sizes], capsys)
        assert any("inputs were made up" in note for note in shown["notes"])  # type: ignore[attr-defined]
        if name == "run":
            assert shown["outputs"] == ["float32[1, 4, 7, 9]"]
    assert run([*words, "--dim", "Q=3"]) == 2
    assert "no input of the model has a size called 'Q'" in capsys.readouterr().err


def test_an_array_of_an_archive_that_is_no_input_is_said(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.zeros((2, 3, 8, 8), np.float32)
    np.savez(tmp_path / "s.npz", x=rows, labels=np.zeros(2))
    words = ["diff", model, model, "--data", str(tmp_path / "s.npz")]
    assert any("left out: labels" in note for note in said(words, capsys)["notes"])  # type: ignore[attr-defined]


def test_sizes_by_name_hold_in_a_build(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [model, "--passes", "clean", "--no-check", "--dim", "H=9", "--dim", "W=11", "-o", str(tmp_path / "o.onnx")]
    said(words, capsys)
    shown = said(["inspect", str(tmp_path / "o.onnx")], capsys)
    assert "9" in json.dumps(shown["inputs"])
    (tmp_path / "optc.toml").write_text(f'[[model]]\npath = "{model}"\npasses = "clean"\ndim = ["H=9", "W=11"]\n')
    from optc.project.config import load

    assert load(str(tmp_path / "optc.toml")).entries[0].options.dims == {"H": 9, "W": 11}


def test_a_table_without_integer_layers_is_said_of_a_quantized_build(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(tmp_path / "t.json")
    assert run(["profile", "zoo:digits_dscnn", "-o", table, "-q"]) == 0
    shown = said(
        ["zoo:digits_dscnn", "--passes", "quant", "--latency-table", table, "-o", str(tmp_path / "o.onnx")], capsys
    )
    assert any("holds no integer layer" in note for note in shown["notes"])  # type: ignore[attr-defined]
