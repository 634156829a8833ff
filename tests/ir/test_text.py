from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from optc.errors import ModelError
from optc.ir.attributes import Attribute, AttributeKind
from optc.ir.graph import Function, Graph, Header
from optc.ir.origin import Origin
from optc.ir.tensor import ArrayTensor, FillTensor, SparseTensor, pack
from optc.ir.text.dump import dump
from optc.ir.text.parse import DEFAULT_OPSET, parse
from optc.ir.types import DType, MapType, OpaqueType, OptionalType, SequenceType, TensorType

SHORT = """
graph net(x: float[N, 3]) -> (y) {
  w = float[3, 2] {1, 2.5, nan, -inf, -0, 6}   # the weights
  h = MatMul(x, w)
  y = com.microsoft.Gelu<axis=-1, alpha=1e-3>(h) @act
}
"""


def again(graph: Graph) -> Graph:
    """`graph` after the way through its text, which must not change on the second time."""
    text = dump(graph, tensors="inline")
    result = parse(text)
    assert dump(result, tensors="inline") == text
    return result


def test_a_text_written_by_hand() -> None:
    graph = parse(SHORT)
    first, second = graph
    assert graph.name == "net"
    assert graph.opsets == {"": DEFAULT_OPSET}
    assert graph.inputs[0].type == TensorType(DType.FLOAT, ("N", 3))
    assert (first.op, second.domain, second.op, second.name) == ("MatMul", "com.microsoft", "Gelu", "act")
    assert first.inputs == (graph.inputs[0], *graph.constants)
    assert second.get_int("axis") == -1
    assert second.get_float("alpha") == 0.001
    assert second.origin == Origin(("act",))
    assert graph.outputs[0].value is second.output
    weights = first.inputs[1]
    assert weights is not None
    np.testing.assert_array_equal(weights.numpy(), np.float32([[1, 2.5], [np.nan, -np.inf], [-0.0, 6]]))
    again(graph)


def test_the_dump_is_the_text_that_was_parsed() -> None:
    text = """\
ir_version 8
producer "maker" "1.0"
domain "org.example"
model_version 7
doc "two\\nlines"
metadata {"a": "1", "a": "2"}
extra base64"AAEC"
opset 18
opset com.microsoft 1
graph "my net"(x: float[N, ?, "a b"] = float[1, 1, 1] {2}, s: seq(optional(int64[])) doc "in") -> \
(y: float, z: float[2] doc "out" metadata {"k": "v"} = x, again: ? = y) doc "g" metadata {"m": "n"} extra base64"Aw==" {
  w metadata {"k": "v"} = float[2] {0.1, 1e-45}
  fill = float16[1000] {0.5, ...}
  sparse = sparse[3, 4](double[2] {1, 2}, int64[2] {0, 5})
  untyped: ? = int64[1] {-1}
  _, h: float[2] doc "note", "_" = LSTM<hidden_size=4, activations=["Tanh", b"\\u00ff"]>(x, _, w) @"a node" \
from (first, "") by (clean, svd) doc "node" metadata {"k": "v"} extra base64"AA=="
  y: float = local.f:wide<v=float[1] {2}, t: type_proto = map(int64, string[]), a: ints = []>(h)
  = Sink(untyped) from (nowhere)
}
function local.f:wide<v, alpha=0.5>(a, b) -> (c) name "other" doc "f" opset 17 {
  c = Elu<alpha: float = @alpha doc "why">(a)
}
"""
    assert dump(parse(text), tensors="inline") == text


def test_bodies_read_the_values_around_them_in_any_order() -> None:
    graph = parse("""
      graph(c: bool[], x: float[2]) -> (y: float[2]) {
        y = If<then_branch=graph then() -> (a) {
          a = Neg(late)
        }, else_branch=graph() -> (out = x) {}>(c)
        late = Relu(x)
      }""")
    branch, late = graph
    then, other = branch.bodies
    assert then.parent is branch
    assert next(iter(then)).inputs == (late.output,)
    assert other.outputs[0].value is graph.inputs[1]
    assert branch.output.type == TensorType(DType.FLOAT, (2,))
    again(graph)
    assert again(again(graph)).sort()
    assert dump(then) == "graph then() -> (a) {\n  a = Neg(late)\n}\n"


@pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.UNDEFINED], ids=lambda d: d.text)
@pytest.mark.parametrize("size", [0, 3, 100])
def test_constants_of_every_type_keep_every_bit(dtype: DType, size: int) -> None:
    rng = np.random.default_rng(0)
    if dtype is DType.STRING:
        array = np.array([bytes(rng.integers(0, 256, 5, np.uint8)) for _ in range(size)], object)
    elif dtype is DType.BOOL:
        array = rng.integers(0, 2, size).astype(bool)
    elif dtype.bits % 8 == 0:
        array = rng.integers(0, 256, size * dtype.bits // 8, np.uint8).view(dtype.numpy)
    elif dtype.is_float:
        array = rng.integers(0, 1 << dtype.bits, size, np.uint8).view(dtype.numpy)
    else:
        array = np.arange(size).astype(dtype.numpy)
    graph = Graph("g")
    graph.constant(ArrayTensor(array, dtype), "w")
    graph.constant(FillTensor(array[-1:] if size else np.zeros(1), (2, 9), dtype), "f")
    constant, fill = (value.constant for value in again(graph).constants)
    assert constant is not None
    assert constant.dtype is dtype
    assert constant.shape == (size,)
    assert isinstance(fill, FillTensor)
    if dtype is DType.STRING:
        assert constant.numpy().tolist() == array.tolist()
    else:
        assert pack(constant.numpy(), dtype) == pack(array, dtype)


def test_the_numbers_of_small_constants_are_readable() -> None:
    graph = Graph("g")
    graph.constant(np.float32([0.1, 1, 1e-45, 3.4e38, np.nan, -np.inf, -0.0]), "f")
    graph.constant(np.array([True, False]), "b")
    graph.constant(np.complex64([1 + 2j]), "c")
    graph.constant(ArrayTensor([0.1, 2], DType.BFLOAT16), "h")
    graph.constant(np.float32([np.nan]).view(np.uint32).__or__(1).view(np.float32), "payload")
    lines = [line.strip() for line in dump(graph).splitlines()]
    assert "f = float[7] {0.1, 1, 1e-45, 3.4e+38, nan, -inf, -0}" in lines
    assert "b = bool[2] {true, false}" in lines
    assert "c = complex64[1] {1+2j}" in lines
    assert "h = bfloat16[2] {0.100098, 2}" in lines
    assert 'payload = float[1] base64"AQDAfw=="' in lines


def test_large_constants_are_elided_and_say_so_when_parsed() -> None:
    graph = Graph("g")
    graph.constant(np.zeros((64, 3), np.float32), "w")
    text = str(graph)
    assert "w = float[64, 3] {... " in text
    assert dump(graph, tensors=200) == dump(graph, tensors="inline") != text
    with pytest.raises(ModelError, match="elided"):
        parse(text)
    other = Graph("g")
    other.constant(np.ones((64, 3), np.float32), "w")
    assert str(other) != text


def test_long_notes_are_elided_and_say_so_when_parsed() -> None:
    graph = Graph("g")
    node = graph.add("Relu", [graph.add_input("x", None)])
    node.doc, node.metadata, graph.doc = "short", {"trace": "line\n" * 100}, "long" * 100
    again(graph)
    text = str(graph)
    assert max(map(len, text.splitlines())) < 100
    assert 'doc "short" metadata {... ' in text
    with pytest.raises(ModelError, match="elided"):
        parse(text)
    headed = Graph("g")
    headed.header = Header(doc="long" * 100)
    with pytest.raises(ModelError, match="elided"):
        parse(str(headed))
    node.metadata = {"trace": "line\n" * 101}
    assert str(graph) != text


def test_attributes_of_every_kind() -> None:
    tensor, sparse = ArrayTensor(np.float32([1])), SparseTensor(ArrayTensor([1.5]), ArrayTensor([0]), (4,))
    body = Graph("b")
    values = {
        AttributeKind.FLOAT: 1.0, AttributeKind.INT: 1, AttributeKind.STRING: "s", AttributeKind.TENSOR: tensor,
        AttributeKind.GRAPH: body, AttributeKind.SPARSE_TENSOR: sparse,
        AttributeKind.TYPE_PROTO: TensorType(DType.FLOAT, (1, "N", None), True, "IMAGE", ("", "A", "B")),
        AttributeKind.FLOATS: (1.0, math.inf), AttributeKind.INTS: (1, -2), AttributeKind.STRINGS: ("a", b"\xff"),
        AttributeKind.TENSORS: (tensor, tensor), AttributeKind.GRAPHS: (Graph(), Graph("c")),
        AttributeKind.SPARSE_TENSORS: (sparse,),
        AttributeKind.TYPE_PROTOS: (SequenceType(None), OptionalType(SequenceType(TensorType(DType.INT8))),
                                    MapType(DType.STRING, None), OpaqueType("d", "n"), None),
    }  # fmt: skip
    graph = Graph("g", opsets={"": 18})
    node = graph.add("Op", (), outputs=0)
    for kind, value in values.items():
        node.set_attribute(kind.name, Attribute(kind, value, doc="why"))
        node.set_attribute(f"ref {kind.name}", Attribute(kind, None, "other"))
        if kind.name.endswith("S") and isinstance(value, tuple):
            node.set_attribute(f"empty {kind.name}", Attribute(kind, ()))
    (back,) = again(graph)
    assert {name: a.kind for name, a in back.attributes.items()} == {n: a.kind for n, a in node.attributes.items()}
    for kind in (AttributeKind.FLOATS, AttributeKind.INTS, AttributeKind.STRINGS, AttributeKind.TYPE_PROTOS):
        assert back.attributes[kind.name] == node.attributes[kind.name]
    assert back.attributes["TYPE_PROTO"] == node.attributes["TYPE_PROTO"]
    assert back.attributes["ref TENSOR"] == Attribute(AttributeKind.TENSOR, None, "other")
    assert back.bodies[0].parent is back


def test_the_payload_of_a_nan_attribute_survives() -> None:
    graph = Graph("g")
    (payload,) = struct.unpack(">d", bytes.fromhex("fff8000000000007"))
    graph.add("Op", (), {"alpha": payload}, outputs=0)
    (node,) = again(graph)
    assert struct.pack(">d", node.get_float("alpha")) == struct.pack(">d", payload)


def test_header_functions_and_opsets_come_back() -> None:
    graph = Graph("g", opsets={})
    graph.header = Header(3, "p", "v", "d", 9, "doc", (("k", "v"), ("k", "w")), b"\0\xff")
    inner = Graph("f", opsets={"": 3})
    inner.add_output(inner.add("Elu", [inner.add_input("x", None)]).output, "y")
    graph.functions["d.e", "f", "o"] = Function("d.e", "f", "o", inner, ("a",), {"b": Attribute.of([1])})
    back = again(graph)
    assert back.header == graph.header
    assert back.opsets == {}
    function = back.functions["d.e", "f", "o"]
    assert (function.attributes, function.defaults) == (("a",), {"b": Attribute.of([1])})
    assert function.graph.opsets == {"": 3}


def test_awkward_names_are_quoted() -> None:
    names = ["1", "a b", "a,b", "_", "from", "doc", 'a"b', "é", "a->b", "x:0", "a\nb", "#", "\ud800"]
    plain = ["onnx::Conv_1", "/layer/conv/Conv_output_0", "a.b", "a-b", "float", "graph", "none", "sparse"]
    plain += ["doc.1", "from-a", "_.1", "none.x", "opset::a", "_x"]
    graph = Graph("#")
    for name in names + plain:
        graph.add(name, [graph.add_input(name, None)], name=name, domain=name, origin=Origin((name,), (name,)))
    back = again(graph)
    assert [value.name for value in back.inputs] == names + plain
    assert [node.op for node in back] == names + plain
    assert [node.domain for node in back] == names + plain
    text = dump(graph)
    assert all(f"({name})" in text for name in plain)
    assert text.isascii()


def test_origins_can_be_left_out() -> None:
    graph = Graph("g")
    graph.add("Op", (), outputs=0, name="n", origin=Origin(("a",), ("p",)))
    assert "= Op() @n from (a) by (p)" in dump(graph)
    assert dump(graph, origin=False).splitlines()[-2] == "  = Op() @n"


def test_a_broken_graph_can_still_be_shown() -> None:
    graph, other = Graph("g"), Graph("h")
    graph.add("Relu", [other.add_input("lost", None)])
    assert 'Relu("not in this model: lost")' in str(graph)


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("", 1, 0, "without a graph"),
        ("graph(x) -> (y) {\n  y = Relu(z)\n}", 2, 11, "nothing here is called 'z'"),
        ("graph(x) -> (y) {\n}", 1, 13, "nothing here is called 'y'"),
        ("graph(x) -> (x) {\n  x = Relu(x)\n}", 2, 2, "defined twice"),
        ("graph(x: flot[2]) -> () {}", 1, 9, "Did you mean 'float'"),
        ("graph(x) -> () {\n  w = float[2] {1, 2, 3}\n}", 2, 15, "no elements of float[2]"),
        ("graph() -> () {\n  w = int8[1] {300}\n}", 2, 14, "300 is no int8"),
        ("graph() -> () {\n  w = bool[1] {2}\n}", 2, 14, "no elements of bool"),
        ("graph() -> () {\n  w = float[2] {1, ..., 2}\n}", 2, 15, "'...' stands after one element"),
        ('graph() -> () {\n  w = float[2] base64"AA=="\n}', 2, 15, "no elements"),
        ('graph() -> () {\n  w = float[2] base64"A"\n}', 2, 15, "no base64"),
        ("graph() -> () {\n  y = Op<a=[]>()\n}", 2, 11, "kind of this attribute"),
        ("graph() -> () {\n  y = Op<a=@b>()\n}", 2, 11, "needs its kind"),
        ("graph() -> () {\n  y = Op<a: flots = []>()\n}", 2, 12, "Did you mean 'floats'"),
        ("graph() -> () {\n  y = Op<a=1, a=2>()\n}", 2, 14, "given twice"),
        ("graph() -> () {\n  y = Op<a=>()\n}", 2, 11, "expected a number"),
        ("graph() -> () {\n  y = Op(\n", 3, 0, "expected a name"),
        ("graph() -> () {}\ngraph() -> () {}", 2, 0, "one graph"),
        ('graph() -> () doc "a {}', 1, 18, 'expected "text"'),
        ("graph() => () {}", 1, 8, "expected '->'"),
    ],
)
def test_an_error_shows_the_place(text: str, line: int, column: int, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse(text)
    first, shown, caret = str(caught.value).split("\n")
    assert first.startswith(f"line {line}: ")
    assert says in first
    assert caret == " " * (column + 2) + "^"
    assert shown[2:] == [*text.splitlines(), "", ""][line - 1]
