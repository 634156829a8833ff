"""Running the command line as its users do: in processes of their own, on small models."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
_Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")


_server: subprocess.Popen[str] | None = None


class Done(subprocess.CompletedProcess[str]):
    """What a process said, its `memory`, the highest number of bytes resident, and the `seconds` of the processor."""

    def __init__(self, arguments: Sequence[str], status: int, said: Sequence[str], memory: int, seconds: float) -> None:
        super().__init__(["optc", *arguments], status, *said)
        self.memory = memory
        self.seconds = seconds


def optc(
    *arguments: str,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
    limits: dict[str, int] | None = None,
    modules: Sequence[str] = (),
) -> Done:
    """Run one command line in a process of its own, forked from one that has the imports behind it (see `forking`).

    `limits` are those of `resource` by name; `modules` are imported before, where many runs would import them.
    """
    global _server
    if _server is None or _server.poll() is not None:
        server = Path(__file__).with_name("forking.py")
        _server = subprocess.Popen(
            [sys.executable, str(server)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    assert _server.stdin is not None
    assert _server.stdout is not None
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        request = {
            "arguments": arguments,
            "cwd": str(cwd or Path.cwd()),
            "environment": {**os.environ, **(environment or {})},
            "limits": limits or {},
            "modules": modules,
            "out": out.name,
            "err": err.name,
        }
        print(json.dumps(request), file=_server.stdin, flush=True)
        if not select.select([_server.stdout], [], [], 300)[0]:
            _server.kill()
            raise TimeoutError(f"optc {' '.join(arguments)} does not end")
        status, memory, seconds = json.loads(_server.stdout.readline())
        said = [file.read().decode(errors="surrogateescape") for file in (out, err)]
    return Done(arguments, status, said, memory, seconds)


def alive(group: int) -> bool:
    """Whether a process of the group is there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def ended(group: int) -> None:
    """Waits for all processes of the group to end, and fails where one does not."""
    end = time.monotonic() + 10
    while alive(group):
        assert time.monotonic() < end, "a process is still there"
        time.sleep(0.05)


def model(nodes: list[onnx.NodeProto], *, opset: int = 17, **graph: object) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32), "w")
    proto = helper.make_graph(nodes, "g", [_X], [_Y], initializer=[weight])
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


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
