"""The operators that the installed runtime has: none of those it runs may be refused as unknown."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as native
from real_models import Maker, samples

from optc.compiler import compile
from optc.ir.onnx.writer import to_bytes
from optc.ir.verify.conformance import UNSPECIFIED


def test_every_operator_that_the_runtime_has_and_onnx_has_not_is_listed() -> None:
    first: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            first[schema.name] = min(first.get(schema.name, schema.since_version), schema.since_version)
    for kernel in native.get_all_opkernel_def():
        if kernel.domain in ("", "ai.onnx") and kernel.provider == "CPUExecutionProvider":
            low, high = kernel.version_range
            if low < first.get(kernel.op_name, 1 << 31):
                newest = min(high, first.get(kernel.op_name, 1 << 31) - 1)
                assert UNSPECIFIED.get(kernel.op_name, 0) >= newest or newest >= 1 << 30, kernel.op_name
                assert kernel.op_name in UNSPECIFIED


@pytest.mark.parametrize("passes", ["clean", "prune", "quant", "quant:weights=int4", "quant:activations=dynamic"])
@pytest.mark.parametrize("opset", [14, 16])
@pytest.mark.parametrize("op", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_normalisations_below_their_opset(op: str, opset: int, passes: str) -> None:
    """As ONNX Runtime's optimiser writes them into models of older opsets; four bits ask for a newer one."""
    make = Maker(opset)
    h = make.add("MatMul", "x", make.weight(32, 64))
    parameters = [make.constant(np.ones(64, np.float32))] * (2 if op == "LayerNormalization" else 1)
    h = make.add(op, h, *parameters, axis=-1, epsilon=1e-5)
    model = make.build({"x": ["N", 4, 32]}, {"y": make.add("MatMul", h, make.weight(64, 8))})
    build = compile(model, passes, data=samples(48, x=(4, 32)), guard=False, check=False)
    assert any(node.op == op and not node.domain for node in build.graph)
    feeds = samples(8, 2, x=(4, 32))
    (y,), (t,) = (
        onnxruntime.InferenceSession(m).run(None, feeds) for m in (to_bytes(build.graph), model.SerializeToString())
    )
    assert np.sum((y - t) ** 2) < 0.1 * np.sum(t**2)
