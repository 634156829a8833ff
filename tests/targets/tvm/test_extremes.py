"""Operators on NaN, infinities, negative zero, subnormal numbers and the ends of integers, alone and fused, against
ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from opencl import Array, need_driver, need_tvm

from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.runtime.session import Session

FLOATS = ("float32", "float16", "float64")
WIDE = ("int32", "int64", "uint32", "uint64")


def numbers(kind: str) -> Array:
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        ends = np.finfo(dtype)
        odd = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1, -1, 0.5, 2.5, -2.5, 3, -7.25, 100.25]
        return np.array([*odd, ends.tiny / 2, -ends.tiny / 2, ends.tiny, ends.eps, ends.max, ends.min], dtype)
    whole = np.iinfo(dtype)
    few = [whole.min, whole.min + 1, whole.max - 1, whole.max, 0, 1, 3, 7, 100, max(whole.min, -1), max(whole.min, -3)]
    return np.array(sorted(set(few)), dtype)


class Pairs:
    """Every pair of numbers of a type as the inputs of a graph of many outputs."""

    def __init__(self, kind: str) -> None:
        self.kind, self.graph = kind, Graph("pairs", opsets={"": 20})
        a, b = (np.ascontiguousarray(one.ravel()) for one in np.meshgrid(numbers(kind), numbers(kind), indexing="ij"))
        self.feeds = {"a": a, "b": b}
        declared = TensorType(DType.of(a.dtype), a.shape)
        self.a, self.b = self.graph.add_input("a", declared), self.graph.add_input("b", declared)

    def add(self, op: str, *inputs: Value, **attributes: object) -> Value:
        return self.graph.add(op, inputs, attributes).output  # type: ignore[arg-type]

    def number(self, value: float) -> Value:
        return self.graph.constant(np.array(value, self.kind))

    def give(self, name: str, value: Value) -> None:
        self.graph.add_output(self.add("Identity", value), name)


def logic(pairs: Pairs) -> None:
    for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        holds, turned = pairs.add(op, pairs.a, pairs.b), pairs.add(op, pairs.b, pairs.a)
        fails = pairs.add("Not", holds)
        pairs.give(op, holds)
        pairs.give(f"{op}-self", pairs.add(op, pairs.a, pairs.a))
        pairs.give(f"{op}-not", fails)
        pairs.give(f"{op}-not-not", pairs.add("Not", fails))
        pairs.give(f"{op}-where", pairs.add("Where", fails, pairs.a, pairs.b))
        pairs.give(f"{op}-or", pairs.add("Or", fails, turned))
        pairs.give(f"{op}-nor", pairs.add("Not", pairs.add("Or", fails, turned)))
        pairs.give(f"{op}-xor", pairs.add("Not", pairs.add("Xor", holds, turned)))
        pairs.give(f"{op}-cast", pairs.add("Cast", fails, to=int(DType.INT32)))


def chains(pairs: Pairs) -> None:
    a, b, add = pairs.a, pairs.b, pairs.add
    total, rest = add("Add", a, b), add("Sub", a, b)
    pairs.give("sum less a part", add("Sub", total, b))
    pairs.give("less the rest", add("Sub", a, rest))
    pairs.give("rest and part", add("Add", rest, b))
    pairs.give("nothing", add("Sub", a, a))
    pairs.give("sum is greater", add("Greater", total, a))
    pairs.give("rest is less", add("Less", rest, a))
    pairs.give("sum is part", add("Equal", total, b))
    pairs.give("larger", add("Max", total, a))
    pairs.give("least of largest", add("Min", add("Max", a, b), a))
    pairs.give("alone", add("Max", a))
    if pairs.kind not in ("uint32", "uint64"):
        pairs.give("size of rest", add("Abs", rest))


def constants(pairs: Pairs) -> None:
    a, add = pairs.a, pairs.add
    pairs.give("times itself less", add("Sub", add("Mul", a, pairs.b), add("Mul", pairs.b, a)))
    for name, value in (("zero", 0.0), ("nothing", -0.0), ("end", np.inf), ("none", np.nan), ("two", 2.0)):
        for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Less"):
            pairs.give(f"{op}-{name}", add(op, a, pairs.number(value)))
            pairs.give(f"{name}-{op}", add(op, pairs.number(value), a))


def alone(pairs: Pairs) -> None:
    a, add = pairs.a, pairs.add
    for op in ("Relu", "Elu", "Selu", "LeakyRelu", "HardSigmoid", "HardSwish", "ThresholdedRelu"):
        pairs.give(op, add(op, a))
    for op in ("Sign", "Celu") if pairs.kind == "float32" else ():  # of halves, ONNX Runtime has 0 as the sign of NaN
        pairs.give(op, add(op, a))
    for op in ("IsNaN", "Floor", "Round", "Tanh", "Erf", "Exp", "Abs"):
        pairs.give(op, add(op, a))
    pairs.give("Shrink", add("Shrink", a, lambd=1.0, bias=0.5))
    pairs.give("clipped", add("Clip", add("Sub", a, pairs.b), pairs.number(-1), pairs.number(2)))
    pairs.give("not NaN", add("Not", add("IsNaN", a)))
    pairs.give("true", add("Cast", a, to=int(DType.BOOL)))


def overflows(pairs: Pairs) -> None:
    a, add = pairs.a, pairs.add
    for name, value in (("two", 2), ("seven", 7), ("most", np.iinfo(pairs.kind).max)):
        number = pairs.graph.constant(np.array(value, pairs.kind))
        for op in ("Add", "Sub", "Mul", "Greater"):
            pairs.give(f"{op}-{name}", add(op, a, number))
            pairs.give(f"Add-{op}-{name}", add(op, add("Add", a, number), number))
        for op in ("Div", "Mod", "Less"):
            pairs.give(f"Mul-{op}-{name}", add(op, add("Mul", a, number), number))


CASES = [
    *((one, kind) for one in (logic, chains, constants, alone) for kind in FLOATS if (one, kind) != (alone, "float64")),
    *((one, kind) for one in (chains, overflows) for kind in WIDE),
]


def same(got: Sequence[Array], want: Sequence[Array], names: Sequence[str]) -> list[str]:
    """Where outputs differ."""
    differing = []
    for name, one, other in zip(names, got, want, strict=True):
        assert one.dtype == other.dtype, name
        rtol = {"float16": 2e-3, "float32": 3e-6}.get(str(one.dtype), 1e-12)
        near = np.isclose(one, other, rtol=rtol, atol=0, equal_nan=True) if one.dtype.kind == "f" else one == other
        if one.dtype.kind == "f":
            tiny = np.finfo(one.dtype).tiny * 1.001  # subnormal results may be zero
            near |= (np.abs(one) <= tiny) & (np.abs(other) <= tiny)
        if not near.all():
            differing.append(f"{name}: {one[~near][:3]} for {other[~near][:3]}")
    return differing


def on_host(graph: Graph, feeds: dict[str, Array]) -> Sequence[Array]:
    import interpreted

    from optc.targets.tvm.cpu.machines import host

    return interpreted.run(interpreted.build(graph, host("x86-64-v3")), list(feeds.values()))


def on_opencl(graph: Graph, feeds: dict[str, Array]) -> Sequence[Array]:
    from launched import answers

    return answers(graph, list(feeds.values()))


@pytest.mark.parametrize(("fill", "kind"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_numbers_at_the_ends_of_their_types(fill: Callable[[Pairs], None], kind: str) -> None:
    need_tvm()
    judged(fill, kind, on_host)


@pytest.mark.parametrize(
    ("fill", "kind"), [(logic, "float32"), (chains, "float32"), (chains, "int32"), (alone, "float32")]
)
def test_they_are_the_same_on_a_gpu(fill: Callable[[Pairs], None], kind: str) -> None:
    need_driver()
    judged(fill, kind, on_opencl)


def judged(fill: Callable[[Pairs], None], kind: str, run: Callable[[Graph, dict[str, Array]], Sequence[Array]]) -> None:
    pairs = Pairs(kind)
    fill(pairs)
    infer(pairs.graph)
    with np.errstate(all="ignore"):
        want = Session(pairs.graph.clone(), threads=1, optimise=False).run(pairs.feeds)
        got = run(pairs.graph, pairs.feeds)
        assert not same(got, want, [output.name for output in pairs.graph.outputs])


ROWS = [
    [np.nan] * 4, [-np.inf] * 4, [np.inf] * 4, [np.nan, 1, 2, 3], [1, np.nan, 3, 2], [3, 2, 1, np.nan],
    [-np.inf, -np.inf, 1, -np.inf], [1, 1, 2, 2], [-np.inf, np.nan, -np.inf, np.nan], [np.inf, np.nan, -np.inf, 1],
]  # fmt: skip


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin", "Hardmax", "TopK", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("run", [on_host, on_opencl])
def test_rows_without_a_largest_number(op: str, last: int, run: Callable[..., Sequence[Array]]) -> None:
    """No place is -1, whatever a row holds."""
    need_driver() if run is on_opencl else need_tvm()
    graph = Graph("rows", opsets={"": 20})
    x = np.array(ROWS, np.float32)
    row = graph.add_input("x", TensorType(DType.FLOAT, x.shape))
    attributes: dict[str, Any] = {"axis": 1}
    operands = [row]
    if op == "TopK":
        operands.append(graph.constant(np.array([3], np.int64)))
        attributes["largest"] = last
    elif op.startswith("Reduce"):
        operands.append(graph.constant(np.array([1], np.int64)))
        attributes = {"keepdims": last}
    elif op.startswith("Arg"):
        attributes["select_last_index"] = last
    node = graph.add(op, operands, attributes, outputs=["values", "places"] if op == "TopK" else ["y"])
    for value in node.outputs:
        graph.add_output(value, value.name)
    infer(graph)
    want = Session(graph.clone(), threads=1, optimise=False).run({"x": x})
    got = run(graph, {"x": x})
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


def test_polynomials_of_polynomials_are_kernels_apart() -> None:
    """One written into the operand of another, three deep, took the compiler for ever."""
    need_tvm()
    graph = Graph("deep", opsets={"": 18})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 8, 6, 6)))
    value: Value = x
    for op in ("Mish", "Tanh", "Exp", "Erf", "Tanh"):
        value = graph.add(op, [value]).output
    graph.add_output(value, "y")
    infer(graph)
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 8, 6, 6)).astype(np.float32)}
    (wanted,) = Session(graph).run(feeds)
    (answer,) = on_host(graph, feeds)
    assert np.allclose(answer, wanted, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, None])
def test_hardmax_before_version_13_takes_the_last_axes_for_one(axis: int | None) -> None:
    from interpreted import build, run

    from optc.targets.tvm.cpu.machines import host

    graph = Graph("hard", opsets={"": 12})
    x = np.random.default_rng(0).integers(-3, 3, (2, 3, 4)).astype(np.float32)
    value = graph.add_input("x", TensorType(DType.FLOAT, x.shape))
    graph.add_output(graph.add("Hardmax", [value], {} if axis is None else {"axis": axis}).output, "y")
    want = Session(graph.clone(), threads=1, optimise=False).run({"x": x})[0]
    assert np.array_equal(run(build(graph, host("x86-64-v3")), [x])[0], want)


@pytest.mark.parametrize(("kind", "low", "high"), [("int64", -(2**60) + 1, 2**53 + 1), ("uint64", 3, 2**63 + 3)])
def test_clip_between_whole_numbers_that_floats_do_not_hold(kind: str, low: int, high: int) -> None:
    from interpreted import build, run

    from optc.targets.tvm.cpu.machines import host

    graph = Graph("clip", opsets={"": 17})
    ends = np.iinfo(kind)
    x = np.array([ends.min, 0, high - 1, high, high + 1, ends.max], kind)
    value = graph.add_input("x", TensorType(DType.of(x.dtype), x.shape))
    bounds = [graph.constant(np.array(one, kind)) for one in (low, high)]
    graph.add_output(graph.add("Clip", [value, *bounds]).output, "y")
    assert np.array_equal(
        run(build(graph, host("x86-64-v3")), [x])[0], np.clip(x, x.dtype.type(low), x.dtype.type(high))
    )


@pytest.mark.parametrize("cap", [-0.5, 0.0, 0.5])
def test_a_cap_below_zero_caps_nothing(cap: float) -> None:
    """As ONNX Runtime and onnx's reference have it; the body that onnx gives takes the size of the number."""
    need_tvm()
    graph = Graph("capped", opsets={"": 24})
    rng = np.random.default_rng(0)
    feeds = {name: 2 * rng.standard_normal((1, 2, 3, 4), np.float32) for name in "qkv"}
    inputs = [graph.add_input(name, TensorType(DType.FLOAT, (1, 2, 3, 4))) for name in feeds]
    graph.add_output(graph.add("Attention", inputs, {"softcap": cap}).output, "y")
    infer(graph)
    q, k, v = (one.astype(np.float64) for one in feeds.values())
    scores = q @ k.swapaxes(-1, -2) / 2
    scores = cap * np.tanh(scores / cap) if cap > 0 else scores
    shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    (got,) = on_host(graph, feeds)
    assert np.allclose(got, shares @ v, rtol=1e-4, atol=1e-5)
