"""A small library to send to a device, and programs that wait for one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.types import DType, TensorType
from optc.targets import table


def graph() -> Graph:
    net = Graph("net", opsets={"": 17})
    x = net.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    w = net.constant(np.arange(12, dtype=np.float32).reshape(4, 3))
    net.add_output(net.add("Relu", [net.add("MatMul", [x, w]).output]).output, "y")
    return net


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    if shutil.which("g++") is None:
        pytest.skip("g++ is not here: apt-get install g++")
    folder = tmp_path_factory.mktemp("remote")
    table.parse("host")[0].emit(graph(), str(folder / "a.tar"))
    save(graph(), folder / "m.onnx")
    np.savez(folder / "x.npz", x=np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
    return folder / "a.tar"


@contextlib.contextmanager
def started(*command: str) -> Iterator[int]:
    """A program of its own, and the port that it prints."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, text=True
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        with contextlib.suppress(ProcessLookupError):  # sessions clear away what they have
            for _ in range(100):
                os.killpg(process.pid, 0)
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
