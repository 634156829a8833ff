"""Sessions: any value as an output, in the order asked for, and refusals in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from optc.errors import TargetError
from optc.ir.graph import Graph, Value
from optc.ir.types import DType, TensorType
from optc.runtime import session as module
from optc.runtime.session import Session


def chain() -> tuple[Graph, list[Value]]:
    graph = Graph("chain", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    two = graph.constant(np.full(4, 2, np.float32), "two")
    a = graph.add("Mul", [x, two]).output
    b = graph.add("Relu", [a]).output
    c = graph.add("Neg", [b]).output
    graph.add_output(c, "y", TensorType(DType.FLOAT, ("N", 4)))
    return graph, [x, two, a, b, c]


X = np.array([[1, -2, 3, -4]], np.float32)


@pytest.mark.parametrize("optimise", [True, False])
def test_runs_the_outputs(optimise: bool) -> None:
    graph, _ = chain()
    (y,) = Session(graph, optimise=optimise, threads=1).run({"x": X})
    np.testing.assert_array_equal(y, [[-2, 0, -6, 0]])


def test_any_value_is_an_output_in_any_order_and_twice() -> None:
    graph, (x, two, a, b, c) = chain()
    arrays = Session(graph, outputs=[c, x, b, a, two, b], threads=1).run({"x": X})
    want = [[[-2, 0, -6, 0]], X, [[2, 0, 6, 0]], [[2, -4, 6, -8]], [2, 2, 2, 2], [[2, 0, 6, 0]]]
    for got, expected in zip(arrays, want, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert [o.name for o in graph.outputs] == ["y"]
    assert len(graph) == 3


def test_outputs_must_be_the_graphs_own() -> None:
    graph, _ = chain()
    _, (_, _, foreign, _, _) = chain()
    with pytest.raises(ValueError, match="is not one of graph 'chain'"):
        Session(graph, outputs=[foreign])


def test_out_of_date_shapes_do_no_harm() -> None:
    graph, (_, _, a, _, _) = chain()
    a.type = TensorType(DType.FLOAT, ("N", 9))
    (array,) = Session(graph, outputs=[a], threads=1).run({"x": X})
    assert array.shape == (1, 4)


def test_a_session_is_the_graph_as_it_was() -> None:
    graph, (x, _, a, _, _) = chain()
    session = Session(graph, outputs=[a], threads=1)
    assert a.producer is not None
    a.producer.set_input(1, x)
    np.testing.assert_array_equal(session.run({"x": X})[0], 2 * X)


def test_large_models_go_through_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INLINE_LIMIT", 8)
    graph, _ = chain()
    np.testing.assert_array_equal(Session(graph, threads=1).run({"x": X})[0], [[-2, 0, -6, 0]])


def test_a_file_runs_as_it_stands(tmp_path: Path) -> None:
    from optc.ir.onnx.writer import save

    graph, _ = chain()
    save(graph, tmp_path / "m.onnx")
    session = Session.open(tmp_path / "m.onnx", threads=1)
    np.testing.assert_array_equal(session.run({"x": X})[0], [[-2, 0, -6, 0]])
    assert [o.name for o in session.graph.outputs] == ["y"]


def test_random_nodes_follow_the_seed() -> None:
    graph = Graph("random", opsets={"": 17})
    node = graph.add("RandomNormal", [], {"shape": [8]})
    graph.add_output(node.output, "y", TensorType(DType.FLOAT, (8,)))
    first, again, other = (Session(graph, threads=1, seed=s).run({})[0] for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_refusals_name_the_cause_in_one_line() -> None:
    graph = Graph("bad", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    node = graph.add("NoSuchOperator", [x], name="here")
    graph.add_output(node.output, "y", TensorType(DType.FLOAT, None))
    with pytest.raises(TargetError, match=r"does not take graph 'bad'.*NoSuchOperator") as caught:
        Session(graph)
    assert "\n" not in str(caught.value)
    good, _ = chain()
    with pytest.raises(TargetError, match="running graph 'chain' failed") as caught:
        Session(good, threads=1).run({"x": np.zeros((1, 5), np.float32)})
    assert "\n" not in str(caught.value)
    with pytest.raises(TargetError, match="running graph 'chain' failed"):
        Session(good, threads=1).run({"z": X})


def test_exact_sessions_compute_what_the_codes_say() -> None:
    """Pairs of products of large codes need more than 16 bits, which integer kernels of some machines do not have."""
    graph = Graph("codes", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 64)))
    one, zero = graph.constant(np.float32(1)), graph.constant(np.uint8(0))
    weight, none = graph.constant(np.full((64, 8), 127, np.int8)), graph.constant(np.int8(0))
    codes = graph.add("QuantizeLinear", [x, one, zero]).output
    read = graph.add("DequantizeLinear", [codes, one, zero]).output
    product = graph.add("MatMul", [read, graph.add("DequantizeLinear", [weight, one, none]).output]).output
    step = graph.constant(np.float32(64 * 127))
    coded = graph.add("QuantizeLinear", [product, step, zero]).output
    graph.add_output(graph.add("DequantizeLinear", [coded, step, zero]).output, "y")
    (y,) = Session(graph, threads=1, exact=True).run({"x": np.full((3, 64), 255, np.float32)})
    np.testing.assert_array_equal(y, np.full((3, 8), 255 * 64 * 127, np.float32))
