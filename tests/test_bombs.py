"""What a model of a few bytes asks for is refused or left as it is, in bounded memory and time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bombs import BOMBS, slopes
from measured import measured

SECONDS = 9.0
"""Beside the imports, which take less than one more."""
COMMANDS = {
    "inspect": ["inspect", "m.onnx", "-q"],
    "clean": ["m.onnx", "--passes", "clean", "--no-check", "-q", "-o", "out.onnx"],
}

pytestmark = pytest.mark.slow


RUN = ["m.onnx", "--passes", "clean", "--samples", "2", "-q", "-o", "out.onnx"]


@pytest.mark.parametrize("name", ["filled", "expanded", "weight", "count", "pieces", "sparse", "laughs-40", "sums"])
def test_a_bomb_is_not_set_off_by_the_check(name: str, tmp_path: Path) -> None:
    data = BOMBS[name]().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    taken = measured(RUN, tmp_path)
    assert taken.status in (0, 2), taken.said
    assert "Traceback" not in taken.said
    assert taken.memory <= 2 * len(data) + (1 << 30)
    assert taken.seconds <= SECONDS


@pytest.mark.parametrize("name", ["filled_somewhat", "pieces"])
def test_a_bomb_is_not_set_off_by_what_compares_models(name: str, tmp_path: Path) -> None:
    data = BOMBS[name]().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    taken = measured(["diff", "m.onnx", "m.onnx"], tmp_path)
    assert taken.status == 0, taken.said
    assert "not run side by side" in taken.said
    assert taken.memory <= 2 * len(data) + (1 << 30)
    assert taken.seconds <= SECONDS


RUNS = {
    "made up": ["m.onnx", "--passes", "prune,svd,quant", "--samples", "4", "-q", "-o", "out.onnx"],
    "data": ["m.onnx", "--passes", "prune,svd,quant", "--data", "x.npz", "-q", "-o", "out.onnx"],
}
GRAVE = ("doubling", "many", "products", "strings", "tile")
"""Those that went off in passes and compilers of other kinds than most."""


@pytest.mark.parametrize(
    ("name", "run"),
    [*((name, "data") for name in sorted(BOMBS)), *((name, "made up") for name in GRAVE)],
)
def test_a_bomb_is_not_set_off_by_passes_that_run_it(name: str, run: str, tmp_path: Path) -> None:
    data = BOMBS[name]().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32))
    taken = measured(RUNS[run], tmp_path)
    assert taken.status in (0, 2), taken.said
    assert "Traceback" not in taken.said
    assert taken.memory <= 2 * len(data) + (1 << 30)
    assert taken.seconds <= SECONDS


def test_nodes_that_all_differ_are_read_and_run_in_little_time(tmp_path: Path) -> None:
    data = slopes(14_000).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32))
    taken = measured(RUNS["data"], tmp_path)
    assert taken.status == 0, taken.said
    assert taken.memory <= 2 * len(data) + (1 << 30)
    assert taken.seconds <= SECONDS


@pytest.mark.parametrize(
    ("name", "target"),
    [*((name, "host") for name in sorted(BOMBS)), *((name, "opencl") for name in GRAVE)],
)
def test_a_bomb_is_not_compiled(name: str, target: str, tmp_path: Path) -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    data = BOMBS[name]().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    words = ["m.onnx", "--passes", "clean", "--target", target, "--no-check", "-q", "-o", "out.tar"]
    taken = measured(words, tmp_path, modules=["tvm", "tvm.relax.frontend.onnx", "tvm.s_tir.dlight"])
    assert taken.status in (0, 2), taken.said
    assert "Traceback" not in taken.said
    assert "Warning" not in taken.said
    assert taken.memory <= 2 * len(data) + (1 << 30)
    assert taken.seconds <= SECONDS


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_little(name: str, command: str, tmp_path: Path) -> None:
    data = BOMBS[name]().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    taken = measured(COMMANDS[command], tmp_path)
    assert taken.status in (0, 2), taken.said
    assert "Traceback" not in taken.said
    assert "out of memory" not in taken.said
    assert taken.memory <= 2 * len(data) + (1 << 30)
    assert taken.seconds <= SECONDS
    if command == "clean" and taken.status == 0:
        assert (tmp_path / "out.onnx").stat().st_size <= 2 * len(data) + 4096
