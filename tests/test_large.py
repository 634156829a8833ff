"""A model larger than the memory that it is worked on with: its weights in a file that is mostly a hole."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from measured import measured
from onnx import TensorProto, helper

SIDE = 12 << 10
LAYERS = 4

pytestmark = pytest.mark.slow


def large(folder: Path) -> int:
    """The bytes of the weights of `m.onnx`."""
    size = 4 * SIDE * SIDE
    with open(folder / "m.data", "wb") as file:
        file.truncate(LAYERS * size)
    weights = []
    for index in range(LAYERS):
        weight = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[SIDE, SIDE])
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "m.data", "offset": index * size, "length": size}.items():
            weight.external_data.add(key=key, value=str(value))
        weights.append(weight)
    nodes = [helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"]) for i in range(LAYERS)]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", SIDE]) for name in ("h0", f"h{LAYERS}")]
    graph = helper.make_graph(nodes, "large", ports[:1], ports[1:], weights)
    model: onnx.ModelProto = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return LAYERS * size


def test_a_large_model_is_inspected_in_little_memory(tmp_path: Path) -> None:
    size = large(tmp_path)
    taken = measured(["inspect", "m.onnx", "-q"], tmp_path)
    assert taken.status == 0, taken.said
    assert taken.memory < size // 3
