"""Models in half precision: fitted in float, stored as they were."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from real_models import FLOAT, Maker, half_precision, samples

from optc.compiler import compile
from optc.compiler.model import read
from optc.ir.onnx.writer import size, to_bytes
from optc.passes.half import look_through, restore

PASSES = {
    "prune:ratio=0.5": 1.01,
    "prune:kind=nm": 1.01,
    "prune:kind=channels:ratio=0.4:align=4:scope=layer": 0.85,
    "svd:ratio=0.6:align=4": 0.85,
    "depthwise:rank=3": 0.9,
    "quant": 0.75,
    "quant:weights=int4": 0.7,
    "quant:activations=dynamic": 0.75,
    "quant:activations=none": 0.75,
}


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("kind", ["cast", "all", "inside"])
def test_passes_work_on_half_precision(kind: str, passes: str) -> None:
    model = half_precision(kind)
    data = samples(64, x=(3, 16, 16))
    data = {"x": data["x"].astype(np.float16)} if kind == "all" else data
    build = compile(model, passes, data=data, guard=False, check=False)
    assert [step.report.changed for step in build.report.steps if step.name == passes.partition(":")[0]] == [True]
    assert size(build.graph) < PASSES[passes] * size(read(model)) + 900
    feeds = {"x": samples(16, 2, x=(3, 16, 16))["x"].astype(data["x"].dtype)}
    (y,), (t,) = (
        onnxruntime.InferenceSession(m).run(None, feeds) for m in (to_bytes(build.graph), model.SerializeToString())
    )
    assert y.dtype == t.dtype
    y, t = y.astype(np.float64), t.astype(np.float64)
    assert np.sum((y - t) ** 2) < 0.1 * np.sum(t**2)


def test_weights_in_bfloat16_behind_a_cast() -> None:
    model = half_precision("cast", ml_dtypes.bfloat16)
    build = compile(model, "prune:ratio=0.5", data=samples(64, x=(3, 16, 16)), guard=False, check=False)
    stored = {v.constant.dtype.text for v in build.graph.constants if v.constant is not None and v.constant.size > 256}
    assert stored == {"bfloat16"}
    assert any(x.detail.get("sparsity", 0) > 0.4 for step in build.report.steps for x in step.report.layers)


def test_what_no_pass_touched_is_as_it_was() -> None:
    graph = read(half_precision("cast"))
    before = {v.constant.numpy().tobytes() for v in graph.constants if v.constant is not None}
    stored = look_through(graph)
    assert not any(node.op == "Cast" for node in graph)
    restore(graph, stored)
    graph.sweep()
    graph.sort()
    assert {v.constant.numpy().tobytes() for v in graph.constants if v.constant is not None} == before


def test_biases_behind_a_cast_stay_in_half_precision_and_no_file_grows() -> None:
    model = half_precision("cast")
    cleaned, pruned = (
        compile(model, passes, data=samples(64, x=(3, 16, 16)), guard=False, check=False).graph
        for passes in ("clean", "prune:ratio=0.5")
    )
    for graph in (cleaned, pruned):
        assert size(graph) <= size(read(model))
        assert {v.constant.dtype.text for v in graph.constants if v.constant is not None} == {"float16"}


@pytest.mark.parametrize("rows", ["looked up in half", "looked up in float"])
def test_a_table_behind_a_cast_that_answers_too_is_pruned_once(rows: str) -> None:
    make = Maker()
    table, weight = (make.weight(*shape, dtype=np.float16, scale=0.1) for shape in ((128, 64), (64, 64)))
    wide = make.add("Cast", table, to=FLOAT)
    inner = rows == "looked up in half"
    h = make.add("Gather", table if inner else wide, "x")
    h = make.add("Cast", h, to=FLOAT) if inner else h
    h = make.add("Relu", make.add("MatMul", h, make.add("Cast", weight, to=FLOAT)))
    y = make.add("MatMul", h, make.add("Transpose", wide, perm=[1, 0]))
    model = make.build({"x": ["N", 12]}, {"y": y}, {"x": TensorProto.INT64})
    words = np.random.default_rng(1).integers(0, 128, (96, 12))
    build = compile(model, "prune:ratio=0.5", data={"x": words}, guard=False, check=False)
    assert size(build.graph) <= size(read(model))
    (stored,) = [v.constant for v in build.graph.constants if v.constant is not None and v.constant.shape == (128, 64)]
    assert stored.dtype.text == "float16"
    assert np.mean(np.asarray(stored.numpy()) == 0) > 0.4
    (t,), (y_,) = (
        onnxruntime.InferenceSession(m).run(None, {"x": words})
        for m in (model.SerializeToString(), to_bytes(build.graph))
    )
    assert np.sum((t - y_) ** 2) < 0.2 * np.sum(t**2)
