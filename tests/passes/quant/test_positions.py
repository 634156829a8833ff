"""Tables of positions, which a Slice takes rows of, are stored as codes where they are embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from quantized import quantized, runtime_ops

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.quant import Quant
from optc.runtime.session import Session

RANDOM = np.random.default_rng(0)
ANGLES = np.arange(256)[:, None] / 100 ** (np.arange(32) / 32)
TABLE = np.sin(ANGLES).astype(np.float32)


def network(shape: tuple[int, ...], *, layer: bool = True, axis: int = -2) -> Graph:
    """x + the first rows of a table, then a product; without `layer` the sum is the answer."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", "T", 32)))
    table = graph.constant(TABLE.reshape(shape), "table")
    one = graph.constant(np.asarray([1], np.int64))
    length = graph.add("Gather", [graph.add("Shape", [x]).output, one]).output
    if axis == -1:
        length = graph.constant(np.asarray([32], np.int64))
    begin, axes = graph.constant(np.asarray([0], np.int64)), graph.constant(np.asarray([axis % len(shape)], np.int64))
    rows = graph.add("Slice", [table, begin, length, axes], name="positions").output
    y = (
        graph.add("Add", [x, rows]).output
        if axis != -1
        else graph.add("Mul", [x, graph.add("ReduceMean", [rows]).output]).output
    )
    if layer:
        y = graph.add("MatMul", [y, graph.constant(RANDOM.standard_normal((32, 16)).astype(np.float32))]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("N", "T", 16 if layer else 32)))
    infer(graph)
    return graph


def stored(graph: Graph) -> set[DType]:
    return {v.dtype for v in graph.constants if v.constant is not None and v.constant.size == TABLE.size and v.dtype}


@pytest.mark.parametrize("shape", [(256, 32), (1, 256, 32)])
@pytest.mark.parametrize("activations", ["int8", "none"])
def test_a_table_of_positions_is_stored_in_a_quarter(shape: tuple[int, ...], activations: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    graph = network(shape)
    feeds = {"x": RANDOM.standard_normal((48, 20, 32)).astype(np.float32)}
    before = Session(graph).run(feeds)[0]
    report = quantized(graph, feeds, Quant(slower="int8", activations=activations))  # type: ignore[arg-type]
    assert {"bits": 8, "form": "stored"}.items() <= next(
        x for x in report.layers if x.name == "positions"
    ).detail.items()
    assert stored(graph) == {DType.INT8}
    assert "Mul" not in runtime_ops(graph, tmp_path)
    off = Session(graph).run(feeds)[0] - before
    assert float(np.square(off).mean() / np.square(before).mean()) < 1e-3


@pytest.mark.parametrize("options", [{"layer": False}, {"axis": -1}])
def test_what_may_be_an_answer_itself_stays_float(options: dict[str, int]) -> None:
    graph = network((256, 32), **options)  # type: ignore[arg-type]
    quantized(graph, {"x": RANDOM.standard_normal((48, 20, 32)).astype(np.float32)}, Quant(activations="none"))
    assert stored(graph) == {DType.FLOAT}
