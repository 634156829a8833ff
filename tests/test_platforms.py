"""What other systems lack is not taken for granted: read here as it is read there."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.onnx.reader import load
from optc.ir.onnx.writer import save
from optc.ir.tensor import SourceFile
from optc.ir.types import DType, TensorType
from optc.storage.store import Store
from optc.storage.workspace import Workspace


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    for name in ("pread", "preadv", "geteuid", "O_DIRECTORY", "O_NOFOLLOW"):
        monkeypatch.delattr(os, name, raising=False)


def test_files_are_read_written_and_kept(windows: None, tmp_path: Path) -> None:
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 64)))
    w = graph.constant(np.arange(64 * 64, dtype=np.float32).reshape(64, 64))
    graph.add_output(graph.add("MatMul", [x, w]).output, "y")
    save(graph, tmp_path / "m.onnx")
    save(load(tmp_path / "m.onnx"), tmp_path / "again.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    source = SourceFile(str(tmp_path / "m.onnx"))
    copied = io.BytesIO()
    source.copy(10, 5000, copied)
    assert copied.getvalue() == (tmp_path / "m.onnx").read_bytes()[10:5010]
    store = Store(str(tmp_path / "cache"))
    store.put("key", b"document")
    assert store.get("key") == b"document"
    with Workspace(str(tmp_path)):
        pass
    store.trim()
    assert not store.faults
    assert not list(tmp_path.glob("**/.optc-*"))
