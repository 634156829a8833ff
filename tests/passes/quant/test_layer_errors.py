"""What each layer lost is told, so that a missed budget names the layers that cost most; biases follow or stay."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from processes import optc
from quantized import quantized

from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Outcome
from optc.passes.quant import Quant
from optc.passes.quant.numbers.params import DIGITS

FEEDS = {"x": np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32)}


def chain() -> Graph:
    """l0 -> l1 -> l2; the weights of l1 have one input in which they are a thousand times larger."""
    rng = np.random.default_rng(0)
    graph = Graph("chain", opsets={"": 21})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 16)))
    for i in range(3):
        weight = rng.normal(size=(16, 16)) / 4
        if i == 1:
            weight[0] *= 1000
        parts = [graph.constant(weight.astype(np.float32)), graph.constant(rng.normal(size=16).astype(np.float32))]
        x = graph.add("Gemm", [x, *parts], name=f"l{i}").output
        x = graph.add("Tanh", [x], name=f"t{i}").output
    graph.add_output(x, "y", TensorType(DType.FLOAT, ("N", 16)))
    infer(graph)
    return graph


@pytest.mark.parametrize(
    "one",
    [
        Quant(slower="int8"),
        Quant(per_channel=False, slower="int8"),
        Quant(activations="dynamic"),
        Quant(activations="dynamic", weights="int3"),
        Quant(activations="none"),
        Quant(activations="none", weights="int4", block=8),
        Quant(weights="bfloat16"),
    ],
    ids=lambda one: "-".join([one.activations, one.weights, str(one.per_channel)]),
)
def test_every_form_tells_the_error_of_each_layer(one: Quant) -> None:
    report = quantized(chain(), FEEDS, one)
    errors = {
        x.name: float(str(x.detail.get("error", x.detail.get("weight_error"))))
        for x in report.layers
        if x.outcome is Outcome.DONE
    }
    assert list(errors) == ["l0", "l1", "l2"]
    assert all(0 < error < 0.5 for error in errors.values())


def test_a_missed_budget_names_the_layers_that_cost_most(tmp_path: Path) -> None:
    save(chain(), tmp_path / "m.onnx")
    np.savez(tmp_path / "s.npz", **FEEDS)
    done = optc(
        "m.onnx", "--passes", "quant:weights=int2:slower=int8", "--data", "s.npz", "--budget", "snr=60", "-o", "o.onnx",
        "--report", "r.json", "--no-guard", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    record = json.loads((tmp_path / "r.json").read_text())
    named = [(layer["by"], layer["name"]) for layer in record["budget"]["costliest"]]
    assert sorted(named) == [("error", "l0"), ("error", "l1"), ("error", "l2")]
    errors = [layer["error"] for layer in record["budget"]["costliest"]]
    assert errors == sorted(errors, reverse=True)
    assert "l1" in done.stdout + done.stderr


@pytest.mark.parametrize("form", ["int8", "dynamic"])
@pytest.mark.parametrize("fitted", [True, False])
def test_biases_are_fitted_only_if_asked_for(form: str, fitted: bool) -> None:
    one = Quant(activations="dynamic", weights="int3") if form == "dynamic" else Quant(slower="int8")
    graph, before = chain(), [np.asarray(n.inputs[2].numpy()) for n in chain() if n.op == "Gemm"]  # type: ignore[union-attr]
    quantized(graph, FEEDS, dataclasses.replace(one, bias_correction=fitted))
    after = []
    for node in graph:
        if node.op == "Gemm":
            codes, scale = (v.numpy() for v in node.inputs[2].producer.inputs[:2])  # type: ignore[union-attr]
            numbers = codes * scale  # type: ignore[operator]
            after.append((numbers, 0.501 * scale + np.abs(numbers) / 2**DIGITS))  # type: ignore[operator]
        elif node.op == "Add" and node.inputs[1] is not None and node.inputs[1].constant is not None:
            after.append((np.asarray(node.inputs[1].numpy()), 1e-6))
    assert len(after) == len(before)
    stayed = all((np.abs(a - b) <= step).all() for (a, step), b in zip(after, before, strict=True))
    assert stayed != fitted
