"""Random small graphs: what must hold for every one of them."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optc.ir.graph import Function, Graph, Header, Value
from optc.ir.names import unique_names
from optc.ir.onnx.reader import from_bytes
from optc.ir.onnx.writer import to_bytes
from optc.ir.origin import Origin
from optc.ir.tensor import ArrayTensor, FillTensor, SparseTensor, Tensor, pack, unpack
from optc.ir.text.dump import dump
from optc.ir.text.parse import parse
from optc.ir.types import DType, SequenceType, Shape, TensorType, Type
from optc.ir.verify.verify import verify

HINTS = st.one_of(
    st.sampled_from(["", "a", "b", "x", "a_1", "relu", "1", "b c", "_", "from", "é"]),
    st.text('ab_.:-/>$1 "\\', max_size=4),
)
"""Names that collide, and names of what the text's own syntax is made of."""
DTYPES = st.sampled_from([dtype for dtype in DType if dtype is not DType.UNDEFINED])
STRINGS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
RELAXED = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@st.composite
def dense(draw: st.DrawFn) -> Tensor:
    dtype, shape = draw(DTYPES), tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = int(np.prod(shape))
    if dtype is DType.STRING:
        array = np.empty(size, object)
        array[:] = draw(st.lists(st.binary(max_size=3), min_size=size, max_size=size))
        return ArrayTensor(array.reshape(shape), dtype)
    if dtype is DType.BOOL:
        bits = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        return ArrayTensor(np.array(bits, bool).reshape(shape), dtype)
    length = dtype.file_bytes(size)
    raw = np.frombuffer(draw(st.binary(min_size=length, max_size=length)), np.uint8)
    array = raw.view(dtype.numpy).reshape(shape) if dtype.bits % 8 == 0 else unpack(raw, dtype, shape)
    return ArrayTensor(array, dtype)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    tensor = draw(dense())
    if tensor.size and draw(st.integers(0, 4)) == 0:
        return FillTensor(tensor.numpy().reshape(-1)[0], tensor.shape, tensor.dtype)
    return tensor


@st.composite
def types(draw: st.DrawFn, dtype: DType = DType.FLOAT) -> Type | None:
    sizes: st.SearchStrategy[int | str | None] = st.one_of(
        st.integers(0, 9), st.sampled_from(["N", "2 * N"]), st.none()
    )
    shape: Shape | None = draw(st.one_of(st.none(), st.lists(sizes, max_size=3).map(tuple)))
    return draw(st.sampled_from([None, TensorType(dtype, shape), SequenceType(TensorType(dtype, shape))]))


def attributes(draw: st.DrawFn) -> dict[str, object]:
    value = st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.floats(width=32),
        STRINGS,
        st.lists(st.integers(-9, 9), min_size=1, max_size=3),
        st.lists(st.floats(width=32), min_size=1, max_size=3),
        st.lists(STRINGS, min_size=1, max_size=2),
        tensors().filter(lambda tensor: not isinstance(tensor, FillTensor)),
    )
    return draw(st.dictionaries(st.sampled_from(["alpha", "k", "odd name"]), value, max_size=2))


def fill(draw: st.DrawFn, graph: Graph, around: list[Value], depth: int) -> list[Value]:
    """Nodes and constants for `graph`; returns every value that it may return."""
    values = list(graph.inputs)
    for _ in range(draw(st.integers(0, 3))):
        values.append(graph.constant(draw(tensors()), draw(HINTS)))
    for _ in range(draw(st.integers(0, 4))):
        visible = values + around
        reads = draw(st.lists(st.one_of(st.none(), st.sampled_from(visible)), max_size=3)) if visible else []
        kinds = ["relu", "custom", "call"] + (["if"] if depth and visible else [])
        kind = draw(st.sampled_from(kinds))
        name, origin = draw(HINTS), Origin(tuple(draw(st.lists(HINTS, max_size=2))))
        if kind == "relu" and visible:
            node = graph.add("Relu", [draw(st.sampled_from(visible))], outputs=[draw(HINTS)], name=name, origin=origin)
        elif kind == "if":
            count = draw(st.integers(1, 2))
            bodies = {branch: body(draw, visible, depth - 1, count) for branch in ("then_branch", "else_branch")}
            hints = [draw(HINTS) for _ in range(count)]
            node = graph.add("If", [draw(st.sampled_from(visible))], bodies, outputs=hints, name=name)
        elif kind == "call":
            node = graph.add("f", reads[:1], {"alpha": 1.0}, domain="local", outputs=[draw(HINTS)], name=name)
        else:
            hints = [draw(HINTS) for _ in range(draw(st.integers(1, 3)))]
            node = graph.add("Custom", reads, attributes(draw), outputs=hints, name=name, domain="other")  # type: ignore[arg-type]
            node.doc = draw(STRINGS)
        for value in node.outputs:
            value.type = draw(types())
            values.append(value)
    return values


def body(draw: st.DrawFn, around: list[Value], depth: int, count: int) -> Graph:
    graph = Graph(draw(HINTS))
    values = fill(draw, graph, around, depth) + around
    for index in range(count):
        graph.add_output(draw(st.sampled_from(values)), f"out{index}")
    return graph


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph("g", opsets={"": 18, "local": 1, "other": 2})
    graph.header = Header(10, draw(STRINGS), draw(STRINGS), draw(STRINGS), draw(st.integers(0, 9)), draw(STRINGS))
    graph.doc = draw(STRINGS)
    for name in draw(st.lists(st.sampled_from(["x", "a", "in put"]), min_size=1, max_size=3, unique=True)):
        graph.add_input(name, TensorType(DType.FLOAT, draw(st.sampled_from([(), ("N", 3), None]))))
    if draw(st.booleans()):
        default = draw(dense().filter(lambda tensor: tensor.dtype is not DType.STRING))
        graph.add_input("default", TensorType(default.dtype, default.shape), default=default)
    if draw(st.integers(0, 3)) == 0:
        values = ArrayTensor(np.float32([1, 2]))
        graph.constant(SparseTensor(values, ArrayTensor(np.int64([0, 5])), (2, 3)), "sparse")
    pool = fill(draw, graph, [], depth=2)
    for index in range(draw(st.integers(1, 3))):
        output = graph.add_output(draw(st.sampled_from(pool)), f"y{index}")
        output.doc = draw(STRINGS)
    inner = Graph("f", opsets={"": 18})
    inner.add_output(inner.add("Elu", [inner.add_input("a", None)]).output, "b")
    graph.functions["local", "f", ""] = Function("local", "f", "", inner, ("alpha",))
    return graph


def whole(graph: Graph) -> str:
    return dump(graph, tensors="inline")


@RELAXED
@given(graphs())
def test_the_verifier_holds(graph: Graph) -> None:
    verify(graph)


@RELAXED
@given(graphs())
def test_parsing_a_dump_gives_the_graph(graph: Graph) -> None:
    again = parse(whole(graph))
    verify(again)
    assert whole(again) == whole(graph)
    assert bits(again) == bits(graph)


@RELAXED
@given(graphs())
def test_a_clone_is_equal(graph: Graph) -> None:
    copy = graph.clone()
    verify(copy)
    assert whole(copy) == whole(graph)


@RELAXED
@given(graphs())
def test_writing_and_reading_settles_at_once(graph: Graph) -> None:
    """The first way gives names that must differ a suffix and a returned input its Identity; then all is fixed."""
    first = from_bytes(to_bytes(graph))
    verify(first)
    data = to_bytes(first)
    second = from_bytes(data)
    assert whole(second) == whole(first)
    assert to_bytes(second) == data
    assert [value.name for value in first.inputs] == [value.name for value in graph.inputs]
    assert [(o.name, o.type, o.doc) for o in first.outputs] == [(o.name, o.type, o.doc) for o in graph.outputs]
    assert sum(node.op != "Identity" for node in first.walk()) == sum(node.op != "Identity" for node in graph.walk())


@RELAXED
@given(graphs())
def test_names_are_unique_where_they_meet(graph: Graph) -> None:
    names = unique_names(graph)

    def check(one: Graph, outer: set[str]) -> None:
        met = [names[v] for v in (*one.inputs, *one.constants, *(v for n in one for v in n.outputs))]
        met = [name for name in met if name] + [
            names[o] for o in one.outputs if o.value.graph is not one or names[o] != names[o.value]
        ]
        assert len(set(met)) == len(met)
        assert not outer.intersection(met)
        for node in one:
            for inner in node.bodies:
                check(inner, outer | set(met))

    check(graph, set())
    assert all(names[v] for g in graph.graphs() for n in g for v in n.outputs if v.uses)


@RELAXED
@given(graphs(), st.randoms(use_true_random=False))
def test_sort_mends_any_order_and_leaves_a_sorted_graph(graph: Graph, random: Random) -> None:
    before = whole(graph)
    assert not graph.sort()
    assert whole(graph) == before
    nodes = {one: set(one) for one in graph.graphs()}
    for one in graph.graphs():
        shuffled = list(one)
        random.shuffle(shuffled)
        for node in shuffled:
            one.move(node)
    graph.sort()
    verify(graph)
    assert {one: set(one) for one in graph.graphs()} == nodes
    assert not graph.sort()


@RELAXED
@given(graphs(), st.data())
def test_any_run_of_edits_leaves_a_sound_graph(graph: Graph, data: st.DataObject) -> None:
    """Edits that the verbs allow keep every rule, if what they read is visible and of the right type."""
    for _ in range(data.draw(st.integers(1, 8))):
        one = data.draw(st.sampled_from(list(graph.graphs())))
        nodes = list(one)
        edit = data.draw(st.sampled_from(["bypass", "insert", "remove", "input", "output", "sweep", "constant"]))
        if edit == "sweep":
            graph.sweep()
        elif edit == "constant":
            one.constant(data.draw(tensors()), data.draw(HINTS))
        elif not nodes:
            continue
        else:
            node = data.draw(st.sampled_from(nodes))
            before = [v for v in node.inputs if v is not None]
            if edit == "bypass" and before:
                node.output.replace_uses(before[0])
            elif edit == "insert" and before:
                new = one.add("Relu", [before[0]], outputs=[data.draw(HINTS)], before=node)
                node.set_input(node.inputs.index(before[0]), new.output)
            elif edit == "remove" and not any(value.uses for value in node.outputs):
                one.remove(node)
            elif edit == "input" and node.domain == "other":
                node.set_input(data.draw(st.integers(0, 4)), data.draw(st.sampled_from([None, *one.inputs])))
            elif edit == "output" and one.outputs:
                one.set_output(data.draw(st.integers(0, len(one.outputs) - 1)), node.output)
    for one in graph.graphs():
        for output in one.outputs:
            output.type = output.value.type
    verify(graph)
    assert whole(parse(whole(graph))) == whole(graph)
    graph.sweep()
    verify(graph)
    assert graph.sweep() == 0


def bits(graph: Graph) -> list[tuple[DType, tuple[int, ...], bytes | list[bytes]]]:
    """The data of every constant, exactly."""
    tensors: list[tuple[DType, tuple[int, ...], bytes | list[bytes]]] = []
    for one in graph.graphs():
        for value in one.constants:
            assert value.constant is not None
            array = value.constant.numpy()
            data = array.reshape(-1).tolist() if value.dtype is DType.STRING else pack(array, value.constant.dtype)
            tensors.append((value.constant.dtype, value.constant.shape, data))
    return tensors
