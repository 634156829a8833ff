"""HardSigmoid, HardSwish and SiLU on quantized values: right, saturating, and in integer kernels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from quantized import quantized

from optc.ir.graph import Graph, Node, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.quant import Quant
from optc.passes.quant.equivalent.gates import spell_gates
from optc.passes.quant.read.decode import decode
from optc.runtime.islands import islands, optimised
from optc.runtime.session import Session

MAP = TensorType(DType.FLOAT, ("N", 8, 6, 6))


def hard_sigmoid(graph: Graph, x: Value, alpha: float = 1 / 6, beta: float = 0.5) -> Value:
    return graph.add("HardSigmoid", [x], {"alpha": alpha, "beta": beta}, name="gate").output


def hard_swish(graph: Graph, x: Value) -> Value:
    return graph.add("HardSwish", [x], name="gate").output


def silu(graph: Graph, x: Value) -> Value:
    return graph.add("Mul", [x, graph.add("Sigmoid", [x]).output]).output


def squeeze_and_excite(graph: Graph, x: Value) -> Value:
    pooled = graph.add("GlobalAveragePool", [x]).output
    weight = np.random.default_rng(2).normal(size=(8, 8, 1, 1)).astype(np.float32)
    excited = graph.add("Conv", [pooled, graph.constant(weight)], name="excite").output
    return graph.add("Mul", [x, hard_sigmoid(graph, excited)]).output


def feature_pyramid(graph: Graph, x: Value) -> Value:
    """A coarse map, enlarged as exporters write it, with an empty constant for the region that it does not crop."""
    weight = np.random.default_rng(4).normal(size=(8, 8, 1, 1)).astype(np.float32) / 3
    coarse = graph.add("Conv", [x, graph.constant(weight)], {"strides": [2, 2]}, name="coarse").output
    empty, scales = graph.constant(np.zeros(0, np.float32)), graph.constant(np.array([1, 1, 2, 2], np.float32))
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    enlarged = graph.add("Resize", [hard_swish(graph, coarse), empty, scales], nearest).output
    fine = graph.add("Add", [x, enlarged]).output
    return graph.add("Concat", [fine, enlarged], {"axis": 1}).output


def network(activation: object, scale: float = 4.0, opset: int = 17, width: int = 8) -> Graph:
    """x -> 1x1 Conv -> activation -> 1x1 Conv -> y. The first answers far to both sides of the ramp."""
    rng = np.random.default_rng(3)
    graph = Graph("g", opsets={"": opset})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4, 6, 6)))
    first = graph.constant((scale * rng.standard_normal((8, 4, 1, 1))).astype(np.float32))
    y = activation(graph, graph.add("Conv", [x, first], name="first").output)  # type: ignore[operator]
    width = 16 if activation is feature_pyramid else width
    second = graph.constant((rng.standard_normal((8, width, 1, 1)) / 3).astype(np.float32))
    graph.add_output(graph.add("Conv", [y, second], name="second").output, "y", MAP)
    infer(graph)
    return graph


def samples() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(48, 4, 6, 6)).astype(np.float32)}


@pytest.mark.parametrize("activation", [hard_sigmoid, hard_swish, silu, squeeze_and_excite, feature_pyramid])
@pytest.mark.parametrize("dtype", [DType.UINT8, DType.INT8])
def test_gates_answer_right_and_leave_no_islands(activation: object, dtype: DType) -> None:
    graph = network(activation)
    floats = Session(graph, threads=1).run(samples())[0]
    quantized(graph, samples(), activation_dtype=dtype)
    error = Session(graph, threads=1).run(samples())[0] - floats
    assert 10 * np.log10(floats.var() / error.var()) > 28
    # Here the runtime turns signed values into unsigned ones, as x86 wants them, but for those of constants.
    assert dtype is DType.INT8 or islands(graph) == ()


def test_a_hard_sigmoid_reads_the_codes_of_its_input() -> None:
    """The answer is on the grid of the input: to the rounding of floats, it is that of the quantized input."""
    graph = network(hard_sigmoid)
    quantized(graph, samples())
    ops = Counter(node.op_type for node in optimised(graph).node)
    assert (ops["Clip"], ops["QLinearAdd"], ops["HardSigmoid"]) == (1, 0, 0)
    codes, gate = gate_and_its_codes(graph)
    steps = codes.inputs[1].numpy(), codes.inputs[2].numpy()
    read, answer = Session(graph, outputs=[codes.output, gate.output], threads=1).run(samples())
    expected = np.clip((read.astype(np.float32) - steps[1]) * steps[0] / 6 + 0.5, 0, 1)
    np.testing.assert_allclose(answer, expected, atol=1e-6)
    assert (answer.min(), answer.max()) == (0, pytest.approx(1, abs=1e-6))


def gate_and_its_codes(graph: Graph) -> tuple[Node, Node]:
    """The QuantizeLinear of what a gate reads, and the DequantizeLinear of the gate."""
    (cut,) = (node for node in graph if node.op == "Clip")
    (gate,) = cut.output.users
    return cut.inputs[0].producer, gate


@pytest.mark.parametrize("activation", [hard_sigmoid, hard_swish])
def test_a_ramp_that_the_input_does_not_reach_down_to_is_one_integer_sum(activation: object) -> None:
    """A grid down to -3 would be half as fine again."""
    graph = network(activation, scale=0.2)
    floats = Session(graph, threads=1).run(samples())[0]
    quantized(graph, samples(), Quant(slower="int8", range="minmax"))
    ops = Counter(node.op_type for node in optimised(graph).node)
    assert (ops["Clip"], ops["QLinearAdd"], ops["HardSigmoid"]) == (0, 1, 0)
    error = Session(graph, threads=1).run(samples())[0] - floats
    assert 10 * np.log10(floats.var() / error.var()) > 28


def test_a_gate_that_is_concatenated_shares_a_grid_with_others() -> None:
    def both(graph: Graph, x: Value) -> Value:
        return graph.add("Concat", [hard_sigmoid(graph, x), x], {"axis": 1}).output

    graph = network(both, width=16)
    floats = Session(graph, threads=1).run(samples())[0]
    quantized(graph, samples())
    error = Session(graph, threads=1).run(samples())[0] - floats
    assert 10 * np.log10(floats.var() / error.var()) > 28
    assert islands(graph) == ()


@pytest.mark.parametrize("scale", [0.2, 4.0])
@pytest.mark.parametrize("activation", [hard_sigmoid, hard_swish])
def test_gates_are_read_back_into_floats(activation: object, scale: float) -> None:
    """Codes that are read by other parameters than they were made by stand for other numbers."""
    graph = network(activation, scale)
    quantized(graph, samples(), Quant(slower="int8", range="minmax"))
    codes = Session(graph, threads=1).run(samples())[0]
    decode(graph)
    infer(graph)
    assert not any("Quantize" in node.op for node in graph)
    error = Session(graph, threads=1).run(samples())[0] - codes
    assert 10 * np.log10(codes.var() / error.var()) > 28


@pytest.mark.parametrize(
    ("alpha", "beta"), [(0.2, 0.5), (1.5, -0.25), (0.05, 0.0), (0.2, 2.0), (0.0, 0.5), (-0.2, 0.5)]
)
@pytest.mark.parametrize("symmetric", [False, True])
def test_every_ramp_is_right(alpha: float, beta: float, symmetric: bool) -> None:
    """To half a step of what it reads and half a step of what it answers, also where it does not rise, and on grids
    whose ends are not its own."""
    graph = network(lambda graph, x: hard_sigmoid(graph, x, alpha, beta))
    first, gate = (next(node for node in graph if node.op == op) for op in ("Conv", "HardSigmoid"))
    graph.add_output(gate.output, "gate", MAP)
    floats, read = Session(graph, outputs=[gate.output, first.output], threads=1).run(samples())
    quantized(graph, samples(), Quant(slower="int8", range="minmax", symmetric=symmetric))
    wrong = np.abs(Session(graph, threads=1).run(samples())[1] - floats).max()
    steps = 2 * np.abs(read).max() / 254, (2 if symmetric else 1) / 254
    # Half a step more: the input is rounded, too, and so are the weights.
    assert wrong <= abs(alpha) * 2 * steps[0] + steps[1]


def test_activations_are_spelled_exactly() -> None:
    graph = network(hard_swish)
    copy = graph.clone()
    assert len(spell_gates(copy)) == 1
    assert [node.op for node in copy] == ["Conv", "HardSigmoid", "Mul", "Conv"]
    ours, theirs = (Session(one, threads=1).run(samples())[0] for one in (copy, graph))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_swish_of_another_slope_stays() -> None:
    graph = network(lambda graph, x: graph.add("Swish", [x], {"alpha": 1.5}, types=[MAP]).output, opset=24)
    assert not spell_gates(graph)


def test_one_that_is_kept_stays_float() -> None:
    graph = network(hard_swish)
    quantized(graph, samples(), Quant(slower="int8", keep="gate"))
    assert {island.op for island in islands(graph)} >= {"HardSigmoid"}
