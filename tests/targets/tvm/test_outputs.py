"""Outputs are what the graph makes, whatever makes them: results of one kernel, inputs, constants, views, one twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from interpreted import build, run

from optc.errors import TargetError
from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.runtime.session import Session
from optc.targets import table

from .test_library import build as build_library
from .test_library import need

pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")


def graph_of(*inputs: tuple[str, DType, tuple[int | str, ...]]) -> tuple[Graph, list[Value]]:
    graph = Graph("outputs", opsets={"": 17})
    return graph, [graph.add_input(name, TensorType(dtype, shape)) for name, dtype, shape in inputs]


def check(graph: Graph, feeds: dict[str, np.ndarray], *values: Value) -> None:
    from optc.targets.tvm.cpu.machines import host

    for index, value in enumerate(values):
        graph.add_output(value, f"y{index}")
    infer(graph)
    want = Session(graph, threads=1, optimise=False).run(feeds)
    got = run(build(graph, host("x86-64-v3")), [feeds[value.name] for value in graph.inputs])
    for one, other in zip(got, want, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.allclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_results_of_one_kernel_outlive_what_follows() -> None:
    graph, (x,) = graph_of(("x", DType.FLOAT, (1, 6, 4, 4)))
    parts = graph.add("Split", [x, graph.constant(np.array([1, 2, 3]))], {"axis": 1}, outputs=["a", "b", "c"])
    y = x
    for _ in range(4):
        y = graph.add("Tanh", [graph.add("Softmax", [y], {"axis": 1}).output]).output
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 6, 4, 4)).astype(np.float32)}
    check(graph, feeds, parts.outputs[0], y, parts.outputs[2], parts.outputs[1])


def test_an_input_a_constant_a_view_and_one_value_twice() -> None:
    graph, (x,) = graph_of(("x", DType.FLOAT, (2, 6)))
    twice = graph.add("Exp", [x]).output
    view = graph.add("Reshape", [twice, graph.constant(np.array([3, 4]))]).output
    fixed = graph.constant(np.arange(4, dtype=np.int64) + 2**40)
    later = graph.add("Add", [graph.add("Softmax", [view], {"axis": 0}).output, view]).output
    same = graph.add("Identity", [x]).output
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)}
    check(graph, feeds, twice, view, later, twice, fixed, same, x)


def test_types_are_those_declared() -> None:
    graph, (x, i) = graph_of(("x", DType.DOUBLE, ("n", 4)), ("i", DType.INT64, ("n", 4)))
    far = graph.add("Add", [i, graph.constant(np.array(2**40))]).output
    fine = graph.add("Mul", [x, graph.constant(np.array([1 / 3, 1e-12, 1, 2]))]).output
    product = graph.add("MatMul", [fine, graph.constant(np.eye(4) + 1e-10)]).output
    most = graph.add("ArgMax", [x], {"axis": 1}).output
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 4)), "i": np.arange(12).reshape(3, 4)}
    check(graph, feeds, far, fine, product, most)


def test_a_run_fails_where_its_operands_ask_for_other_sizes() -> None:
    from optc.targets.tvm.cpu.machines import host

    graph, (x, axes) = graph_of(("x", DType.FLOAT, (3, 2, 2)), ("axes", DType.INT64, (1,)))
    node = graph.add("ReduceSum", [x, axes], {"keepdims": 0}, types=[TensorType(DType.FLOAT, (3, 2))])
    graph.opsets[""] = 18
    graph.add_output(node.output, "y", TensorType(DType.FLOAT, (3, 2)))
    program = build(graph, host("x86-64-v3"))
    data = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    for axis in (1, 2, -1):
        assert np.array_equal(run(program, [data, np.array([axis])])[0], data.sum(axis))
    with pytest.raises(TargetError, match="ReduceSum node"):
        run(program, [data, np.array([0])])


@pytest.mark.parametrize("dtype", [DType.BFLOAT16, DType.FLOAT8E4M3FN, DType.FLOAT8E5M2])
def test_a_library_gives_and_takes_types_that_numpy_lacks(dtype: DType, tmp_path: Path) -> None:
    need("host")
    graph, (x, y) = graph_of(("x", DType.FLOAT, (2, 3)), ("y", dtype, (2, 3)))
    graph.opsets[""] = 19
    graph.add_output(graph.add("Cast", [x], {"to": int(dtype)}).output, "narrow")
    graph.add_output(graph.add("Cast", [y], {"to": 1}).output, "wide")
    infer(graph)
    data = np.array([[0, 1, 2.3], [-1.7, 0.01, 300]], np.float32)
    build_library(graph, "host", tmp_path / "a.tar")
    narrow, wide = (
        table.parse("host")[0].open(str(tmp_path / "a.tar"), threads=1).run({"x": data, "y": data.astype(dtype.numpy)})
    )
    assert narrow.dtype == dtype.numpy
    assert np.array_equal(narrow.astype(np.float32), data.astype(dtype.numpy).astype(np.float32))
    assert np.array_equal(wide, data.astype(dtype.numpy).astype(np.float32))
