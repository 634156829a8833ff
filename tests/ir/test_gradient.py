"""Differentiation as a whole: what is visited, summed, frozen and refused."""

from __future__ import annotations

import numpy as np
import pytest
from gradients import reference, runtime

import optc
from optc.errors import ModelError
from optc.ir.gradient.differentiate import differentiate
from optc.ir.graph import Graph, Value
from optc.ir.text.dump import dump
from optc.ir.types import DType, TensorType
from optc.ir.verify.verify import verify
from optc.models import zoo


def linear(op: str = "Tanh", domain: str = "") -> tuple[Graph, Value, Value, Value]:
    """x [N, 4] @ first -> an operator -> @ second, summed to a scalar."""
    random = np.random.default_rng(0)
    graph = Graph("g", opsets={"": 17, "own": 1, "com.microsoft": 1})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    first = graph.constant(random.standard_normal((4, 3)).astype(np.float32), "first")
    second = graph.constant(random.standard_normal((3, 2)).astype(np.float32), "second")
    shape = TensorType(DType.FLOAT, ("N", 3))
    hidden = graph.add(op, [graph.add("MatMul", [x, first]).output], domain=domain, name="middle", types=[shape])
    loss = graph.add("ReduceSum", [graph.add("MatMul", [hidden.output, second]).output], {"keepdims": 0}).output
    graph.add_output(loss, "loss", TensorType(DType.FLOAT, ()))
    return graph, first, second, loss


def returning(graph: Graph, *values: Value) -> Graph:
    while graph.outputs:
        graph.remove_output(len(graph.outputs) - 1)
    for i, value in enumerate(values):
        graph.add_output(value, f"out{i}", TensorType(DType.FLOAT))
    return graph


def test_the_public_name() -> None:
    assert optc.differentiate is differentiate


def test_a_scalar_loss_needs_no_seed_and_the_graph_stays_valid() -> None:
    graph, first, second, loss = linear()
    gradients = differentiate(graph, {loss: None}, [first, second])
    assert set(gradients.of) == {first, second}
    assert not gradients.frozen
    verify(graph)
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    by_first, by_second = runtime(returning(graph, gradients[first], gradients[second]), {"x": x})
    w, v = first.numpy(), second.numpy()
    assert w is not None
    assert v is not None
    hidden = np.tanh(x @ w)
    np.testing.assert_allclose(by_second, hidden.T @ np.ones((5, 2)), rtol=1e-5)
    np.testing.assert_allclose(by_first, x.T @ ((np.ones((5, 2)) @ v.T) * (1 - hidden**2)), rtol=1e-4, atol=1e-6)


def test_what_no_parameter_needs_is_not_built() -> None:
    graph, _, second, loss = linear()
    before = len(graph)
    differentiate(graph, {loss: None}, [second])
    added = list(graph)[before:]
    assert {node.op for node in added} <= {"Expand", "Unsqueeze", "Gemm", "Shape"}, [node.op for node in added]
    assert all(v.uses for v in graph.constants)


def test_gradients_that_meet_are_summed_once() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (3,)))
    parts = [graph.add(op, [x]).output for op in ("Tanh", "Sigmoid", "Exp")]
    total = graph.add("Sum", parts).output
    graph.add_output(total, "y", TensorType(DType.FLOAT, (3,)))
    gradients = differentiate(graph, {total: None}, [x])
    assert [node.op for node in graph].count("Add") == 2
    (slope,) = reference(returning(graph, gradients[x]), {"x": np.array([0.1, -0.5, 2.0], np.float32)})
    at = np.array([0.1, -0.5, 2.0])
    sigmoid = 1 / (1 + np.exp(-at))
    np.testing.assert_allclose(slope, 1 - np.tanh(at) ** 2 + sigmoid * (1 - sigmoid) + np.exp(at), rtol=1e-5)


def test_the_same_graph_gives_the_same_text() -> None:
    texts = []
    for _ in range(2):
        graph = zoo.load("digits_resnet")
        weights = [v for v in graph.constants if v.dtype is DType.FLOAT]
        differentiate(graph, {graph.outputs[0].value: None}, weights)
        texts.append(dump(graph))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(("op", "domain"), [("Strange", "own"), ("Hardmax", "")])
def test_what_lies_before_an_operator_without_a_rule_is_frozen_and_named(op: str, domain: str) -> None:
    graph, first, second, loss = linear(op, domain)
    gradients = differentiate(graph, {loss: None}, [first, second])
    assert set(gradients.of) == {second}
    (frozen,) = gradients.frozen
    assert (frozen.node.name, frozen.values, frozen.parameters) == ("middle", (first,), 12)
    assert f"{op} 'middle'" in str(frozen)
    assert "12 parameters" in str(frozen)


def test_a_way_around_does_not_make_half_a_gradient() -> None:
    graph = Graph("g", opsets={"": 17, "own": 1})
    x = graph.add_input("x", TensorType(DType.FLOAT, (3,)))
    w = graph.constant(np.ones(3, np.float32), "w")
    v = graph.constant(np.ones(3, np.float32), "v")
    scaled = graph.add("Mul", [x, w]).output
    strange = graph.add("Strange", [scaled], domain="own", types=[TensorType(DType.FLOAT, (3,))]).output
    total = graph.add("Add", [scaled, graph.add("Mul", [strange, v]).output]).output
    gradients = differentiate(graph, {total: None}, [w, v])
    assert set(gradients.of) == {v}
    assert gradients.frozen[0].values == (w,)


def test_nothing_left_to_train_is_an_error() -> None:
    graph, first, _, loss = linear("Strange", "own")
    with pytest.raises(ModelError, match="Strange 'middle'"):
        differentiate(graph, {loss: None}, [first])
    graph, first, _, loss = linear()
    other = graph.constant(np.ones(3, np.float32), "other")
    with pytest.raises(ModelError, match="depend on none"):
        differentiate(graph, {loss: None}, [other])


def test_values_of_another_graph_and_old_opsets_are_refused() -> None:
    graph, first, _, loss = linear()
    _, stranger, _, _ = linear()
    with pytest.raises(ModelError, match="'first' is not one of graph"):
        differentiate(graph, {loss: None}, [stranger])
    graph.opsets[""] = 9
    with pytest.raises(ModelError, match="opset 9"):
        differentiate(graph, {loss: None}, [first])


def test_integers_pass_nothing_on() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (4, 2)))
    place = graph.add("ArgMax", [x], {"axis": 0, "keepdims": 0}).output
    rows = graph.add("Gather", [x, place]).output
    total = graph.add("ReduceSum", [rows], {"keepdims": 0}).output
    gradients = differentiate(graph, {total: None}, [x])
    data = np.arange(8, dtype=np.float32).reshape(4, 2)
    (slope,) = runtime(returning(graph, gradients[x]), {"x": data})
    np.testing.assert_array_equal(slope, [[0, 0], [0, 0], [0, 0], [2, 2]])


@pytest.mark.parametrize(
    ("op", "at", "slope"),
    [
        ("Relu", 0.0, 0.0),
        ("HardSwish", 3.0, 1.0),
        ("HardSwish", -3.0, 0.0),
        ("LeakyRelu", 0.0, 0.01),
        ("Round", 0.4, 1.0),
    ],
)
def test_conventions_at_kinks(op: str, at: float, slope: float) -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1,)))
    y = graph.add(op, [x]).output
    gradients = differentiate(graph, {y: None}, [x])
    (answer,) = runtime(returning(graph, gradients[x]), {"x": np.array([at], np.float32)})
    assert answer[0] == pytest.approx(slope)


def test_clip_passes_at_its_bounds() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (5,)))
    bounds = [graph.constant(np.float32(b)) for b in (0.0, 6.0)]
    y = graph.add("Clip", [x, *bounds]).output
    gradients = differentiate(graph, {y: None}, [x])
    data = np.array([-1, 0, 3, 6, 7], np.float32)
    (answer,) = runtime(returning(graph, gradients[x]), {"x": data})
    np.testing.assert_array_equal(answer, [0, 1, 1, 1, 0])


@pytest.mark.parametrize("bounds", [(0.0, 6.0), (None, 6.0), (-1.0, None)])
def test_a_clip_behind_a_convolution_is_told_from_its_result_alone(bounds: tuple[float | None, float | None]) -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 1, 4)))
    weight = graph.constant(np.ones((1, 1, 1), np.float32))
    summed = graph.add("Conv", [x, weight]).output
    y = graph.add("Clip", [summed, *(None if b is None else graph.constant(np.float32(b)) for b in bounds)]).output
    gradients = differentiate(graph, {y: None}, [x])
    assert [node.op for node in summed.users] == ["Clip"], "what a runtime does not fuse is kept for the gradient"
    data = np.array([[[-5, 1, 5, 8]]], np.float32)
    (answer,) = runtime(returning(graph, gradients[x]), {"x": data})
    low, high = (-np.inf if bounds[0] is None else bounds[0]), (np.inf if bounds[1] is None else bounds[1])
    np.testing.assert_array_equal(answer, (data > low) & (data < high))


def test_the_first_maximum_takes_all() -> None:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 1, 4)))
    y = graph.add("MaxPool", [x], {"kernel_shape": [3]}).output
    gradients = differentiate(graph, {y: None}, [x])
    (answer,) = runtime(returning(graph, gradients[x]), {"x": np.array([[[1, 2, 2, 2]]], np.float32)})
    np.testing.assert_array_equal(answer, [[[0, 2, 0, 0]]])
