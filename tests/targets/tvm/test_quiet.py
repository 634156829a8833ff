"""Nothing but lines of ours reaches the terminal, whatever TVM warns of."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from opencl import need_tvm

from optc.compiler import compile
from optc.errors import TargetError
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.targets import table
from optc.targets.tvm.quiet import quiet


def gather(last: str) -> Graph:
    """Gather and ScatterElements, which TVM warns of, and another operator behind them."""
    graph = Graph("places", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 5, 5)))
    places = graph.add_input("places", TensorType(DType.INT64, (1, 5, 5)))
    picked = graph.add("Gather", [x, graph.constant(np.array([0], np.int64))]).output
    y = graph.add("ScatterElements", [x, places, x], {"axis": 1}).output
    operands = [y, graph.constant(np.float32(0.5)), graph.constant(np.True_)] if last == "Dropout" else [y]
    graph.add_output(graph.add(last, operands, name="last").output, "y")
    graph.add_output(picked, "picked")
    return graph


def test_a_build_writes_no_warning_of_tvm(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    need_tvm()
    target = table.one("host:cpu=x86-64-v3")
    compile(gather("Relu"), "clean", target=target, output=tmp_path / "a", threads=1, check=False)
    with pytest.raises(TargetError, match="Dropout node 'last'"):
        compile(gather("Dropout"), "clean", target=target, output=tmp_path / "b", threads=1, check=False)
    assert "Warning" not in capfd.readouterr().err


def test_other_lines_are_kept(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(2, b"[12:00:00] /project/src/a.cc:1: Warning: odd\nours\n[12:00:01] /project/b.h:22: Warning: more\n")
    assert capfd.readouterr().err == "ours\n"
