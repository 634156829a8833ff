"""TopK and CumSum of libraries answer as ONNX Runtime does, on ties too."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from interpreted import build, run

pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")

Array = np.ndarray[Any, Any]


def answers(text: str, x: Array) -> list[Array]:
    from optc.targets.tvm.cpu.machines import host

    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> net {text}')
    return run(build(model, host("x86-64-v3")), [x])


def runtime(text: str, x: Array) -> list[Array]:
    import onnxruntime

    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> net {text}')
    outputs: list[Array] = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    return outputs


def agree(text: str, x: Array) -> None:
    for want, got in zip(runtime(text, x), answers(text, x), strict=True):
        assert got.dtype == want.dtype
        assert np.array_equal(got, want)


def top(sizes: tuple[int, ...], axis: int, count: int, attributes: str = "", kind: str = "float") -> str:
    result = list(sizes)
    result[axis] = count
    whole, part = (", ".join(map(str, one)) for one in (sizes, result))
    return (
        f"({kind}[{whole}] x) => ({kind}[{part}] values, int64[{part}] indices) "
        f"{{ k = Constant <value_ints = [{count}]> () values, indices = TopK <axis = {axis}{attributes}> (x, k) }}"
    )


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize(("sizes", "axis"), [((3, 7), -1), ((7, 3), 0), ((2, 9, 5), 1)])
def test_equal_elements_keep_their_order(sizes: tuple[int, ...], axis: int, largest: int) -> None:
    x = np.random.default_rng(0).integers(0, 4, sizes).astype(np.float32)
    agree(top(sizes, axis, 3, f", largest = {largest}"), x)


def test_whole_numbers_and_long_rows() -> None:
    random = np.random.default_rng(0)
    agree(top((2, 30), 1, 5, kind="int64"), random.integers(-9, 9, (2, 30)))
    agree(top((2, 3000), 1, 100), random.standard_normal((2, 3000)).astype(np.float32))


def test_every_element_has_a_place_where_some_are_no_numbers() -> None:
    x = np.array([[1, np.nan, 3, np.inf, np.nan, -np.inf]], np.float32)
    values, indices = answers(top((1, 6), 1, 6), x)
    assert indices.tolist() == [[1, 4, 3, 2, 0, 5]]
    assert np.array_equal(values, x[:, indices[0]], equal_nan=True)


@pytest.mark.parametrize("attributes", ["", "reverse = 1", "exclusive = 1", "exclusive = 1, reverse = 1"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_sums_up_to_an_element(axis: int, attributes: str) -> None:
    how = f" <{attributes}>" if attributes else ""
    text = f"(float[3, 4, 5] x) => (float[3, 4, 5] y) {{ a = Constant <value_int = {axis}> () y = CumSum{how} (x, a) }}"
    agree(text, np.random.default_rng(0).integers(-9, 9, (3, 4, 5)).astype(np.float32))


def test_an_order_that_is_left_open_is_that_of_size() -> None:
    x = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    for one, other in zip(answers(top((3, 7), 1, 3, ", sorted = 0"), x), answers(top((3, 7), 1, 3), x), strict=True):
        assert np.array_equal(one, other)
