"""Resize and Upsample: every mode, coordinate and form answers as ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from interpreted import build, run

from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.runtime.session import Session

pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")

SHAPE = (1, 2, 5, 7)
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")


def agree(
    opset: int, op: str, attributes: dict[str, object], *operands: np.ndarray | None, shape: tuple[int, ...]
) -> None:
    from optc.targets.tvm.cpu.machines import host

    graph = Graph("resize", opsets={"": opset})
    x = graph.add_input("x", TensorType(DType.FLOAT, shape))
    values = [None if array is None else graph.constant(array) for array in operands]
    graph.add_output(graph.add(op, [x, *values], attributes).output, "y")  # type: ignore[arg-type]
    data = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    want = Session(graph, threads=1, optimise=False).run({"x": data})[0]
    got = run(build(graph, host("x86-64-v3")), [data])[0]
    assert got.shape == want.shape
    assert np.allclose(got, want, rtol=1e-4, atol=1e-5), attributes


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_fractional_scales(mode: str, coordinates: str) -> None:
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    for scales in ([1, 1, 1.7, 0.65], [1, 1, 2, 2], [1, 1, 0.5, 1.3]):
        agree(19, "Resize", attributes, None, np.array(scales, np.float32), shape=SHAPE)
    sizes = np.array([1, 2, 8, 3])
    agree(19, "Resize", attributes, None, None, sizes, shape=SHAPE)


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest_modes(nearest: str) -> None:
    for coordinates in COORDINATES[:4]:
        attributes = {"mode": "nearest", "nearest_mode": nearest, "coordinate_transformation_mode": coordinates}
        agree(19, "Resize", attributes, None, np.array([1, 1, 1.5, 0.5], np.float32), shape=SHAPE)


@pytest.mark.parametrize(
    ("size", "scale", "coordinates", "nearest"),
    [
        (5, 0.3, "half_pixel_symmetric", "floor"),
        (5, 2.5, "half_pixel_symmetric", "ceil"),
        (7, 1.75, "half_pixel_symmetric", "floor"),
        (10, 1.2, "asymmetric", "round_prefer_ceil"),
        (7, 0.6, "half_pixel_symmetric", "round_prefer_floor"),
        (6, 1.55, "half_pixel_symmetric", "round_prefer_ceil"),
        (16, 1.3, "half_pixel", "round_prefer_floor"),
        (14, 1.75, "asymmetric", "ceil"),
    ],
)
def test_ties_are_rounded_as_often(size: int, scale: float, coordinates: str, nearest: str) -> None:
    attributes = {"mode": "nearest", "nearest_mode": nearest, "coordinate_transformation_mode": coordinates}
    agree(19, "Resize", attributes, None, np.array([1, 1, 1, scale], np.float32), shape=(1, 1, 1, size))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_an_image_that_keeps_its_size_is_copied(mode: str) -> None:
    agree(19, "Resize", {"mode": mode}, None, np.array([1, 1, 1.05, 1.1], np.float32), shape=SHAPE)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_antialias_and_outside(mode: str) -> None:
    scales = np.array([1, 1, 0.6, 0.45], np.float32)
    agree(19, "Resize", {"mode": mode, "antialias": 1}, None, scales, shape=(1, 1, 9, 11))
    if mode == "cubic":
        agree(19, "Resize", {"mode": mode, "exclude_outside": 1, "cubic_coeff_a": -0.5}, None, scales, shape=SHAPE)


def test_channels_last_axes_and_old_forms() -> None:
    scales = np.array([1, 1.5, 2, 1], np.float32)
    agree(19, "Resize", {"mode": "nearest"}, None, scales, shape=(1, 5, 7, 2))
    agree(19, "Resize", {"mode": "linear", "axes": [2, 3]}, None, np.array([1.4, 2], np.float32), shape=SHAPE)
    empty = np.array([], np.float32)
    agree(11, "Resize", {"mode": "linear"}, empty, empty, np.array([1, 2, 8, 9]), shape=SHAPE)
    for mode in ("nearest", "linear"):
        agree(10, "Resize", {"mode": mode}, np.array([1, 1, 1.5, 2], np.float32), shape=SHAPE)
        agree(9, "Upsample", {"mode": mode}, np.array([1, 1, 2, 1.5], np.float32), shape=SHAPE)
        agree(8, "Upsample", {"mode": mode, "scales": [1.0, 1.0, 2.0, 3.0]}, shape=SHAPE)
