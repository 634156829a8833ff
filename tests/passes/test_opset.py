"""A model of an old opset is raised to what a pass writes, and answers as before or is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import optc
from optc.errors import ModelError
from optc.ir.graph import Graph
from optc.passes import opset as raising
from optc.passes.base import Override

DATA = {"x": np.random.default_rng(0).standard_normal((16, 2, 6, 10)).astype(np.float32)}


def model(opset: int, body: str, result: str) -> onnx.ModelProto:
    text = f'<ir_version: 7, opset_import: ["" : {opset}]> g (float[1, 2, 6, 10] x) => (float[1, 2, {result}] y)'
    return onnx.parser.parse_model(f"{text} <float[4] s = {{1, 1, 0.5, 0.5}}> {{ y = {body} }}")


@pytest.mark.parametrize("target", ["onnx", "host"])
def test_what_stood_in_an_old_opset_answers_as_before(target: str) -> None:
    """onnx's own adapter takes the pixels of this Resize elsewhere."""
    halved = model(10, 'Resize <mode = "linear"> (x, s)', "3, 5")
    build = optc.compile(halved, passes="quant", data=DATA, target=target)
    assert build.report.agreement is not None
    assert build.report.agreement.share == pytest.approx(1.0, abs=1e-6)


def test_a_conversion_that_changes_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: Graph, version: int) -> None:
        graph.opsets[""] = version  # Softmax was one over all axes from `axis` on

    monkeypatch.setattr(raising, "convert", wrong)
    with pytest.raises(ModelError, match="answers otherwise"):
        optc.compile(model(12, "Softmax <axis = 1> (x)", "6, 10"), passes="quant", data=DATA)


def test_what_nodes_were_made_from_outlives_a_conversion() -> None:
    """Factors of a layer are asked for four bits by the name of the layer, and quant raises the opset for these."""
    layer = "stage3.block1.conv2"
    wants = {"svd": {"ratio": 0.5}}, {"svd": {"ratio": 0.5}, "quant": {"weights": "int4"}}
    stored = [
        optc.compile(
            "zoo:digits_resnet",
            "svd:ratio=1:scope=layer,quant",
            overrides=(Override(layer, passes=passes),),
            guard=False,
            check=False,
            threads=1,
            samples=32,
        ).report.after.bytes
        for passes in wants
    ]
    assert stored[0] - stored[1] > 8000, "18,432 weights of four bits in place of eight"


@pytest.mark.parametrize("op", ["Affine", "ScaledTanh"])
def test_an_operator_that_ended_is_named(op: str) -> None:
    old = model(9, f"{op} <alpha = 1.0, beta = 0.5> (x)", "6, 10")
    with pytest.raises(ModelError, match=f"{op} node 'y' is an operator that later opsets do not have") as caught:
        optc.compile(old, passes="quant", data=DATA)
    assert ".cc" not in str(caught.value)


def test_an_operator_that_runtimes_had_before_onnx_keeps_its_meaning() -> None:
    old = model(9, "ThresholdedRelu <alpha = 0.25> (x)", "6, 10")
    build = optc.compile(old, passes="quant", data=DATA)
    assert build.report.agreement is not None
    assert build.report.agreement.share == 1.0
