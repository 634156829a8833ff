"""Old forms of operators become those that the importer knows, and the graph between the two is a valid one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from optc.compiler import compile
from optc.errors import TargetError
from optc.ir.graph import Graph
from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import to_bytes
from optc.ir.verify.verify import verify
from optc.passes.base import Context
from optc.targets.tvm.host import HostTarget
from optc.targets.tvm.legal.primitive import Primitive

Array = np.ndarray[Any, Any]

X = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
B = np.array([0.5, -1.0, 2.0], np.float32)


def lifted(text: str) -> Graph:
    graph = from_proto(onnx.parser.parse_model(text))
    Primitive().run(graph, Context(HostTarget().facts))
    verify(graph)
    assert graph.opset() >= 11
    return graph


def answer(graph: Graph, feeds: dict[str, Array]) -> Array:
    import onnxruntime

    output: Array = onnxruntime.InferenceSession(to_bytes(graph)).run(None, feeds)[0]
    return output


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Add <axis = 1, broadcast = 1> (x, b)", lambda x, b: x + b[:, None, None]),
        ("y = Mul <axis = -3, broadcast = 1> (x, b)", lambda x, b: x * b[:, None, None]),
        ("y = PRelu (x, b)", lambda x, b: np.where(x < 0, x * b[:, None, None], x)),
    ],
)
def test_operands_are_broadcast_since_an_axis(body: str, expected: Callable[[Array, Array], Array]) -> None:
    interface = "(float[2, 3, 4, 5] x, float[3] b) => (float[2, 3, 4, 5] y)"
    graph = lifted(f'<ir_version: 3, opset_import: ["": 6]> net {interface} {{ {body} }}')
    assert np.array_equal(answer(graph, {"x": X, "b": B}), expected(X, B))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("op", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_resizing_before_version_11(op: str, opset: int, mode: str) -> None:
    import onnxruntime

    text = (
        f'<ir_version: 4, opset_import: ["": {opset}]> net (float[2, 3, 4, 5] x) => (float[2, 3, 8, 10] y) '
        f'<float[4] s = {{1, 1, 2, 2}}> {{ y = {op} <mode = "{mode}"> (x, s) }}'
    )
    model = onnx.parser.parse_model(text)
    want = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0]
    assert np.allclose(answer(lifted(text), {"x": X}), want, atol=1e-6)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (2, 3), (4, 1)])
def test_pads_of_pools_are_written_out_whatever_the_batch(op: str, mode: str, kernel: int, stride: int) -> None:
    attributes = f'auto_pad = "{mode}", kernel_shape = [{kernel}, {kernel}], strides = [{stride}, {stride}]'
    text = f"(float[N, 3, 4, 5] x) => (float[N, 3, h, w] y) {{ y = {op} <{attributes}> (x) }}"
    text = f'<ir_version: 8, opset_import: ["": 17]> net {text}'
    model = onnx.parser.parse_model(text)
    graph = lifted(text)
    assert all("auto_pad" not in node.attributes for node in graph)
    np.testing.assert_array_equal(answer(graph, {"x": X}), answer(from_proto(model), {"x": X}))


def test_pads_that_depend_on_open_sizes_are_refused_by_name() -> None:
    pool = 'y = MaxPool <auto_pad = "SAME_UPPER", kernel_shape = [3, 3]> (x)'
    text = f"(float[N, 3, h, w] x) => (float[N, 3, a, b] y) {{ {pool} }}"
    graph = from_proto(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> net {text}'))
    with pytest.raises(TargetError, match="its auto_pad needs known sizes: fix those of the inputs with --shape"):
        compile(graph, "clean", target="host", output="unused.tar", data={"x": X})


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("image", [(4, 5), (3, 1, 4)])
def test_the_points_of_a_grid_whose_size_is_known(image: tuple[int, ...], corners: int) -> None:
    rank = len(image)
    size = ", ".join(map(str, (2, 3, *image)))
    result = ", ".join(map(str, (2, *image, rank)))
    text = (
        f'<ir_version: 9, opset_import: ["": 20]> net (float[2, {rank}, {rank + 1}] x) => (float[{result}] y) '
        f"<int64[{rank + 2}] s = {{{size}}}> {{ y = AffineGrid <align_corners = {corners}> (x, s) }}"
    )
    x = np.random.default_rng(0).standard_normal((2, rank, rank + 1)).astype(np.float32)
    want = answer(from_proto(onnx.parser.parse_model(text)), {"x": x})
    assert np.allclose(answer(lifted(text), {"x": x}), want, atol=1e-5)


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("opset", [11, 17, 20])
def test_global_norms_of_images(power: int, opset: int) -> None:
    interface = "(float[2, 3, 4, 5] x) => (float[2, 3, 1, 1] y)"
    graph = lifted(
        f'<ir_version: 8, opset_import: ["": {opset}]> net {interface} {{ y = GlobalLpPool <p = {power}> (x) }}'
    )
    expected = (np.abs(X) ** power).sum((2, 3), keepdims=True) ** (1 / power)
    assert "GlobalLpPool" not in {node.op for node in graph}
    np.testing.assert_allclose(answer(graph, {"x": X}), expected, rtol=1e-5)


@pytest.mark.parametrize(("kind", "near"), [("float", 1e-6), ("float16", 2e-3)])
@pytest.mark.parametrize("axis", [-1, 2])
def test_norms_in_the_words_of_the_runtime_are_taken_as_it_answers(kind: str, near: float, axis: int) -> None:
    import onnxruntime

    sizes = "5" if axis == -1 else "4, 5"
    text = (
        f'<ir_version: 8, opset_import: ["": 17]> net ({kind}[2, 3, 4, 5] x, {kind}[{sizes}] w) => '
        f"({kind}[2, 3, 4, 5] y) {{ y = SimplifiedLayerNormalization <axis = {axis}, epsilon = 0.5> (x, w) }}"
    )
    feeds = {"x": X, "w": X[0, 0, 0] if axis == -1 else X[0, 0]}
    feeds = {name: array.astype(np.float16 if kind == "float16" else np.float32) for name, array in feeds.items()}
    proto = onnx.parser.parse_model(text)
    (expected,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)
    graph = lifted(text)
    assert "SimplifiedLayerNormalization" not in {node.op for node in graph}
    np.testing.assert_allclose(answer(graph, feeds), expected, rtol=near, atol=near)
