"""Running the command line as its users do: in processes of its own, on small models."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
_Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")


def optc(
    *arguments: str, cwd: Path | None = None, file_limit: int | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if file_limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.run(
        [sys.executable, "-m", "optc", *arguments],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def model(nodes: list[onnx.NodeProto], *, opset: int = 17, **graph: object) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32), "w")
    made = helper.make_graph(nodes, "g", [_X], [_Y], initializer=[weight])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def write(path: Path, content: bytes | onnx.ModelProto) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return str(path)


def npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def assert_one_line(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines, "the mistake was not told"
    assert lines[0].startswith("optc: ")
    # A caret under the wrong place takes two more lines; nothing else may follow.
    assert len(lines) == 1 or (len(lines) == 3 and lines[2].strip() == "^"), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
