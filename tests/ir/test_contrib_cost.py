"""Shapes of operators of ONNX Runtime as the runtime gives them, and their multiply-accumulates as those of the plain
operators that they stand for."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from real_models import Maker, samples

from optc.compiler import compile
from optc.compiler.model import read
from optc.ir.cost import cost
from optc.ir.onnx.writer import to_bytes

MS = "com.microsoft"


def one(op: str, inputs: dict[str, tuple[int, ...]], weights: list[tuple[int, ...] | None], outputs: int = 1,
        types: dict[str, int] | None = None, **attributes: object) -> onnx.ModelProto:  # fmt: skip
    """A model of one operator: its inputs first, then constants of these shapes (`None`: absent)."""
    make = Maker(com_microsoft=1)
    constants = ["" if shape is None else make.weight(*shape) for shape in weights]
    make.add(op, *inputs, *constants, outputs=outputs, domain=MS, **attributes)
    names = list(make.nodes[-1].output)
    return make.build({n: list(s) for n, s in inputs.items()}, {f"y{i}": n for i, n in enumerate(names)}, types)


QKV = {"q": (2, 5, 32), "k": (2, 7, 32), "v": (2, 7, 32)}
CASES = {
    "attention": (one("Attention", {"x": (2, 5, 32)}, [(32, 96), (96,)], num_heads=4),
                  2 * 5 * 32 * 96 + 2 * 5 * 5 * 64),
    "attention of other widths": (one("Attention", {"x": (2, 5, 32)}, [(32, 80), (80,)], num_heads=4,
                                      qkv_hidden_sizes=[32, 32, 16]), 2 * 5 * 32 * 80 + 2 * 5 * 5 * 48),
    "multi head": (one("MultiHeadAttention", QKV, [], num_heads=4), 2 * 5 * 7 * 64),
    "skip": (one("SkipLayerNormalization", {"a": (2, 5, 32), "b": (2, 5, 32)}, [(32,), (32,)], 4), 0),
    "fused": (one("FusedMatMul", {"x": (3, 8)}, [(16, 8)], transB=1), 3 * 8 * 16),
    "gelu": (one("GemmFastGelu", {"x": (3, 8)}, [(8, 16)]), 3 * 8 * 16),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_shapes_and_costs(name: str) -> None:
    model, macs = CASES[name]
    graph = read(model)
    assert cost(graph).macs == macs
    wanted = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    feeds = {n: np.random.default_rng(0).standard_normal(s).astype(np.float32) for n, s in wanted.items()}
    try:
        arrays = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error):
            pytest.skip(f"onnxruntime has no kernel here: {name}")
        raise
    for output, array in zip(graph.outputs, arrays, strict=True):
        if array.size:
            assert output.value.shape == array.shape, output.name


def test_a_recurrent_layer_costs_as_much_when_it_is_quantized() -> None:
    make = Maker(14)
    y = make.add("LSTM", "x", make.weight(2, 64, 24), make.weight(2, 64, 16), make.weight(2, 128), outputs=3,
                 direction="bidirectional", hidden_size=16)  # fmt: skip
    model = make.build({"x": [7, 1, 24]}, {"y": y})
    build = compile(model, "quant:activations=dynamic", data=samples(8, x=(7, 1, 24)), guard=False, check=False)
    assert any(node.op == "DynamicQuantizeLSTM" for node in build.graph)
    assert build.report.after.macs == build.report.before.macs == 7 * 2 * 64 * (24 + 16)
    feeds = {"x": samples(1, 2, x=(7, 1, 24))["x"][0]}
    onnxruntime.InferenceSession(to_bytes(build.graph)).run(None, feeds)


def test_channels_in_blocks_cost_as_they_do_in_a_row() -> None:
    domain = "com.microsoft.nchwc"
    make = Maker(com_microsoft_nchwc=1)
    h = make.add("Conv", "x", make.weight(16, 3, 3, 3), domain=domain, pads=[1] * 4, activation="Relu")
    h = make.add("MaxPool", h, domain=domain, kernel_shape=[2, 2], strides=[2, 2])
    h = make.add("Conv", h, make.weight(32, 16, 1, 1), domain=domain)
    pooled = make.add("GlobalAveragePool", h, domain=domain)
    outputs = {
        "y": make.add("ReorderOutput", pooled, domain=domain, channels=20),
        "z": make.add("ReorderOutput", h, domain=domain, channels=20, channels_last=1),
    }
    graph = read(make.build({"x": [2, 3, 8, 8]}, outputs))
    assert cost(graph).macs == 2 * 64 * 16 * 27 + 2 * 16 * 32 * 16
    assert [output.value.shape for output in graph.outputs] == [(2, 20, 1, 1), (2, 4, 4, 20)]


@pytest.mark.parametrize("last", [0, 1])
def test_the_last_block_of_channels_is_full(last: int) -> None:
    domain = "com.microsoft.nchwc"
    make = Maker(com_microsoft_nchwc=1)
    h = make.add("ReorderInput", "x", domain=domain, channels_last=last)
    h = make.add("Conv", h, make.weight(32, 32, 3, 3), domain=domain, pads=[1] * 4)
    y = make.add("ReorderOutput", h, domain=domain, channels=24)
    graph = read(make.build({"x": [2, 8, 8, 20] if last else [2, 20, 8, 8]}, {"y": y}))
    assert cost(graph).macs == 2 * 64 * 32 * 9 * 32
    assert graph.outputs[0].value.shape == (2, 24, 8, 8)
