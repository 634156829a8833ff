"""Islands: float operators between integer kernels, in the runtime's own graph."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from quantized import quantized

from optc.errors import TargetError
from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Outcome
from optc.runtime.islands import islands, optimised


def network(*between: str) -> Graph:
    rng = np.random.default_rng(0)
    graph = Graph("network", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4, 8, 8)))
    for i in range(2):
        weight = graph.constant(rng.normal(size=(4, 4, 3, 3)).astype(np.float32) / 6, f"w{i}")
        x = graph.add("Conv", [x, weight], {"pads": [1] * 4}, name=f"conv{i}").output
        for op in between if not i else ():
            x = graph.add(op, [x], name=op.lower()).output
    x = graph.add("Exp", [x], name="last").output
    graph.add_output(x, "y", TensorType(DType.FLOAT, ("N", 4, 8, 8)))
    infer(graph)
    return graph


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        ((), []),
        (("Relu",), []),
        (("Sigmoid",), []),
        (("Tanh",), [("tanh", "Tanh", "ONNX Runtime has no integer kernel for Tanh")]),
    ],
)
def test_islands_are_what_no_kernel_took(between: tuple[str, ...], expected: list[tuple[str, str, str]]) -> None:
    graph = network(*between)
    report = quantized(graph, {"x": np.random.default_rng(1).normal(size=(40, 4, 8, 8)).astype(np.float32)})
    assert [(i.name, i.op, i.why) for i in islands(graph)] == expected
    reported = [(layer.name, layer.op, layer.reason) for layer in report.layers if layer.outcome is Outcome.SKIPPED]
    assert reported == expected
    assert any("between integer kernels" in note for note in report.notes) is bool(expected)


def test_a_float_model_has_none() -> None:
    assert islands(network("Tanh")) == ()


@pytest.mark.parametrize("most", [20, 3000])
def test_a_full_disk_is_told_as_one(most: int, tmp_path: Path) -> None:
    """Files may have so many bytes: what ONNX Runtime writes aside has more."""
    words = ["zoo:digits_dscnn", "--passes", "quant", "--samples", "16", "--no-check", "-q", "-o", "out.onnx"]
    done = subprocess.run(
        [sys.executable, "-B", "-m", "optc", *words],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "OPTC_CACHE": "off"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )
    assert done.returncode == 2, done.stderr
    assert f"cannot write in {tmp_path}: make room there" in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_the_runtime_refuses_is_no_full_disk() -> None:
    graph = network()
    next(iter(graph)).op = "Convolve"
    with pytest.raises(TargetError, match="does not take graph 'network'"):
        optimised(graph)
