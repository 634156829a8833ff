"""Sizes that a file names alike and samples show to differ are two sizes, in figures and to the passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import optc
from optc.compiler import runnable, sizes
from optc.compiler.dimension_names import tell_apart
from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import Dim, DType, TensorType
from optc.passes.base import Context, TargetFacts
from optc.runtime.session import Session

RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.standard_normal((24, 3, 16, 40)).astype(np.float32)


def network(shape: tuple[Dim, ...], *, said: Dim = None) -> Graph:
    """A convolution over a picture of `shape`, and its sizes as a shape that a Reshape writes back the other way
    round: right only for one who knows that they differ."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, shape))
    weight = graph.constant(RANDOM.standard_normal((8, 3, 3, 3)).astype(np.float32))
    y = graph.add("Conv", [x, weight], {"pads": [1, 1, 1, 1]}).output
    size = graph.add("Shape", [y]).output
    turned = graph.add("Gather", [size, graph.constant(np.asarray([0, 1, 3, 2], np.int64))]).output
    y = graph.add("Reshape", [y, turned]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, (shape[0], 8, said, said)))
    return graph


@pytest.mark.parametrize("name", ["DynamicDimension", "unk__1", None])
def test_products_are_those_of_the_sample(name: str | None, tmp_path: Path) -> None:
    graph = network(("N", 3, name, name), said=name)
    build = optc.compile(graph, "clean", data={"x": PICTURES}, output=tmp_path / "o.onnx")
    assert build.report.before.macs == build.report.after.macs == 16 * 40 * 8 * 3 * 9
    notes = [note for note in build.report.notes if "are not one" in note]
    assert notes == ([] if name is None else [
        f"the sizes that the model names '{name}' are not one: 16 in axis 2 of 'x'; 40 in axis 3 of 'x'"
    ])  # fmt: skip
    one, other = Session(graph).run({"x": PICTURES})[0], Session.open(str(tmp_path / "o.onnx")).run({"x": PICTURES})[0]
    assert one.shape == other.shape == (24, 8, 40, 16)
    np.testing.assert_array_equal(one, other)


def test_a_square_stays_one_size(tmp_path: Path) -> None:
    build = optc.compile(network(("N", 3, "S", "S")), "clean", data={"x": PICTURES[..., :16]})
    assert not any("are not one" in note for note in build.report.notes)
    assert build.graph.inputs[0].shape == ("N", 3, "S", "S")


def test_inputs_that_go_together_keep_one_name() -> None:
    graph = Graph("g", opsets={"": 17})
    shapes: dict[str, tuple[Dim, ...]] = {"a": ("N", "d", 4), "b": ("N", "d", "d"), "c": ("N", "d_2")}
    values = [graph.add_input(name, TensorType(DType.FLOAT, shape)) for name, shape in shapes.items()]
    total = [graph.add("ReduceSum", [v], {"keepdims": 0}).output for v in values]
    y = graph.add("Sum", total, types=[TensorType(DType.FLOAT, ())]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ()))
    infer(graph)
    arrays = {
        "a": np.zeros((9, 5, 4), np.float32),
        "b": np.zeros((9, 7, 5), np.float32),
        "c": np.zeros((9, 6), np.float32),
    }
    samples, _ = runnable(graph, arrays, graph, Context(TargetFacts("onnx")))
    assert len(tell_apart(graph, samples)) == 1
    assert [v.shape for v in graph.inputs] == [("N", "d", 4), ("N", "d_3", "d"), ("N", "d_2")]
    assert sizes(graph, samples) == {"N": 1, "d": 5, "d_3": 7, "d_2": 6}
