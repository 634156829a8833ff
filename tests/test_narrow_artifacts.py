"""Models that take one size beside ones that take any: what is fed fits both, or one line says what does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import optc
from optc.compiler import runnable
from optc.errors import DataError
from optc.gate import bench, check, contrast
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.types import Dim, DType, TensorType
from optc.passes.base import Context, TargetFacts

RANDOM = np.random.default_rng(0)


def network(height: Dim = "H", *, flat: bool = False) -> Graph:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, height, "W")))
    weight = graph.constant(RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32))
    y = graph.add("Conv", [x, weight], {"pads": [1, 1, 1, 1]}).output
    if flat:  # for pictures of 16 x 16 alone
        y = graph.add("Flatten", [y]).output
        y = graph.add("MatMul", [y, graph.constant(RANDOM.standard_normal((1024, 5)).astype(np.float32))]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT))
    return graph


@pytest.mark.parametrize(("shape", "real"), [((1, 3, 16, 16), True), ((8, 3, 16, 16), False)])
def test_an_artifact_of_fixed_sizes_is_fed_what_it_takes(shape: tuple[int, ...], real: bool, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("m.onnx", "o.onnx")]
    save(network(), paths[0])
    optc.compile(paths[0], "clean", shapes={"x": shape}, output=paths[1])
    data = {"x": RANDOM.standard_normal((24, 3, 16, 16)).astype(np.float32)} if real else None
    report = check(paths[1], paths[0], data=data)
    assert report.agreement is not None
    assert report.agreement.share > 0.999
    assert contrast(paths[0], paths[1], data=data).agreement is not None
    assert len(bench(paths, data=data, seconds=0.1).timings) == 2


def test_pictures_of_sizes_that_the_model_does_not_take_are_named(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for number, size in enumerate([(16, 16), (16, 16), (24, 20), (16, 16)]):
        image.fromarray(RANDOM.integers(0, 255, (*size, 3)).astype(np.uint8)).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match=r"'x' of 1x3x16x16 and 'x' of 1x3x24x20.*--resize") as caught:
        optc.compile(network(flat=True), "quant", data=tmp_path)
    assert "\n" not in str(caught.value)
    assert optc.compile(network(), "clean", data=tmp_path)
    assert optc.compile(network(flat=True), "clean", data=optc.Data(str(tmp_path), resize=(16, 16)))


def test_sequences_of_several_lengths_are_fed_singly_to_a_model_of_one() -> None:
    """Whatever the first two lengths are: later ones are alike, and would be stacked."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", "T", 4)))
    sizes = graph.constant(np.asarray([1, -1], np.int64))  # of one sample
    y = graph.add("MatMul", [x, graph.constant(RANDOM.standard_normal((4, 4)).astype(np.float32))]).output
    flat = graph.add("Reshape", [x, graph.constant(np.asarray([1, -1, 4], np.int64))]).output
    y = graph.add("Reshape", [graph.add("Add", [y, flat]).output, sizes]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT))
    lengths = [3, 5, *[4] * 40]
    feeds = [{"x": RANDOM.standard_normal((1, length, 4)).astype(np.float32)} for length in lengths]
    samples, _ = runnable(graph, feeds, graph, Context(TargetFacts("onnx")))
    assert not samples.batched
    assert optc.compile(graph, "quant", data=feeds, check=False)
