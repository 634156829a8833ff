"""Convolutions over open sizes, or over three axes, become products of patches that answer the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.verify.verify import verify
from optc.passes.base import Context
from optc.targets.tvm.host import HostTarget
from optc.targets.tvm.legal.patches import LONGEST, Patches

RANDOM = np.random.default_rng(0)


def model(shape: tuple[int | str, ...], kernel: tuple[int, ...], *, bias: bool = True, **attributes: Any) -> Any:
    weights = (RANDOM.normal(size=kernel) / np.sqrt(np.prod(kernel[1:]))).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "w")]
    if bias:
        constants.append(numpy_helper.from_array(RANDOM.normal(size=kernel[0]).astype(np.float32), "b"))
    node = helper.make_node("Conv", ["x", "w", *(["b"] if bias else [])], ["y"], name="conv", **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def lifted(proto: Any) -> Any:
    graph = from_proto(proto)
    infer(graph)
    Patches().run(graph, Context(HostTarget().facts))
    verify(graph)
    return graph


@pytest.mark.parametrize("size", [(9, 13), (12, 8)])
@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((6, 4, 3, 5), {"pads": [0, 2, 1, 1], "strides": [2, 1], "dilations": [1, 2]}),
        ((6, 4, 1, 1), {"bias": False}),
        ((6, 4, 2, 2), {"auto_pad": "SAME_UPPER"}),
        ((6, 4, 2, 4), {"auto_pad": "SAME_LOWER"}),
        ((4, 1, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2], "group": 4}),
    ],
)
def test_open_sizes(kernel: tuple[int, ...], attributes: dict[str, Any], size: tuple[int, int]) -> None:
    proto = model(("N", 4, "H", "W"), kernel, **attributes)
    graph = lifted(proto)
    assert "Conv" not in {node.op for node in graph}
    same_answers(proto, graph, (2, 4, *size))


def test_images_of_three_axes() -> None:
    proto = model((1, 4, 5, 6, 7), (6, 4, 3, 3, 2), pads=[1, 1, 0, 1, 1, 1], strides=[1, 2, 1])
    graph = lifted(proto)
    assert "Conv" not in {node.op for node in graph}
    same_answers(proto, graph, (1, 4, 5, 6, 7))


def test_long_patches_are_taken_row_by_row() -> None:
    channels = LONGEST // 8
    proto = model((1, channels, "H", "W"), (8, channels, 3, 3), pads=[1, 1, 1, 1])
    graph = lifted(proto)
    assert Counter(node.op for node in graph)["MatMul"] == 3
    same_answers(proto, graph, (1, channels, 6, 7))


def test_what_is_left() -> None:
    """Known sizes, which kernels are for; groups of several channels; pads that follow from an open size."""
    for proto in (
        model(("N", 4, 8, 8), (6, 4, 3, 3)),
        model(("N", 4, "H", "W"), (6, 2, 3, 3), group=2),
        model(("N", 4, "H", "W"), (6, 4, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    ):
        assert [node.op for node in lifted(proto)] == ["Conv"]


def test_a_library_of_open_sizes_answers_as_its_model(tmp_path: Any) -> None:
    from optc.compiler import compile
    from optc.targets import table

    from .test_library import need

    need("host")
    proto = model(("N", 4, "H", "W"), (6, 4, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    compile(proto, "clean", target="host", output=tmp_path / "a.tar", check=False)
    library = table.parse("host")[0].open(str(tmp_path / "a.tar"), threads=1)
    for shape in ((1, 4, 9, 13), (3, 4, 8, 8)):
        x = RANDOM.standard_normal(shape).astype(np.float32)
        (want,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
        np.testing.assert_allclose(library.run({"x": x})[0], want, rtol=1e-4, atol=1e-5)


def same_answers(proto: Any, graph: Any, shape: tuple[int, ...]) -> None:
    x = RANDOM.standard_normal(shape).astype(np.float32)
    (want,), (got,) = (
        onnxruntime.InferenceSession(data).run(None, {"x": x}) for data in (proto.SerializeToString(), to_bytes(graph))
    )
    assert want.shape == got.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
