"""Weights stored sparse: a smaller file that ONNX Runtime answers equally from, and that later passes can read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optc.compiler import compile
from optc.ir.graph import Graph
from optc.ir.onnx.reader import load
from optc.ir.onnx.writer import save
from optc.ir.shapes.infer import infer
from optc.ir.tensor import ArrayTensor, SparseTensor
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, Outcome, TargetFacts
from optc.passes.prune import Prune
from optc.passes.prune.storage import sparse
from optc.passes.quant import Quant
from optc.runtime.session import Session
from optc.runtime.sources import load_samples

X = np.random.default_rng(1).normal(size=(64, 8, 6, 6)).astype(np.float32)


def net() -> Graph:
    rng = np.random.default_rng(0)
    graph = Graph("net", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 6, 6)))
    for name, (n, c) in {"a": (16, 8), "b": (32, 16), "c": (32, 32)}.items():
        weight = graph.constant((rng.normal(size=(n, c, 3, 3)) / np.sqrt(9 * c)).astype(np.float32), f"{name}.weight")
        bias = graph.constant(rng.normal(size=n).astype(np.float32), f"{name}.bias")
        value = graph.add("Conv", [value, weight, bias], {"pads": [1] * 4}, name=name, outputs=[f"{name}.out"]).output
        value = graph.add("Relu", [value], outputs=[f"{name}.relu"]).output
    graph.add_output(value, "y")
    infer(graph)
    return graph


def context(graph: Graph, **facts: bool) -> Context:
    ctx = Context(replace(TargetFacts("test"), **facts), threads=1)
    samples = load_samples({"x": X}, graph)
    ctx.fit, ctx.held_out = samples.split(8, 0)
    ctx.teacher = graph.clone()
    return ctx


def size(graph: Graph, path: Path) -> int:
    graph.sweep()
    save(graph, path)
    return path.stat().st_size


def test_the_file_is_smaller_and_answers_equally(tmp_path: Path) -> None:
    dense, graph = net(), net()
    Prune(ratio=0.8).run(dense, context(dense))
    report = Prune(ratio=0.8, store="sparse").run(graph, context(graph))
    assert any("stored sparse: 2" in note for note in report.notes)
    assert size(graph, tmp_path / "sparse.onnx") < 0.75 * size(dense, tmp_path / "dense.onnx")
    answers = [Session(load(tmp_path / f"{name}.onnx"), threads=1).run({"x": X})[0] for name in ("sparse", "dense")]
    np.testing.assert_array_equal(*answers)


def test_a_target_without_sparse_initializers_is_told(tmp_path: Path) -> None:
    graph = net()
    report = Prune(ratio=0.8, store="sparse").run(graph, context(graph, sparse_initializers=False))
    assert "stored dense: the target reads no sparse initializers" in report.notes
    assert not any(isinstance(v.constant, SparseTensor) for v in graph.constants)


def test_weights_that_would_not_shrink_stay_dense() -> None:
    graph = net()
    report = Prune(ratio=0.5, store="sparse").run(graph, context(graph))
    assert report.count(Outcome.DONE) == 2
    assert "weights stored sparse: 0; 2 dense, because more than a third of their weights stays" in report.notes


@pytest.mark.parametrize("kept", [3, 4])
def test_a_third_is_the_limit(kept: int) -> None:
    data = np.zeros(10, dtype=np.float32)
    data[:kept] = 1.0
    packed = sparse(ArrayTensor(data))
    assert (packed is not None) == (kept == 3)
    if packed is not None:
        np.testing.assert_array_equal(packed.numpy(), data)


def test_quantizing_afterwards_keeps_the_zeros() -> None:
    graph = net()
    ctx = context(graph)
    Prune(ratio=0.8, store="sparse").run(graph, ctx)
    zeros = {n.name: n.inputs[1].numpy() == 0 for n in graph if n.op == "Conv" and n.name in ("b", "c")}
    report = Quant().run(graph, ctx)
    assert report.count(Outcome.DONE) >= 2
    for value in graph.constants:
        for name, zero in zeros.items():
            if value.name.startswith(f"{name}.weight") and value.shape == zero.shape:
                codes = value.numpy().astype(np.int64)
                assert len(np.unique(codes[zero])) == 1  # the code of zero
                zeros = {k: v for k, v in zeros.items() if k != name}
                break
    assert not zeros


def test_a_bias_that_layers_share_stays_shared() -> None:
    """One of its own for each would make the weights grow, and the pass be undone."""
    rng = np.random.default_rng(0)
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 16, 10, 10)))
    bias = graph.constant(rng.normal(size=16).astype(np.float32), "bias")
    value = x
    for number in range(3):
        weight = graph.constant(rng.normal(size=(16, 16, 3, 3)).astype(np.float32) / 12, f"w{number}")
        value = graph.add("Conv", [value, weight, bias], {"pads": [1] * 4}, name=f"conv{number}").output
        value = graph.add("Relu", [value]).output
    graph.add_output(value, "y", None)
    infer(graph)
    feeds = {"x": rng.normal(size=(40, 16, 10, 10)).astype(np.float32)}
    build = compile(graph, "prune:ratio=0.5", data=feeds, check=False)
    (report,) = (step.report for step in build.report.steps if step.name == "prune")
    assert report.count(Outcome.DONE) == 2
    assert [value.name for value in build.graph.constants if value.static_shape == (16,)] == ["bias"]
