from __future__ import annotations

import numpy as np
import pytest

from optc.errors import ModelError
from optc.ir.attributes import Attribute, AttributeKind
from optc.ir.clone import clone
from optc.ir.graph import Graph, Node, Value
from optc.ir.origin import Origin
from optc.ir.tensor import ArrayTensor, SparseTensor
from optc.ir.text.dump import dump
from optc.ir.text.parse import parse
from optc.ir.types import DType, TensorType
from optc.ir.verify.verify import verify

LOOP = """
graph(n: int64[], c: bool[], x: float[2]) -> (y) {
  k = float[2] {1, 2}
  h = Relu(x) @relu
  y = Loop<body=graph(i: int64[], go: bool[], s: float[2]) -> (more, t) {
    more = Identity(go)
    u = Add(s, h) @add
    t = If<then_branch=graph() -> (a) { a = Mul(u, k) @mul }, else_branch=graph() -> (b) { b = Neg(x) @neg }>(go) @if
  }>(n, c, x) @loop
}
"""


def chain(length: int) -> tuple[Graph, list[Node]]:
    graph = Graph("g", opsets={"": 18})
    value = graph.add_input("x", TensorType(DType.FLOAT, (2,)))
    nodes = []
    for index in range(length):
        nodes.append(graph.add("Relu", [value], name=f"n{index}"))
        value = nodes[-1].output
    graph.add_output(value, "y")
    return graph, nodes


def named(graph: Graph, name: str) -> Node:
    return next(node for node in graph.walk() if node.name == name)


def order(graph: Graph) -> list[str]:
    names = [node.name for node in graph]
    assert names[::-1] == [node.name for node in reversed(graph)]
    assert len(graph) == len(names)
    return names


# -- making


def test_nodes_stand_where_they_are_put() -> None:
    graph, (a, b, _) = chain(3)
    graph.add("Neg", [a.output], name="before", before=b)
    graph.add("Neg", [a.output], name="after", after=b)
    graph.add("Neg", [a.output], name="last")
    graph.add("Neg", [graph.inputs[0]], name="first", before=a)
    assert order(graph) == ["first", "n0", "before", "n1", "after", "n2", "last"]
    graph.move(b)
    graph.move(a, before=a)
    graph.move(named(graph, "last"), before=named(graph, "first"))
    assert order(graph) == ["last", "first", "n0", "before", "after", "n2", "n1"]


def test_a_node_knows_its_outputs_and_a_value_its_maker() -> None:
    graph, _ = chain(1)
    node = graph.add("Split", [graph.inputs[0]], outputs=["a", ""], types=[TensorType(DType.FLOAT, (1,))])
    first, second = node.outputs
    assert (first.producer, first.index, first.name, first.shape) == (node, 0, "a", (1,))
    assert (second.producer, second.index, second.name, second.type) == (node, 1, "", None)
    assert first.graph is graph
    assert not first.is_input
    assert graph.inputs[0].is_input
    assert node.input(1) is None


def test_a_constant_is_typed_by_its_data() -> None:
    graph = Graph()
    value = graph.constant(np.zeros((2, 3), np.int8), "w")
    assert value.type == TensorType(DType.INT8, (2, 3))
    assert value.static_shape == (2, 3)
    assert not value.is_input
    assert tuple(graph.constants) == (value,)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, AttributeKind.INT), (True, AttributeKind.INT), (np.int64(1), AttributeKind.INT),
        (1.0, AttributeKind.FLOAT), (np.float32(1), AttributeKind.FLOAT), ("a", AttributeKind.STRING),
        (b"a", AttributeKind.STRING), ([1, 2], AttributeKind.INTS), ([1, 2.0], AttributeKind.FLOATS),
        (("a", b"b"), AttributeKind.STRINGS), (np.zeros(2), AttributeKind.TENSOR), (Graph(), AttributeKind.GRAPH),
        ([Graph()], AttributeKind.GRAPHS), (TensorType(DType.FLOAT), AttributeKind.TYPE_PROTO),
        (SparseTensor(ArrayTensor([1.0]), ArrayTensor([0]), (2,)), AttributeKind.SPARSE_TENSOR),
        ([ArrayTensor([1.0])], AttributeKind.TENSORS),
    ],
)  # fmt: skip
def test_the_kind_of_an_attribute_follows_from_its_value(value: object, kind: AttributeKind) -> None:
    assert Attribute.of(value).kind is kind  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [[], None, {}, object(), [None]])
def test_what_is_no_attribute_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be an ONNX attribute"):
        Attribute.of(value)  # type: ignore[arg-type]


def test_attributes_are_read_by_kind() -> None:
    graph = Graph()
    node = graph.add("Op", (), {"i": 1, "f": 2.0, "s": "a", "l": [1, 2], "t": np.zeros(2, np.float32)})
    assert (node.get_int("i"), node.get_float("f"), node.get_string("s"), node.get_ints("l")) == (1, 2.0, "a", (1, 2))
    assert (node.get_int("f", 7), node.get_ints("none", (3,)), node.get_tensor("i")) == (7, (3,), None)
    tensor = node.get_tensor("t")
    assert tensor is not None
    assert tensor.shape == (2,)


# -- edges


def test_uses_follow_every_edit() -> None:
    graph, (a, b) = chain(2)
    x = graph.inputs[0]
    assert tuple(x.uses) == ((a, 0),)
    b.set_input(2, x)
    assert b.inputs == (a.output, None, x)
    assert tuple(x.uses) == ((a, 0), (b, 2))
    b.set_inputs([x, x])
    assert tuple(x.uses) == ((a, 0), (b, 0), (b, 1))
    assert x.users == (a, b)
    assert not a.output.uses
    b.set_input(1, None)
    assert tuple(x.uses) == ((a, 0), (b, 0))
    assert tuple(b.output.uses) == ((graph, 0),)
    assert b.output.is_output
    assert not x.is_output


def test_replace_uses_moves_nodes_bodies_and_outputs() -> None:
    graph = parse(LOOP)
    relu, x = named(graph, "relu"), graph.inputs[2]
    graph.add_output(relu.output, "again")
    relu.output.replace_uses(x)
    relu.output.replace_uses(relu.output)
    assert not relu.output.uses
    assert named(graph, "add").inputs[1] is x
    assert graph.outputs[1].value is x
    assert graph.outputs[1].name == "again"
    verify(graph)


def test_set_output_keeps_the_name_and_the_declared_type() -> None:
    graph, (a, b) = chain(2)
    graph.outputs[0].type = TensorType(DType.FLOAT, ("N",))
    graph.set_output(0, a.output)
    assert (graph.outputs[0].name, graph.outputs[0].type) == ("y", TensorType(DType.FLOAT, ("N",)))
    assert not b.output.uses


def test_removing_an_output_or_input_closes_the_gap() -> None:
    graph, (a, b) = chain(2)
    graph.add_output(a.output, "z")
    graph.add_input("unused", None)
    graph.remove_output(0)
    graph.remove_input(1)
    assert [output.name for output in graph.outputs] == ["z"]
    assert (graph, 0) in a.output.uses
    assert not b.output.uses
    with pytest.raises(ValueError, match="'x' is still used"):
        graph.remove_input(0)


# -- removing


def test_remove_refuses_what_is_used_and_lets_go_of_what_was_read() -> None:
    graph, (a, b) = chain(2)
    with pytest.raises(ValueError, match="still used"):
        graph.remove(a)
    with pytest.raises(ValueError, match="still used"):
        graph.remove(b)
    b.output.replace_uses(a.output)
    graph.remove(b)
    assert tuple(a.output.uses) == ((graph, 0),)
    assert b.graph is None
    assert b.output.graph is None
    with pytest.raises(ValueError, match="not in this graph"):
        graph.remove(b)
    constant = graph.constant([1.0])
    a.set_input(1, constant)
    with pytest.raises(ValueError, match="still used"):
        graph.remove(constant)


def test_removing_a_node_lets_go_of_what_its_bodies_capture_in_any_order() -> None:
    graph = parse(LOOP)
    loop, relu = named(graph, "loop"), named(graph, "relu")
    (body,) = loop.bodies
    body.move(named(graph, "add"))
    body.move(named(graph, "if"), before=next(iter(body)))
    (constant,) = graph.constants
    graph.set_output(0, relu.output)
    graph.remove(loop)
    assert tuple(relu.output.uses) == ((graph, 0),)
    assert not constant.uses
    assert len(body) == 0


def test_sweep_removes_what_nothing_reads_in_bodies_too() -> None:
    graph = parse(LOOP)
    body = named(graph, "loop").bodies[0]
    dead = body.add("Neg", [body.add("Neg", [named(graph, "relu").output]).output])
    body.constant([1.0])
    assert graph.sweep() == 2
    assert dead.graph is None
    assert not body.constants
    assert graph.sweep() == 0
    graph.set_output(0, graph.inputs[2])
    assert graph.sweep() == 2
    assert len(graph) == 0
    assert not graph.constants
    assert [value.name for value in graph.inputs] == ["n", "c", "x"]


# -- iterating


def test_nodes_may_come_and_go_while_iterating() -> None:
    graph, nodes = chain(6)
    seen = []
    for node in graph:
        seen.append(node.name)
        if node is nodes[1]:
            node.output.replace_uses(node.inputs[0])  # type: ignore[arg-type]
            graph.add("Neg", [nodes[0].output], name="new", after=node)
            graph.remove(node)
        if node is nodes[2]:
            for gone in (nodes[3], nodes[4]):
                gone.output.replace_uses(node.output)
                graph.remove(gone)
    assert seen == ["n0", "n1", "new", "n2", "n5"]
    assert order(graph) == ["n0", "new", "n2", "n5"]


def test_walk_reaches_every_body() -> None:
    graph = parse(LOOP)
    assert [node.name for node in graph.walk() if node.name] == ["relu", "loop", "add", "if", "mul", "neg"]
    assert len(tuple(graph.graphs())) == 4
    assert next(iter(named(graph, "if").bodies)).root is graph
    assert next(iter(named(graph, "if").bodies)).opset() == graph.opsets[""]
    assert graph.opset("absent") == 0


def test_captures_are_what_bodies_read_from_outside_in_order() -> None:
    graph = parse(LOOP)
    h, k, x = named(graph, "relu").output, *graph.constants, graph.inputs[2]
    assert named(graph, "loop").captures == (h, k, x)
    u = named(graph, "add").output
    assert named(graph, "if").captures == (u, k, x)
    assert named(graph, "relu").captures == ()
    named(graph, "if").bodies[0].set_output(0, h)
    assert named(graph, "if").captures == (u, k, h, x)


# -- sorting


def test_sort_moves_a_node_behind_what_its_bodies_capture() -> None:
    graph = parse(LOOP)
    before = dump(graph)
    assert not graph.sort()
    assert dump(graph) == before
    graph.move(named(graph, "relu"))
    named(graph, "loop").bodies[0].move(named(graph, "add"))
    assert graph.sort()
    verify(graph)
    assert dump(graph) == before


def test_sort_keeps_the_order_of_what_is_free() -> None:
    graph, nodes = chain(3)
    for index in range(3):
        graph.add("Neg", [nodes[index].output], name=f"free{index}")
    graph.move(nodes[1], before=nodes[0])
    assert graph.sort()
    assert order(graph) == ["n0", "n1", "n2", "free0", "free1", "free2"]


@pytest.mark.parametrize("inside", [False, True])
def test_sort_names_a_node_on_a_cycle(inside: bool) -> None:
    graph = parse(LOOP)
    if inside:
        named(graph, "add").set_input(0, named(graph, "if").output)
        where = "node 'add' \\(Add\\)"
    else:
        named(graph, "relu").set_input(0, named(graph, "loop").output)
        where = "node 'relu' \\(Relu\\)"
    with pytest.raises(ModelError, match=where):
        graph.sort()


# -- copying


def test_a_clone_is_equal_and_shares_nothing_but_tensors() -> None:
    text = """
      ir_version 9
      producer "p" "1"
      opset 18
      opset local 1
      graph net(c: bool[] doc "in", x: float[2] = float[2] {1, 2}) -> (y doc "out", z = x) doc "g" metadata {"a": "b"} {
        w metadata {"k": "v"} = float[2] {1, 2}
        y = If<then_branch=graph() -> (a) { a = Add(late, w) }, else_branch=graph() -> (b = x) {}>(c) @if
        late = local.f:o<alpha=1.0>(x) @call from (p, q) by (clean) doc "node" metadata {"k": "v"} extra base64"AA=="
      }
      function local.f:o<alpha, beta=1.0>(a) -> (b) opset 18 { b = Elu<alpha: float = @alpha>(a) }
    """
    graph = parse(text)
    copy = graph.clone()
    assert dump(copy, tensors="inline") == dump(graph, tensors="inline")
    theirs = {id(v) for g in graph.graphs() for v in values(g)} | {id(n) for n in graph.walk()}
    mine = {id(v) for g in copy.graphs() for v in values(g)} | {id(n) for n in copy.walk()}
    assert not theirs & mine
    assert [v.constant for v in copy.constants] == [v.constant for v in graph.constants]
    before = dump(graph)
    named(copy, "call").metadata.update(k="w")  # type: ignore[union-attr]
    copy.metadata["a"] = "c"
    copy.outputs[0].value.replace_uses(copy.inputs[1])
    copy.sweep()
    next(iter(copy.functions.values())).graph.opsets[""] = 1
    assert dump(graph) == before
    assert copy.sort() is False


def test_a_clone_of_a_body_reads_what_it_is_told() -> None:
    graph = parse(LOOP)
    body = named(graph, "loop").bodies[0]
    copy = clone(body)
    assert copy.parent is None
    assert (named(copy, "add"), 1) in named(graph, "relu").output.uses
    other = graph.inputs[2]
    copy = clone(body, {named(graph, "relu").output: other})
    assert named(copy, "add").inputs[1] is other
    assert named(copy, "if").bodies[0].parent is named(copy, "if")


def test_become_takes_over_everything_but_the_place() -> None:
    graph, other = parse(LOOP), chain(2)[0]
    other.opsets = {"": 7}
    text = dump(other)
    body = named(graph, "if").bodies[0]
    body.become(Graph("empty"))
    assert body.parent is named(graph, "if")
    graph.become(other)
    assert dump(graph) == text
    assert len(other) == 0
    verify(graph)


def test_origins_merge_in_order_and_each_once() -> None:
    merged = Origin.merge([Origin(("a", "b"), ("clean",)), Origin(("b", "c")), Origin(("d",), ("svd",))], by="clean")
    assert merged == Origin(("a", "b", "c", "d"), ("clean", "svd"))


def values(graph: Graph) -> list[Value]:
    return [*graph.inputs, *graph.constants, *(v for node in graph for v in node.outputs)]


def test_a_node_made_of_a_long_chain_keeps_the_first_names() -> None:
    origin = Origin.own("n0")
    for index in range(1, 5000):
        origin = Origin.merge([origin, Origin.own(f"n{index}")], "clean")
    assert origin.nodes == tuple(f"n{index}" for index in range(256))
    assert origin.passes == ("clean",)
