"""A file appears whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pytest
from layered import layered

from optc.errors import ModelError, OutputError
from optc.ir.onnx.writer import save
from optc.ir.tensor import Tensor
from optc.ir.types import DType


class Failing(Tensor):
    """A weight whose writing fails after a while."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        super().__init__(DType.FLOAT, (1 << 20,))
        self.error = error

    def numpy(self) -> npt.NDArray[np.generic]:
        raise self.error

    def write(self, file: BinaryIO) -> None:
        file.write(bytes(1 << 19))
        raise self.error


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OutputError, "No space left"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (ModelError("the source changed"), ModelError, "the source changed"),
        (MemoryError(), MemoryError, ""),
    ],
    ids=["full", "interrupt", "source", "memory"],
)
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, external: bool, error: BaseException, raised: type[BaseException], words: str
) -> None:
    path = tmp_path / "m.onnx"
    graph = layered()
    save(graph, path, external=external)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    graph.constant(Failing(error), "failing")
    with pytest.raises(raised, match=words or None):
        save(graph, path, external=external)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_tensor_that_writes_too_little_is_found_out(tmp_path: Path) -> None:
    class Short(Failing):
        __slots__ = ()

        def write(self, file: BinaryIO) -> None:
            file.write(b"1234")

    graph = layered()
    graph.constant(Short(ValueError()), "short")
    with pytest.raises(ValueError, match="wrote 4 bytes and had announced 4194304"):
        save(graph, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    graph = layered()
    for place, words in {
        tmp_path / "folder": "is a folder",
        tmp_path / "none" / "m.onnx": "no folder",
        Path("/dev/null"): "not a plain file",
    }.items():
        with pytest.raises(OutputError, match=words) as error:
            save(graph, place)
        assert str(place) in str(error.value)
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(OutputError, match="cannot be written"):
        save(layered(), tmp_path / "m.onnx")


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "input.onnx").write_bytes(b"input")
    (tmp_path / "m.onnx").symlink_to("input.onnx")
    save(layered(), tmp_path / "m.onnx")
    assert (tmp_path / "input.onnx").read_bytes() == b"input"
    assert not (tmp_path / "m.onnx").is_symlink()
