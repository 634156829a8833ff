"""Models as other tools write them, node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def value(name: str, shape: Sequence[object] | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    others: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of `opset` and of `others`' domains, in the version of the form that came with it."""
    tensors = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=tensors)
    version = {7: 3, 8: 3, 9: 4, 10: 5}.get(opset, 8 if opset < 21 else 10)
    imports = [helper.make_opsetid(domain, number) for domain, number in {"": opset, **(others or {})}.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=version)
