"""Two forms of a model, held against each other."""

from __future__ import annotations

import io
import json

import numpy as np
from rich.console import Console

from optc.ir.graph import Function, Graph
from optc.ir.origin import Origin
from optc.ir.types import DType, TensorType
from optc.report.diff import as_dict, diff, render

KERNEL = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)


def model(*, named: str = "fc", kernel: np.ndarray = KERNEL, extra: bool = True) -> Graph:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8)))
    value = graph.add("MatMul", [x, graph.constant(kernel)], name=named).output
    value = graph.add("Relu", [value], name="act").output
    if extra:
        value = graph.add("Softmax", [value], {"axis": -1}, name="[soft]").output
    graph.add_output(value, "y", TensorType(DType.FLOAT, ("N", kernel.shape[1])))
    return graph


def test_a_model_is_the_same_as_itself() -> None:
    difference = diff(model(), model(), ("a", "b"))
    assert difference.changes == ()
    assert difference.same == 3
    assert difference.sizes[0] == difference.sizes[1]


def test_nodes_removed_added_and_changed() -> None:
    other = model(kernel=np.where(np.arange(32).reshape(8, 4) < 16, 0, KERNEL), extra=False)
    other.add("Abs", [other.outputs[0].value], name="new")
    difference = diff(model(), other, ("a", "b"))
    kinds = {change.name: change.kind for change in difference.changes}
    assert kinds == {"fc": "changed", "[soft]": "removed", "new": "added"}
    (changed,) = (change for change in difference.changes if change.kind == "changed")
    assert [weight.text for weight in changed.old] == ["float[8, 4]"]
    assert [weight.text for weight in changed.new] == ["float[8, 4] 50 % zeros"]
    assert difference.ops == {"Abs": (0, 1), "MatMul": (1, 1), "Relu": (1, 1), "Softmax": (1, 0)}


def test_a_node_without_name_and_outputs() -> None:
    other = model()
    other.add("Print", [other.outputs[0].value], domain="my", outputs=0)
    (change,) = diff(model(), other, ("a", "b")).changes
    assert (change.kind, change.name) == ("added", "Print")
    assert diff(other, other, ("a", "b")).same == 4


def test_a_weight_with_other_numbers_is_a_change() -> None:
    (change,) = diff(model(), model(kernel=KERNEL + 1), ("a", "b")).changes
    assert (change.kind, change.name) == ("changed", "fc")
    assert [w.text for w in change.old] == [w.text for w in change.new] == ["float[8, 4]"]


def test_an_attribute_is_a_change() -> None:
    other = model()
    next(node for node in other if node.op == "Softmax").set_attribute("axis", 1)
    (change,) = diff(model(), other, ("a", "b")).changes
    assert (change.name, change.before, change.after) == ("[soft]", ("Softmax",), ("Softmax",))


def test_nodes_are_followed_by_their_origin() -> None:
    other = model(named="part1", kernel=KERNEL[:, :2])
    part = next(node for node in other if node.op == "MatMul")
    part.origin = Origin(("fc",), ("svd",))
    second = other.add("MatMul", [part.output, other.constant(np.ones((2, 4), np.float32))], name="part2", after=part)
    second.origin = Origin(("fc",), ("svd", "quant"))
    part.output.replace_uses(second.output)
    second.set_input(0, part.output)
    (change,) = diff(model(), other, ("a", "b")).changes
    assert (change.kind, change.name, change.before) == ("changed", "fc", ("MatMul",))
    assert change.after == ("MatMul", "MatMul")
    assert change.passes == ("svd", "quant")
    assert [weight.text for weight in change.new] == ["float[8, 2]", "float[2, 4]"]


def looped(*, bias: float = 1.0, op: str = "Add", turned: bool = False, extra: bool = True) -> Graph:
    body = Graph("body")
    body.add_input("i", TensorType(DType.INT64, ()))
    going = body.add_input("going", TensorType(DType.BOOL, ()))
    state = body.add_input("state", TensorType(DType.FLOAT, (4,)))
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (4,)))
    outer = [graph.add("Abs", [x], name="abs").output, graph.add("Neg", [x], name="neg").output]
    result = body.add(op, [state, body.constant(np.float32([bias] * 4))], name="inner").output
    result = body.add("Sub", [result, outer[turned]], name="captures").output
    if extra:
        result = body.add("Relu", [result], name="last").output
    for value, name in ((going, "going_out"), (result, "state_out")):
        body.add_output(body.add("Identity", [value], name=name).output, name)
    trips = graph.constant(np.int64(3))
    loop = graph.add("Loop", [trips, None, x], {"body": body}, name="loop").output
    graph.add_output(graph.add("Sub", [loop, outer[0]] if not turned else [outer[0], loop], name="end").output, "y")
    return graph


def test_bodies_are_compared_node_by_node() -> None:
    plain = diff(looped(), looped(), ("a", "b"))
    assert (plain.changes, plain.differs) == ((), False)
    assert plain.same == 9
    for other, wanted in (
        ({"bias": 2.0}, [("changed", "loop/body/inner")]),
        ({"op": "Mul"}, [("changed", "loop/body/inner")]),
        ({"extra": False}, [("removed", "loop/body/last")]),
        ({"turned": True}, [("changed", "loop/body/captures"), ("changed", "end")]),
    ):
        difference = diff(looped(), looped(**other), ("a", "b"))  # type: ignore[arg-type]
        assert [(one.kind, one.name) for one in difference.changes] == wanted
        assert difference.differs


def test_functions_are_compared_too() -> None:
    models = [model(), model(), model()]
    for one, op in zip(models, ("Relu", "Relu", "Abs"), strict=True):
        inner = Graph("f", opsets={"": 17})
        inner.add_output(inner.add(op, [inner.add_input("a", None)], name="act").output, "b")
        one.functions["mine", "f", ""] = Function("mine", "f", "", inner)
    assert not diff(models[0], models[1], ("a", "b")).differs
    (change,) = diff(models[0], models[2], ("a", "b")).changes
    assert (change.kind, change.name, change.after) == ("changed", "mine.f/act", ("Abs",))
    (change,) = diff(models[0], model(), ("a", "b")).changes
    assert (change.kind, change.name) == ("removed", "mine.f")


def test_a_diff_is_json_and_a_table() -> None:
    difference = diff(model(), model(kernel=KERNEL[:, :3], extra=False), ("a.onnx", "b.onnx"))
    assert json.loads(json.dumps(as_dict(difference)))["schema"] == "optc.diff/1"
    console = Console(file=io.StringIO(), width=120)
    console.print(render(difference, 5))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("- output y float[N, 4]", "+ output y float[N, 3]", "[soft]", "Softmax 1 -> 0", "float[8, 3]"):
        assert part in text
    console = Console(file=io.StringIO(), width=120)
    console.print(render(difference, 0))
    assert "... and 1 more removed" in console.file.getvalue()  # type: ignore[attr-defined]
