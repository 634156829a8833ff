"""Sizes that the model leaves open: one library answers for all of them, as ONNX Runtime does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import interpreted
import numpy as np
import pytest

import optc
from optc.errors import TargetError
from optc.ir.graph import Graph, Value
from optc.ir.types import Dim, DType, TensorType
from optc.runtime.session import Runnable, Session
from optc.targets import table
from optc.targets.tvm.cpu.machines import host

SIZES = [(2, 5), (4, 8), (1, 3)]
END = 2**63 - 1
RNG = np.random.default_rng(0)


class Net:
    """A graph whose input `x` is (N, T, *rest), and the operators that these tests are made of."""

    def __init__(self, *rest: Dim, dtype: DType = DType.FLOAT) -> None:
        self.graph = Graph("net", opsets={"": 17})
        self.x = self.graph.add_input("x", TensorType(dtype, ("N", "T", *rest)))

    def add(self, op: str, *inputs: Value, **attributes: int | str | Sequence[int]) -> Value:
        return self.graph.add(op, inputs, attributes).output

    def ints(self, *numbers: int) -> Value:
        return self.graph.constant(np.array(numbers, np.int64))

    def number(self, number: int) -> Value:
        return self.graph.constant(np.array(number, np.int64))

    def size(self, axis: int) -> Value:
        """The size of an axis of `x`, a tensor of rank 0."""
        return self.add("Gather", self.add("Shape", self.x), self.number(axis))

    def sizes(self, first: int, last: int) -> Value:
        return self.add("Slice", self.add("Shape", self.x), self.ints(first), self.ints(last))

    def floats(self, value: Value) -> Value:
        return self.add("Cast", value, to=int(DType.FLOAT))


def positions() -> Value:
    net = Net()
    return net.add("Add", net.x, net.floats(net.add("Range", net.number(0), net.size(1), net.number(1))))


def every_other() -> Value:
    net = Net()
    return net.floats(net.add("Range", net.number(1), net.size(1), net.number(2)))


def tiled() -> Value:
    """A token of class in front of each sequence, as many times as there are sequences."""
    net = Net(4)
    times = net.add("Concat", net.sizes(0, 1), net.ints(1, 1), axis=0)
    token = net.graph.constant(RNG.standard_normal((1, 1, 4)).astype(np.float32))
    return net.add("Concat", net.add("Tile", token, times), net.x, axis=1)


def expanded() -> Value:
    net = Net(4)
    sizes = net.add("Concat", net.sizes(0, 1), net.ints(1, 4), axis=0)
    token = net.graph.constant(RNG.standard_normal((1, 1, 4)).astype(np.float32))
    return net.add("Concat", net.add("Expand", token, sizes), net.x, axis=1)


def one_hot(axis: int) -> Value:
    net = Net(dtype=DType.INT64)
    return net.add("OneHot", net.x, net.number(5), net.graph.constant(np.array([0, 2], np.float32)), axis=axis)


def one_hot_as_deep_as_long() -> Value:
    net = Net(dtype=DType.INT64)
    return net.add("OneHot", net.x, net.size(1), net.graph.constant(np.array([0, 2], np.float32)))


def causal() -> Value:
    net = Net()
    length = net.sizes(1, 2)
    ones = net.add("Expand", net.floats(net.number(1)), net.add("Concat", length, length, axis=0))
    return net.add("MatMul", net.x, net.add("Trilu", ones, upper=0))


def differences() -> Value:
    """Two values of one size that TVM writes in two ways."""
    net = Net()
    later = net.add("Slice", net.x, net.ints(1), net.ints(END), net.ints(1))
    return net.add("Sub", later, net.add("Slice", net.x, net.ints(0), net.ints(-1), net.ints(1)))


def all_of_the_batch() -> Value:
    """A slice of a whole axis, as exporters of NHWC models write it, between what is fused."""
    net = Net(4)
    whole = net.add("Slice", net.x, net.ints(0, 1), net.ints(2**31 - 1, 3), net.ints(0, 1), net.ints(1, 1))
    return net.add("Relu", net.add("Transpose", net.add("Mul", whole, whole), perm=[0, 2, 1]))


def recurrent(op: str, gates: int, direction: str) -> Value:
    """A cell over four steps of an open number of sequences, which start from states of theirs."""
    net, count = Net(), 2 if direction == "bidirectional" else 1
    weights = [RNG.standard_normal((count, 5 * gates, size)).astype(np.float32) for size in (3, 5)]
    steps = net.graph.add_input("steps", TensorType(DType.FLOAT, (4, "N", 3)))
    operands = [steps, *map(net.graph.constant, weights)]
    graph = net.graph
    cell = graph.add(op, operands, {"hidden_size": 5, "direction": direction}, outputs=["all", "last"])
    graph.add_output(cell.outputs[1], "last")
    return net.add(
        "Concat", net.add("Flatten", cell.outputs[0], axis=3), net.add("Flatten", cell.outputs[1], axis=2), axis=0
    )


def walked(op: str, gates: int, direction: str, *, layout: int = 0, **attributes: int) -> Value:
    """A cell with biases over an open number of steps of an open number of sequences, from states of their own."""
    net, count = Net(3), 2 if direction == "bidirectional" else 1
    shapes = [(count, 5 * gates, 3), (count, 5 * gates, 5), (count, 10 * gates)]
    weights = [net.graph.constant(RNG.standard_normal(shape).astype(np.float32)) for shape in shapes]
    first: tuple[Dim, ...] = ("N", count, 5) if layout else (count, "T", 5)
    states = [net.graph.add_input(f"state{k}", TensorType(DType.FLOAT, first)) for k in range(2 if op == "LSTM" else 1)]
    options = {"hidden_size": 5, "direction": direction, "layout": layout, **attributes}
    cell = net.graph.add(op, [net.x, *weights, None, *states], options, outputs=["all", "last"])
    net.graph.add_output(cell.outputs[1], "last")
    return cell.outputs[0]


def run(result: Value) -> None:
    """Hold what one program answers to inputs of several sizes against ONNX Runtime's."""
    graph = result.graph
    assert graph is not None
    graph.add_output(result, "y")
    program = interpreted.build(graph, host("x86-64-v3"))
    for n, t in SIZES:
        feeds = {}
        for value in graph.inputs:
            shape = [{"N": n, "T": t}[one] if isinstance(one, str) else one for one in value.shape or ()]
            assert value.dtype is not None
            drawn = RNG.standard_normal(shape) if value.dtype is DType.FLOAT else RNG.integers(-2, 7, shape)
            feeds[value.name] = drawn.astype(value.dtype.numpy)
        right = Session(graph).run(feeds)
        for one, other in zip(right, interpreted.run(program, list(feeds.values())), strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "network",
    [
        positions,
        every_other,
        tiled,
        expanded,
        lambda: one_hot(-1),
        lambda: one_hot(0),
        one_hot_as_deep_as_long,
        causal,
        differences,
        all_of_the_batch,
    ],
)
def test_it_answers_for_every_size(network: Callable[[], Value]) -> None:
    run(network())


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_cells_take_any_number_of_sequences(op: str, gates: int, direction: str) -> None:
    run(recurrent(op, gates, direction))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_cells_take_any_number_of_steps(op: str, gates: int, direction: str) -> None:
    run(walked(op, gates, direction))


def test_cells_that_reset_after_the_product_take_any_number_of_steps() -> None:
    run(walked("GRU", 3, "reverse", linear_before_reset=1))


def test_cells_of_other_forms_are_refused_by_name() -> None:
    result = walked("LSTM", 4, "forward", input_forget=1)
    assert result.graph is not None
    result.graph.add_output(result, "y")
    with pytest.raises(
        TargetError, match="LSTM node 'all' cannot be compiled: of LSTM, targets of TVM take at most 512"
    ):
        table.one("host").check_inputs(result.graph)


def test_what_tvm_cannot_fuse_is_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    from tvm import relax

    def fails() -> object:
        raise AssertionError("Inconsistent buffers a and b mapped to the same relax var")

    monkeypatch.setattr(relax.transform, "FuseTIR", fails)
    run(all_of_the_batch())


def built(result: Value, folder: Path) -> tuple[Runnable, Session]:
    """A library of what gives `result`, and ONNX Runtime on the same."""
    assert result.graph is not None
    result.graph.add_output(result, "y")
    out = folder / "net.tar"
    optc.compile(result.graph, "clean", target="host", output=out, check=False)
    return table.one("host").open(str(out)), Session(result.graph)


@pytest.mark.slow
def test_inputs_without_elements_are_refused_where_sizes_would_be_negative(tmp_path: Path) -> None:
    library, _ = built(differences(), tmp_path)
    x = RNG.standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(library.run({"x": x})[0], x[:, 1:] - x[:, :-1])
    with pytest.raises(TargetError, match="input 'x' has no elements on axis 1"):
        library.run({"x": x[:, :0]})


def placed() -> Value:
    """Places of at most six words, as many as there are."""
    net = Net(4)
    places = net.graph.constant(RNG.standard_normal((1, 6, 4)).astype(np.float32))
    some = net.add("Slice", places, net.ints(0), net.sizes(1, 2), net.ints(1))
    words = net.add("LayerNormalization", net.add("Add", net.x, some), net.graph.constant(np.ones(4, np.float32)))
    weights = net.graph.constant(RNG.standard_normal((4, 3)).astype(np.float32))
    return net.add("MatMul", words, weights)


@pytest.mark.slow
def test_a_size_that_is_bounded_is_that_of_what_it_is_added_to(tmp_path: Path) -> None:
    library, session = built(placed(), tmp_path)
    for size in (1, 2, 6):
        x = RNG.standard_normal((2, size, 4)).astype(np.float32)
        np.testing.assert_allclose(library.run({"x": x})[0], session.run({"x": x})[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(TargetError, match=r"operand 2 of Add node '.*' has another size on axis 1 than the rest"):
        library.run({"x": RNG.standard_normal((2, 7, 4)).astype(np.float32)})
