from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from optc.errors import ModelError
from optc.ir.attributes import Attribute, AttributeKind
from optc.ir.graph import Graph, Header, Node
from optc.ir.tensor import ArrayTensor, SparseTensor
from optc.ir.text.parse import parse
from optc.ir.types import DType, SequenceType, TensorType
from optc.ir.verify.verify import RULES, verify

VALID = """
opset 18
opset local 1
opset other 1
graph net(c: bool[], x: float[N, 2], d: float[2] = float[2] {1, 2}) -> (y: float[N, 2], z: float[N, 2]) {
  w = float[2, 2] {1, 2, 3, 4}
  h = MatMul(x, w) @fc
  cut: float[2] = Clip(d, _, w)
  y = If<then_branch=graph then() -> (a) {
    k = float[2] {1, 2}
    a = Add(h, k) @inner
  }, else_branch=graph other() -> (b) {
    b = Relu(h)
  }>(c) @choose
  z = local.f<alpha=0.5>(y) @call
  q = other.Unknown<anything=1>(z)
}
function local.f<alpha, beta=1.0>(a) -> (b) opset 18 {
  b = Elu<alpha: float = @alpha>(a) @elu
}
"""
BODY = "graph body(i: int64[], c: bool[], s: float[]) -> (c2, s2) { c2 = Identity(c) s2 = Identity(s) }"

Break = Callable[[Graph], object]


def one(text: str, opset: int = 18) -> Break:
    """Make the graph hold one more node, written as `text`; it may read x (float) and w."""

    def add(graph: Graph) -> None:
        parsed = parse(f"graph(c: bool[], x: float[2], n: int64[]) -> () {{ w = float[2] {{1, 2}} {text} }}")
        parsed.opsets = {"": opset}
        graph.become(parsed)

    return add


def node(graph: Graph, name: str) -> Node:
    return next(n for n in graph.walk() if n.name == name)


def body(graph: Graph) -> Graph:
    return node(graph, "choose").bodies[0]


def elu(graph: Graph) -> Node:
    return next(iter(graph.functions["local", "f", ""].graph))


def rekey(graph: Graph) -> None:
    graph.functions["local", "g", ""] = graph.functions.pop(("local", "f", ""))
    node(graph, "call").op = "g"


def recurse(graph: Graph) -> None:
    function = graph.functions["local", "f", ""].graph
    function.opsets["local"] = 1
    function.add("f", [function.inputs[0]], {"alpha": 1.0}, domain="local")


def drop_use(graph: Graph) -> None:
    (read,) = [v for v in node(graph, "fc").inputs if v is not None and v.constant is not None]
    read._uses.pop((node(graph, "fc"), 1))


def foreign(graph: Graph) -> None:
    node(graph, "fc").set_input(0, Graph("elsewhere").add_input("x", None))


def from_inside(graph: Graph) -> None:
    graph.add("Relu", [node(graph, "inner").output])


def removed(graph: Graph) -> None:
    result = graph.add("Relu", [graph.inputs[1]])
    value = result.output
    graph.remove(result)
    graph.add("Relu", [value])


def set_default(graph: Graph) -> None:
    graph.inputs[2].default = ArrayTensor(np.zeros(3, np.float32))


def attribute(kind: AttributeKind, value: object, ref: str = "") -> Break:
    def put(graph: Graph) -> None:
        node(graph, "fc").attributes["a"] = Attribute(kind, value, ref)  # type: ignore[arg-type]

    return put


BROKEN: dict[str, dict[str, Break]] = {
    "links": {
        "a node of another graph": lambda g: setattr(node(g, "fc"), "_graph", None),
        "a node linked past": lambda g: setattr(node(g, "fc"), "_next", None),
        "a wrong count": lambda g: setattr(g, "_count", 3),
        "a ring": lambda g: setattr(node(g, "fc"), "_next", node(g, "fc")),
    },
    "parents": {
        "a body of another node": lambda g: setattr(body(g), "parent", node(g, "fc")),
        "a function that is a body": lambda g: setattr(elu(g).graph, "parent", node(g, "fc")),
        "a model that is a body": lambda g: setattr(g, "parent", node(g, "fc")),
        "one body twice": lambda g: node(g, "choose").set_attribute("else_branch", body(g)),
    },
    "owners": {
        "an input made twice": lambda g: setattr(g.inputs[1], "producer", node(g, "fc")),
        "one input twice": lambda g: g._inputs.append(g._inputs[0]),
        "a constant without data": lambda g: setattr(next(iter(g.constants)), "constant", None),
        "an output of another node": lambda g: setattr(node(g, "fc").output, "index", 1),
        "a value with data that a node makes": lambda g: setattr(node(g, "fc").output, "constant", ArrayTensor([1.0])),
    },
    "uses": {
        "a read that is not registered": drop_use,
        "a registered read that is none": lambda g: g.inputs[0]._uses.update({(node(g, "fc"), 0): None}),
        "a removed reader": lambda g: g.inputs[0]._uses.update({(Graph().add("Relu"), 0): None}),
        "an output that is not registered": lambda g: g.outputs[0].value._uses.pop((g, 0)),
        "an output that is none": lambda g: node(g, "fc").output._uses.update({(g, 7): None}),
    },
    "scope": {
        "a value of another model": foreign,
        "a value inside a body": from_inside,
        "a value of a removed node": removed,
        "an output of another model": lambda g: g.set_output(0, Graph().add_input("x", None)),
    },
    "order": {
        "a node before what it reads": lambda g: g.move(node(g, "fc")),
        "a node that reads itself": lambda g: node(g, "fc").set_input(0, node(g, "fc").output),
        "a body before what it captures": lambda g: g.move(node(g, "choose"), before=node(g, "fc")),
    },
    "body-fields": {
        "a body with opsets": lambda g: body(g).opsets.update({"": 18}),
        "a function with a header": lambda g: setattr(elu(g).graph, "header", Header(3)),
    },
    "interface": {
        "two inputs of one name": lambda g: setattr(g.inputs[0], "name", "x"),
        "an input without a name": lambda g: setattr(g.inputs[0], "name", ""),
        "two outputs of one name": lambda g: setattr(g.outputs[1], "name", "y"),
        "an output without a name": lambda g: setattr(g.outputs[1], "name", ""),
        "an output named as an input": lambda g: setattr(g.outputs[1], "name", "x"),
        "a function with two inputs of one name": lambda g: elu(g).graph.add_input("a", None),
    },
    "output-types": {
        "another element type": lambda g: setattr(g.outputs[0], "type", TensorType(DType.INT8)),
        "a sequence": lambda g: setattr(g.outputs[0], "type", SequenceType(None)),
    },
    "constants": {
        "another element type": lambda g: setattr(next(iter(g.constants)), "type", TensorType(DType.INT8, (2, 2))),
        "another shape": lambda g: setattr(next(iter(g.constants)), "type", TensorType(DType.FLOAT, (2, 3))),
        "no type": lambda g: setattr(next(iter(g.constants)), "type", None),
        "a default of another shape": set_default,
    },
    "attributes": {
        "an int that is a float": attribute(AttributeKind.INT, 1.5),
        "ints that are floats": attribute(AttributeKind.INTS, (1, 1.5)),
        "a list for a tuple": attribute(AttributeKind.INTS, [1]),
        "a sparse tensor as a dense one": attribute(
            AttributeKind.TENSOR, SparseTensor(ArrayTensor([1.0]), ArrayTensor([0]), (2,))
        ),
        "no value and no reference": attribute(AttributeKind.INT, None),
        "a value and a reference": attribute(AttributeKind.INT, 1, "alpha"),
        "no kind": attribute(AttributeKind.UNDEFINED, 1),
        "a default that is a reference": lambda g: g.functions["local", "f", ""].defaults.update(
            beta=Attribute(AttributeKind.FLOAT, None, "alpha")
        ),
    },
    "references": {
        "outside of a function": attribute(AttributeKind.INT, None, "alpha"),
        "to what the function does not declare": lambda g: elu(g).set_attribute(
            "alpha", Attribute(AttributeKind.FLOAT, None, "gamma")
        ),
    },
    "opsets": {
        "a domain that is not imported": lambda g: g.opsets.pop("other"),
        "ONNX's own not imported": lambda g: g.opsets.pop(""),
        "a function that does not import": lambda g: elu(g).graph.opsets.clear(),
        "a version to come": lambda g: g.opsets.update({"": 9999}),
        "a version that never was": lambda g: g.opsets.update({"": 0}),
    },
    "schemas": {
        "an unknown operator": one("y = Rleu(x)"),
        "an operator of a later opset": one("y = Gelu(x)"),
        "an operator of an earlier opset": one("y = Scatter(x, n, x)", 6),
        "too few inputs": one("y = MatMul(x)"),
        "too many inputs": one("y = Relu(x, x)"),
        "an absent required input": one("y = MatMul(_, x)"),
        "too many outputs": one("y, z = Relu(x)"),
        "no outputs": one("= Relu(x)"),
        "a missing attribute": one("y = Cast(x)"),
        "an unknown attribute": one("y = Relu<slope=1.0>(x)"),
        "an attribute of another kind": one("y = Elu<alpha=1>(x)"),
        "another domain of ONNX's": lambda g: (g.opsets.update({"ai.onnx.ml": 3}), g.add("Nope", domain="ai.onnx.ml")),
        "inside a function": lambda g: elu(g).set_attribute("beta", 1),
        "inside a body": lambda g: node(g, "inner").set_attribute("beta", 1),
    },
    "element-types": {
        "no element type": one("y = Cast<to=77>(x)"),
        "the undefined one": one("y = Cast<to=0>(x)"),
        "no dtype": one("y = EyeLike<dtype=99>(x)"),
    },
    "bodies": {
        "an If branch that takes inputs": lambda g: body(g).add_input("i", None),
        "an If branch that returns too much": lambda g: body(g).add_output(g.inputs[1], "more"),
        "a Loop that carries nothing": one(f"y = Loop<body={BODY}>(n, c)"),
        "a Loop that returns too much": one(f"y, z = Loop<body={BODY}>(n, c, x)"),
        "a Scan that takes too little": one(f"y, z = Scan<num_scan_inputs=1, body={BODY}>(x, x)"),
    },
    "calls": {
        "an overload that is not there": lambda g: setattr(node(g, "call"), "overload", "wide"),
        "an overload in a model without functions": one("y = Relu:wide(x)"),
        "too many inputs": lambda g: node(g, "call").set_input(1, g.inputs[1]),
    },
    "functions": {
        "another key": rekey,
        "recursion": recurse,
    },
}
CASES = [(rule, name) for rule, cases in BROKEN.items() for name in cases]


def test_every_rule_has_a_test_and_every_test_a_rule() -> None:
    assert list(BROKEN) == [rule.name for rule in RULES]
    assert all(rule.meaning for rule in RULES)


def test_a_sound_model_passes() -> None:
    verify(parse(VALID))
    verify(Graph())
    for text in (
        f"y = Loop<body={BODY}>(n, c, x)",
        f"y, z = Scan<num_scan_inputs=1, body={BODY}>(x, x, x)",
        "y = Cast<to=1, __mark=2>(x)",
        "y = ImageScaler<scale=0.5>(x)",
        "_, y = LSTM<hidden_size=1>(x, w, w, _, _)",
    ):
        graph = Graph()
        one(text)(graph)
        verify(graph)


def test_a_call_may_leave_an_attribute_out() -> None:
    graph = parse(VALID)
    node(graph, "call").attributes.pop("alpha")
    verify(graph)


@pytest.mark.parametrize(("rule", "name"), CASES, ids=[f"{rule}: {name}" for rule, name in CASES])
def test_broken(rule: str, name: str) -> None:
    graph = parse(VALID)
    BROKEN[rule][name](graph)
    with pytest.raises(ModelError) as caught:
        verify(graph)
    assert str(caught.value).endswith(f" [{rule}]")


def test_the_message_names_the_place_and_says_what_to_do() -> None:
    graph = parse(VALID)
    graph.move(node(graph, "fc"))
    with pytest.raises(ModelError) as caught:
        verify(graph)
    assert str(caught.value) == (
        "graph 'then', node 'inner' (Add), value 'h': input 0 is read before it is made; call Graph.sort [order]"
    )
    graph = parse(VALID)
    elu(graph).op = "Rleu"
    with pytest.raises(ModelError) as caught:
        verify(graph)
    assert str(caught.value) == (
        "function 'f', graph 'f', node 'elu' (Rleu): there is no operator Rleu in opset 18 of ai.onnx; "
        "correct its name, or the opset that the model imports [schemas]"
    )
