"""Quantized files of few bytes as libraries: what is stored packed is written out, and computes with integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from quantized import layers_on_codes

from optc.compiler import compile, read
from optc.models import zoo
from optc.passes.base import Context
from optc.passes.pipeline import Pipeline
from optc.passes.runner import run
from optc.runtime.session import Session
from optc.targets import table


@pytest.mark.parametrize("weights", ["int8", "int4", "int3"])
def test_a_packed_file_becomes_integer_code(weights: str, tmp_path: Path) -> None:
    pytest.importorskip("tvm", reason="needs the extra optc[tvm]")
    samples = {k: v[:64] for k, v in zoo.samples("digits_resnet", "calib").items()}
    file = tmp_path / "small.onnx"
    passes = f"quant:weights={weights}:slower=int8"
    compile("zoo:digits_resnet", passes, data=samples, output=file, guard=False, check=False)
    packed = read(file)
    assert {"QLinearConv", "Split"} <= {node.op for node in packed}
    target = table.parse("host")[0]
    legal = packed.clone()
    layers = sum(node.op in ("Conv", "Gemm") for node in zoo.load("digits_resnet"))
    run(Pipeline((*Pipeline.parse("clean").passes, *target.legalisation().passes)), legal, Context(target.facts))
    assert len(layers_on_codes(legal)) == layers
    answers = [np.asarray(Session(graph).run(samples)[0]) for graph in (packed, legal)]
    assert np.abs(answers[0] - answers[1]).max() < 0.02 * np.abs(answers[0]).max()
