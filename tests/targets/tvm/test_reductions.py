"""Reductions of tensors whose sizes are known only when the library runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from optc.runtime.session import Session
from optc.targets import table

from .test_library import Net, need

OPS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp", "ReduceProd")


@pytest.mark.parametrize("keep", [0, 1])
def test_open_sizes_are_reduced_over_and_kept(keep: int, tmp_path: Path) -> None:
    need("host")
    net = Net()
    x = net.input("x", "N", "tokens", 12)
    outputs = [net.graph.add(op, [x], {"axes": [2], "keepdims": keep}).output for op in OPS if op != "ReduceSum"]
    outputs.append(net.graph.add("ReduceMean", [x], {"axes": [0, 1], "keepdims": keep}).output)
    axes = net.graph.constant(np.array([1], np.int64))
    outputs.append(net.graph.add("ReduceSum", [x, axes], {"keepdims": keep}).output)
    graph = net.done(*outputs)
    target = table.parse("host")[0]
    target.emit(graph, str(tmp_path / "a.tar"))
    opened = target.open(str(tmp_path / "a.tar"), threads=1)
    for shape in ((1, 5, 12), (3, 17, 12)):
        feeds = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
        for got, want in zip(opened.run(feeds), Session(graph, optimise=False).run(feeds), strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
