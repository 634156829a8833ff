"""Models of a few bytes that ask for more memory or time than any machine has."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import NodeProto, TensorProto, helper, numpy_helper

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]


def _model(nodes: list[NodeProto], last: str, opset: int = 17, **constants: ArrayLike) -> onnx.ModelProto:
    """`nodes` compute `last`, whose sum is added to the input."""
    nodes = [
        *nodes,
        helper.make_node("Cast", [last], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["as_float"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "bomb", [X], [Y], weights)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset), OPSETS[1]])


def _ints(*numbers: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


def _shifted(name: str) -> NodeProto:
    """A size that no shape inference follows: 1 << 31."""
    return helper.make_node("BitShift", ["one", "by"], [name], direction="LEFT")


HIDDEN = {"one": np.array([1], np.uint64), "by": np.array([31], np.uint64)}


def tile() -> onnx.ModelProto:
    nodes = [_shifted("u"), helper.make_node("Cast", ["u"], ["n"], to=TensorProto.INT64)]
    return _model([*nodes, helper.make_node("Tile", ["f", "n"], ["t"])], "t", f=np.ones(1, np.float32), **HIDDEN)


def liar() -> onnx.ModelProto:
    """As `tile`, and the result is recorded as small."""
    model = tile()
    model.graph.value_info.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, [4]))
    return model


def count() -> onnx.ModelProto:
    node = helper.make_node("Range", ["start", "end", "step"], ["r"])
    return _model([node], "r", start=np.int64(0), end=np.int64(1 << 31), step=np.int64(1))


def hidden_count() -> onnx.ModelProto:
    nodes = [
        _shifted("u"),
        helper.make_node("Cast", ["u"], ["n"], to=TensorProto.INT64),
        helper.make_node("Squeeze", ["n"], ["end"]),
        helper.make_node("Range", ["start", "end", "step"], ["r"]),
    ]
    return _model(nodes, "r", start=np.int64(0), step=np.int64(1), **HIDDEN)


def gathered() -> onnx.ModelProto:
    """Each doubles what the one before took, and its rank grows by one."""
    nodes = [helper.make_node("Gather", [f"c{i}", "j"], [f"c{i + 1}"], axis=i) for i in range(60)]
    return _model(nodes, "c60", c0=np.ones(1, np.float32), j=np.zeros((2, 2), np.int64))


def filled() -> onnx.ModelProto:
    return _model([helper.make_node("ConstantOfShape", ["s"], ["c"])], "c", s=_ints(1_000_000, 1_000_000))


def overfilled() -> onnx.ModelProto:
    return _model([helper.make_node("ConstantOfShape", ["s"], ["c"])], "c", s=_ints(1 << 40, 1 << 40))


def expanded() -> onnx.ModelProto:
    row = np.arange(1000, dtype=np.float32)
    return _model([helper.make_node("Expand", ["row", "s"], ["e"])], "e", row=row, s=_ints(1 << 30, 1000))


def reshaped() -> onnx.ModelProto:
    nodes = [helper.make_node("Expand", ["row", "s"], ["e"]), helper.make_node("Reshape", ["e", "flat"], ["f"])]
    return _model(nodes, "f", row=np.arange(1000, dtype=np.float32), s=_ints(10_000_000, 1000), flat=_ints(-1))


def weight() -> onnx.ModelProto:
    """A generated weight of a layer."""
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["m"])]
    return _model(nodes, "m", s=_ints(4, 1 << 34))


def outer() -> onnx.ModelProto:
    """A sum of two vectors that broadcast against each other, once in a row of additions and once by itself."""
    a, b = np.ones((1 << 17, 1), np.float32), np.ones((1, 1 << 17), np.float32)
    nodes = [helper.make_node("Add", ["x0", "a"], ["p"]), helper.make_node("Add", ["p", "b"], ["q"]),
             helper.make_node("Add", ["a", "b"], ["r"]), helper.make_node("Mul", ["q", "r"], ["s"]),
             helper.make_node("ReduceSum", ["x"], ["x0"], keepdims=0)]  # fmt: skip
    return _model([nodes[-1], *nodes[:-1]], "s", a=a, b=b)


def sparse() -> onnx.ModelProto:
    model = _model([helper.make_node("MatMul", ["x", "w"], ["m"])], "m")
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    indices = numpy_helper.from_array(_ints(7), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 1 << 36]))
    return model


def doubling() -> onnx.ModelProto:
    nodes = [helper.make_node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=0) for i in range(36)]
    return _model(nodes, "c36", c0=np.ones(1, np.float32))


def strings() -> onnx.ModelProto:
    nodes = [helper.make_node("StringConcat", [f"c{i}", f"c{i}"], [f"c{i + 1}"]) for i in range(36)]
    nodes.append(helper.make_node("Equal", ["c36", "c0"], ["e"]))
    return _model(nodes, "e", opset=20, c0=np.array(["laugh"], object))


def many() -> onnx.ModelProto:
    """Many results, each of them small enough."""
    nodes = [helper.make_node("Tile", ["f", "n"], [f"t{i}"]) for i in range(8000)]
    return _model([*nodes, helper.make_node("Sum", [f"t{i}" for i in range(8000)], ["s"])], "s",
                  f=np.ones(1, np.float32), n=_ints(1 << 18))  # fmt: skip


def products() -> onnx.ModelProto:
    nodes = [helper.make_node("Tile", ["f", "n"], ["p0"])]
    nodes += [helper.make_node("MatMul", [f"p{i}", f"p{i}"], [f"p{i + 1}"]) for i in range(4000)]
    return _model(nodes, "p4000", f=np.full((1, 1), 1e-3, np.float32), n=_ints(500, 500))


def contraction() -> onnx.ModelProto:
    node = helper.make_node("Einsum", ["v", "v", "v", "v"], ["e"], equation="a,b,c,d->")
    return _model([node], "e", v=np.ones(2000, np.float32))


def scalars() -> onnx.ModelProto:
    nodes = [helper.make_node("Cos", [f"c{i}"], [f"c{i + 1}"]) for i in range(20_000)]
    return _model(nodes, "c20000", c0=np.ones(1, np.float32))


def rank() -> onnx.ModelProto:
    """A shape of more sizes than there is memory for."""
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["n"], value=numpy_helper.from_array(_ints(1))),
             helper.make_node("ConstantOfShape", ["n"], ["c"]), helper.make_node("Expand", ["x", "n"], ["e"]),
             helper.make_node("Sum", ["c", "e"], ["f"])]  # fmt: skip
    return _model(nodes, "f", s=_ints(1 << 33))


def filled_somewhat() -> onnx.ModelProto:
    """What a machine could hold, and no file should."""
    return _model([helper.make_node("ConstantOfShape", ["s"], ["c"])], "c", s=_ints(40_000, 30_000))


def wide() -> onnx.ModelProto:
    """A node that reads thousands of different values."""
    nodes = [helper.make_node("Mul", ["x", f"k{i}"], [f"t{i}"]) for i in range(3000)]
    constants = {f"k{i}": np.float32(i + 1) for i in range(3000)}
    return _model([*nodes, helper.make_node("Sum", [f"t{i}" for i in range(3000)], ["s"])], "s", **constants)


def padded() -> onnx.ModelProto:
    node = helper.make_node("Pad", ["f", "pads"], ["p"])
    return _model([node], "p", f=np.ones((1, 1), np.float32), pads=_ints(1 << 20, 1 << 20, 1 << 20, 1 << 20))


def one_hot() -> onnx.ModelProto:
    node = helper.make_node("OneHot", ["i", "depth", "v"], ["o"])
    return _model([node], "o", i=_ints(*range(1000)), depth=np.int64(1 << 40), v=np.array([0, 1], np.float32))


def resized() -> onnx.ModelProto:
    node = helper.make_node("Resize", ["f", "", "scales"], ["r"])
    return _model([node], "r", f=np.ones((1, 1, 2, 2), np.float32), scales=np.array([1, 1, 1e6, 1e6], np.float32))


def sums() -> onnx.ModelProto:
    """Sizes that are sums, and a product of all of them."""
    model = _model([helper.make_node("Reshape", ["w", "flat"], ["r"])], "r", flat=_ints(-1))
    names = [" + ".join(f"{one}{axis}" for one in "abcdefgh") for axis in range(40)]
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, names))
    return model


def expression() -> onnx.ModelProto:
    model = sums()
    shape = model.graph.input[-1].type.tensor_type.shape
    del shape.dim[1:]
    shape.dim[0].dim_param = "*".join(["(a+b+c+d+e)"] * 40)
    return model


def _loop(node: NodeProto, trip: int) -> onnx.ModelProto:
    """A loop whose body makes `b` of `a`."""
    counted = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    goes, on = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("goes", "on"))
    carried, left = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "ab")
    nodes = [node, helper.make_node("Identity", ["goes"], ["on"])]
    body = helper.make_graph(nodes, "body", [counted, goes, carried], [on, left])
    loop = helper.make_node("Loop", ["trip", "yes", "row"], ["l"], body=body)
    flat = helper.make_node("Reshape", ["x", "flat"], ["row"])
    return _model([flat, loop], "l", trip=np.int64(trip), yes=np.bool_(True), flat=_ints(-1))


def endless() -> onnx.ModelProto:
    return _loop(helper.make_node("Cos", ["a"], ["b"]), 1 << 40)


def growing() -> onnx.ModelProto:
    return _loop(helper.make_node("Concat", ["a", "a"], ["b"], axis=0), 1 << 40)


def ordered() -> onnx.ModelProto:
    """As much as the sample asks for, which is 2^31 at any."""
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["z"]),
        helper.make_node("ReduceMax", ["z"], ["m"], keepdims=0),
        helper.make_node("Add", ["m", "size"], ["a"]),
        helper.make_node("Cast", ["a"], ["n"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["n", "one"], ["s"]),
        helper.make_node("Expand", ["zero", "s"], ["e"]),
    ]
    return _model(nodes, "e", zero=np.float32(0), size=np.float32(1 << 31), one=_ints(1))


def sequence() -> onnx.ModelProto:
    """A list that holds a weight a thousand times."""
    nodes = [
        helper.make_node("SequenceConstruct", ["f"] * 1000, ["s"]),
        helper.make_node("ConcatFromSequence", ["s"], ["c"], axis=0),
    ]
    return _model(nodes, "c", f=np.ones(1 << 20, np.float32))


def pieces() -> onnx.ModelProto:
    """A list of a million tensors of one element."""
    nodes = [
        helper.make_node("Expand", ["f", "size"], ["v"]),
        helper.make_node("SplitToSequence", ["v"], ["s"]),
        helper.make_node("ConcatFromSequence", ["s"], ["c"], axis=0),
    ]
    return _model(nodes, "c", f=np.ones(1, np.float32), size=_ints(1 << 20))


def squares() -> onnx.ModelProto:
    """Products of what a sample of four numbers is spread to."""
    nodes = [helper.make_node("Tile", ["x", "n"], ["p0"])]
    nodes += [helper.make_node("MatMul", [f"p{i}", f"p{i}"], [f"p{i + 1}"]) for i in range(100)]
    return _model(nodes, "p100", n=_ints(8192, 2048))


def parts() -> onnx.ModelProto:
    """A node that makes more values than a runtime counts quickly."""
    names = [f"o{i}" for i in range(60_000)]
    node = helper.make_node("Split", ["f"], names, axis=0, num_outputs=len(names))
    return _model([node], "o3", opset=18, f=np.ones(len(names), np.float32))


def spread() -> onnx.ModelProto:
    """Little work on each of many large values, made of a sample of four numbers."""
    nodes = [helper.make_node("Tile", ["x", "n"], ["t0"])]
    nodes += [helper.make_node("Softmax", [f"t{i}"], [f"t{i + 1}"]) for i in range(400)]
    return _model(nodes, "t400", n=_ints(1 << 8, 1 << 14))


def long_concat(length: int) -> onnx.ModelProto:
    """Concats in Concats: one that reads all of them comes out."""
    row = helper.make_node("Relu", ["x"], ["h0"])
    nodes = [helper.make_node("Concat", [f"h{i}", "row"], [f"h{i + 1}"], axis=0) for i in range(length)]
    return _model([row, *nodes], f"h{length}", row=np.ones((1, 4), np.float32))


def axes(count: int) -> onnx.ModelProto:
    """Names of sizes, as many for each of thousands of values."""
    model = chain(3000)
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [f"size{axis}" for axis in range(count)])
    )
    return model


def many_outputs(count: int, calls: int) -> onnx.ModelProto:
    """Calls of a function that makes thousands of values, of which each reads one."""
    nodes = [helper.make_node("big", [f"h{i}" if i else "x"], [f"h{i + 1}"], domain="own") for i in range(calls)]
    model = _model(nodes, f"h{calls}")
    inner = [helper.make_node("Relu", ["a"], [f"b{i}"]) for i in range(count)]
    outputs = [f"b{i}" for i in range(count)]
    model.functions.append(helper.make_function("own", "big", ["a"], outputs, inner, OPSETS))
    return model


def _function(name: str, nodes: list[NodeProto], attributes: list[str] | None = None) -> onnx.FunctionProto:
    return helper.make_function("own", name, ["a"], ["b"], nodes, OPSETS, attributes)


def laughs(levels: int, calls: int = 2) -> onnx.ModelProto:
    """Functions that call the next one `calls` times."""
    model = _model([helper.make_node("f0", ["x"], ["l"], domain="own")], "l")
    for level in range(levels):
        names = ["a", *(f"t{i}" for i in range(calls - 1)), "b"]
        op, domain = (f"f{level + 1}", "own") if level + 1 < levels else ("Relu", "")
        nodes = [helper.make_node(op, [one], [two], domain=domain) for one, two in itertools.pairwise(names)]
        model.functions.append(_function(f"f{level}", nodes))
    return model


def chain(length: int) -> onnx.ModelProto:
    """A long line of nodes from the input, each of its own."""
    nodes = [helper.make_node("Mul", [f"h{i}", "k"], [f"h{i + 1}"]) for i in range(length)]
    nodes.insert(0, helper.make_node("Relu", ["x"], ["h0"]))
    return _model(nodes, f"h{length}", k=np.float32(1.0000001))


def slopes(length: int) -> onnx.ModelProto:
    """A long line of nodes whose attributes all differ."""
    nodes = [helper.make_node("LeakyRelu", [f"h{i}"], [f"h{i + 1}"], alpha=i / length) for i in range(length)]
    nodes.insert(0, helper.make_node("Identity", ["x"], ["h0"]))
    return _model(nodes, f"h{length}")


BOMBS: dict[str, Callable[[], onnx.ModelProto]] = {
    one.__name__: one
    for one in (
        *(tile, liar, count, hidden_count, filled, overfilled, expanded, reshaped, weight, outer, sparse, doubling),
        *(filled_somewhat, wide, gathered, endless, growing, ordered, parts, pieces, sequence, spread, squares),
        *(strings, many, products, contraction, scalars, rank, padded, one_hot, resized, sums, expression),
    )
} | {
    "laughs-16": lambda: laughs(16),
    "laughs-40": lambda: laughs(40),
    "laughs-2x400": lambda: laughs(400),
    "calls-400": lambda: laughs(400, 1),
    "calls-3000": lambda: laughs(3000, 1),
    "calls-wide": lambda: laughs(4, 30),
    "chain-12000": lambda: chain(12_000),
    "concats-8000": lambda: long_concat(8000),
    "axes-5000": lambda: axes(5000),
    "outputs-4000": lambda: many_outputs(4000, 4000),
}
