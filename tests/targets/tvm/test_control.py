"""If, Loop and Scan as plain nodes answer as ONNX Runtime's own do."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from optc.ir.graph import Graph, Value
from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context
from optc.passes.clean.clean import Clean
from optc.targets.tvm.cpu import machines
from optc.targets.tvm.host import HostTarget
from optc.targets.tvm.legal import control
from optc.targets.tvm.legal.primitive import Primitive

Array = np.ndarray[Any, Any]

IF = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[2, 3] x, bool c) => (float[2, 3] y, float[2, 3] z) {
  a = Sigmoid(x)
  y, z = If (c) <
    then_branch = yes () => (float[2, 3] p, float[2, 3] q) { p = Add(a, x)  q = Neg(x) },
    else_branch = no () => (float[2, 3] r, float[2, 3] s) { r = Mul(a, x)  s = Identity(a) }>
}
"""
NESTED = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[4] x, bool c, bool d) => (float[4] y) {
  y = If (c) <
    then_branch = yes () => (float[4] p) {
      p = If (d) <
        then_branch = t () => (float[4] t0) { t0 = Exp(x) },
        else_branch = e () => (float[4] e0) { e0 = Neg(x) }>
    },
    else_branch = no () => (float[4] r) { r = Abs(x) }>
}
"""
LOOP = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[2, 3] x, float[3] w) => (float[2, 3] last, float[4, 2, 3] all, int64[4] numbers) {
  trips = Constant <value_int = 4> ()
  last, all, numbers = Loop (trips, , x) <
    body = step (int64 i, bool go, float[2, 3] s) => (bool on, float[2, 3] t, float[2, 3] kept, int64 n) {
      half = Constant <value = float {0.5}> ()
      m = Mul(s, half)
      t = Add(m, w)
      kept = Tanh(t)
      on = Identity(go)
      n = Identity(i)
    }>
}
"""
WHILE = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[3] x, bool start) => (float[3] last, int64 count) {
  trips = Constant <value_int = 6> ()
  zero = Constant <value_int = 0> ()
  last, count = Loop (trips, start, x, zero) <
    body = step (int64 i, bool go, float[3] s, int64 n) => (bool on, float[3] t, int64 m) {
      one = Constant <value_int = 1> ()
      two = Constant <value = float {2.0}> ()
      limit = Constant <value = float {9.0}> ()
      t = Mul(s, two)
      sum = ReduceSum <keepdims = 0> (t)
      on = Less(sum, limit)
      m = Add(n, one)
    }>
}
"""
SCAN = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[3] h, float[5, 3] xs, float[2, 5] ys) => (float[3] last, float[3, 5] outs, float[5, 2] seconds) {
  last, outs, seconds = Scan <num_scan_inputs = 2, scan_input_axes = [0, 1], scan_input_directions = [1, 0],
    scan_output_axes = [1, 0], scan_output_directions = [0, 1],
    body = step (float[3] s, float[3] x, float[2] y) => (float[3] t, float[3] out, float[2] z) {
      t = Add(s, x)
      out = Mul(t, x)
      z = Neg(y)
    }> (h, xs, ys)
}
"""


def check(model: onnx.ModelProto, feeds: dict[str, Array]) -> Graph:
    """The graph without control flow, which answers as the model does."""
    (expected, answers), graph = both(model, feeds)
    for want, got in zip(expected, answers, strict=True):
        assert want.dtype == got.dtype
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    return graph


@pytest.mark.parametrize("text", [IF, WHILE, SCAN])
def test_a_library_computes_them(text: str) -> None:
    pytest.importorskip("tvm")
    import interpreted

    model = parsed(text)
    feeds = {
        value.name: np.array(True) if value.type.tensor_type.elem_type == onnx.TensorProto.BOOL
        else drawn(*(dim.dim_value for dim in value.type.tensor_type.shape.dim))
        for value in model.graph.input
    }  # fmt: skip
    program = interpreted.build(model, machines.host("x86-64-v3"))
    answers = interpreted.run(program, list(feeds.values()))
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    for want, got in zip(expected, answers, strict=True):
        assert want.dtype == got.dtype
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def unfolded(model: onnx.ModelProto) -> tuple[Graph, bool]:
    """The graph as the pass leaves it, and whether it did anything."""
    graph, context = from_proto(model), Context(HostTarget().facts)
    Clean().run(graph, context)
    return graph, Primitive().run(graph, context).changed


def both(model: onnx.ModelProto, feeds: dict[str, Array]) -> tuple[tuple[list[Array], list[Array]], Graph]:
    graph, _ = unfolded(model)
    runs = [
        onnxruntime.InferenceSession(data).run(None, feeds) for data in (model.SerializeToString(), to_bytes(graph))
    ]
    return (runs[0], runs[1]), graph


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def drawn(*sizes: int) -> Array:
    return np.random.default_rng(len(sizes)).standard_normal(sizes).astype(np.float32)


@pytest.mark.parametrize("condition", [True, False])
def test_both_branches_are_computed_and_one_is_taken(condition: bool) -> None:
    graph = check(parsed(IF), {"x": drawn(2, 3), "c": np.array(condition)})
    assert not any(node.bodies for node in graph)


@pytest.mark.parametrize(("outer", "inner"), [(True, True), (True, False), (False, True)])
def test_a_branch_within_a_branch_is_computed_too(outer: bool, inner: bool) -> None:
    feeds = {"x": drawn(4), "c": np.array(outer), "d": np.array(inner)}
    assert not any(node.bodies for node in check(parsed(NESTED), feeds))


def test_trips_are_laid_out_one_after_the_other() -> None:
    graph = check(parsed(LOOP), {"x": drawn(2, 3), "w": drawn(3)})
    assert sum(node.op == "Tanh" for node in graph) == 4
    assert sum(np.array_equal(one.numpy(), 0.5) for one in graph.constants) == 1, "copies share their constants"


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("first", [0.1, 1.0, 100.0, -1.0])
def test_values_stay_behind_the_trip_that_ends_the_loop(first: float, start: bool) -> None:
    feeds = {"x": np.full(3, first, np.float32), "start": np.array(start)}
    assert not any(node.bodies for node in check(parsed(WHILE), feeds))


def test_steps_are_taken_along_any_axis_and_from_either_end() -> None:
    graph = check(parsed(SCAN), {"h": drawn(3), "xs": drawn(5, 3), "ys": drawn(2, 5)})
    assert not any(node.bodies for node in graph)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("trips = Constant <value_int = 4> ()", "most = ReduceMax <keepdims = 0> (x)  trips = Cast <to = 7> (most)"),
        ("on = Identity(go)", "limit = ReduceSum <keepdims = 0> (t)  on = Less(limit, half)"),
        ("value_int = 4", "value_int = 100000"),
    ],
)
def test_what_is_known_only_when_it_runs_stays(old: str, new: str) -> None:
    text = LOOP.replace(old, new)
    assert text != LOOP
    text = text.replace("[4, 2, 3]", "[n, 2, 3]").replace("int64[4]", "int64[n]")
    graph, changed = unfolded(parsed(text))
    assert not changed
    assert any(node.op == "Loop" for node in graph)


def test_branches_of_different_sizes_stay() -> None:
    wider = "w = Constant <value_ints = [1, 3]> ()  u = ReduceSum <keepdims = 1> (x)  r = Expand(u, w)"
    text = IF.replace("r = Mul(a, x)", wider)
    text = text.replace("float[2, 3] r", "float[1, 3] r").replace("(float[2, 3] y", "(float[m, 3] y")
    assert not unfolded(parsed(text))[1]


def looping(graph: Graph, state: Value, levels: int, trips: int) -> Value:
    """A loop in `graph` that applies Relu, or another such loop, to `state`."""
    body = Graph("body")
    body.add_input("i", TensorType(DType.INT64, ()))
    goes_on = body.add_input("goes", TensorType(DType.BOOL, ()))
    inner = body.add_input("s", TensorType(DType.FLOAT, (2,)))
    body.add_output(goes_on, "g")
    result = looping(body, inner, levels - 1, trips) if levels else body.add("Relu", [inner]).output
    body.add_output(result, "r")
    count, true = graph.constant(np.array(trips, np.int64)), graph.constant(np.array(True))
    return graph.add("Loop", [count, true, state], {"body": body}).output


def test_loops_in_loops_are_laid_out_only_as_far_as_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loop alone is short; together they run a hundred million times."""
    monkeypatch.setattr(control, "MOST", 200)
    monkeypatch.setattr(control, "_ALL", 800)
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (2,)))
    graph.add_output(looping(graph, x, 3, 40), "y")
    for _ in range(8):
        infer(graph)
        loops = [node for node in graph if node.op == "Loop"]
        if not sum(control.unroll(node) for node in loops):
            break
    assert len(graph) <= 1000
    assert any(node.op == "Loop" for node in graph)
