"""Shape inference: symbolic sizes, shape arithmetic, bodies, functions, recorded types."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from optc.errors import ModelError
from optc.ir.graph import Graph
from optc.ir.shapes.infer import analyse, bind, infer
from optc.ir.text.dump import dump
from optc.ir.text.parse import parse
from optc.ir.types import DType, TensorType

CASES = [
    # inputs, node, types of the outputs
    ("x: float[N, 3], w: float[3, 5]", "y = MatMul(x, w)", "float[N, 5]"),
    ("x: float[N, T, 3], w: float[N, 3, T]", "y = MatMul(x, w)", "float[N, T, T]"),
    ("x: float[3], w: float[N, 3, 5]", "y = MatMul(x, w)", "float[N, 5]"),
    ("x: float[N, 3], w: float[5, 3]", "y = Gemm<transB=1>(x, w)", "float[N, 5]"),
    ("x: float[N, 1, 4], w: float[T, 1]", "y = Add(x, w)", "float[N, T, 4]"),
    ("x: float[N], w: float[M]", "y = Add(x, w)", 'float["max(M, N)"]'),
    ("x: float[N, 3], w: float[N, 3]", "y = Less(x, w)", "bool[N, 3]"),
    ("x: uint8[3], w: uint8[N, 3]", 'y = BitShift<direction="LEFT">(x, w)', "uint8[N, 3]"),
    ("x: float[N, 3, H, 9], w: float[8, 3, 3, 3]", "y = Conv<pads=[1, 1, 1, 1]>(x, w)", "float[N, 8, H, 9]"),
    (
        "x: float[N, 3, H, 9], w: float[8, 3, 3, 3]",
        "y = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(x, w)",
        'float[N, 8, "floor((H + 1)/2)", 5]',
    ),
    (
        "x: float[N, 3, H, 9], w: float[8, 3, 3, 3]",
        'y = Conv<auto_pad="SAME_UPPER", strides=[2, 2]>(x, w)',
        'float[N, 8, "floor((H + 1)/2)", 5]',
    ),
    (
        "x: float[N, 4, H, W], w: float[4, 6, 2, 2]",
        "y = ConvTranspose<strides=[2, 2]>(x, w)",
        'float[N, 6, "2*H", "2*W"]',
    ),
    ("x: float[N, 4, H, 7]", "y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(x)", 'float[N, 4, "floor(H/2)", 3]'),
    ("x: float[N, 4, 7, 7]", "y = MaxPool<ceil_mode=1, kernel_shape=[2, 2], strides=[2, 2]>(x)", "float[N, 4, 4, 4]"),
    ("x: float[N, 4, H, W]", "y = GlobalAveragePool(x)", "float[N, 4, 1, 1]"),
    ("x: float[N, T, 12]", "y = Reshape(x, int64[3] {0, -1, 6})", 'float[N, "2*T", 6]'),
    ("x: float[N, T, 12]", "y = Reshape(x, int64[1] {-1})", 'float["12*N*T"]'),
    ("x: float[N, T, 12]", "y = Flatten<axis=2>(x)", 'float["N*T", 12]'),
    ("x: float[N, T, 12]", "y = Transpose<perm=[2, 0, 1]>(x)", "float[12, N, T]"),
    ("x: float[N, T], w: float[N, 3]", "y = Concat<axis=1>(x, w)", 'float[N, "T + 3"]'),
    ("x: float[N, T], w: float[3, T]", "y = Concat<axis=1>(x, w)", 'float[3, "2*T"]'),
    ("x: float[N, T]", "y = Slice(x, int64[1] {1}, int64[1] {9223372036854775807}, int64[1] {1})", 'float[N, "T - 1"]'),
    ("x: float[N, T]", "y = Slice(x, int64[1] {0}, int64[1] {5}, int64[1] {1})", 'float[N, "min(5, T)"]'),
    ("x: float[N, 9]", "y = Slice(x, int64[1] {7}, int64[1] {-9}, int64[1] {1}, int64[1] {-2})", "float[N, 4]"),
    ("x: float[50, 8], w: int64[N, T]", "y = Gather(x, w)", "float[N, T, 8]"),
    ("x: float[N, 1, T]", "y = Squeeze(x, int64[1] {1})", "float[N, T]"),
    ("x: float[N, T]", "y = Unsqueeze(x, int64[2] {0, -1})", "float[1, N, T, 1]"),
    ("x: float[1, T]", "y = Expand(x, int64[3] {2, 3, 1})", "float[2, 3, T]"),
    ("x: float[N, T]", "y = Tile(x, int64[2] {1, 3})", 'float[N, "3*T"]'),
    ("x: float[N, T]", "y = Pad(x, int64[4] {0, 1, 0, 2})", 'float[N, "T + 3"]'),
    ("x: float[N, T, 4]", "y = ReduceMean(x, int64[1] {-1})", "float[N, T, 1]"),
    ("x: float[N, T, 4]", "y = ReduceMax<keepdims=0>(x, int64[1] {1})", "float[N, 4]"),
    ("x: float[N, T, 4]", "y = ReduceSum<noop_with_empty_axes=1>(x)", "float[N, T, 4]"),
    ("x: float[N, T, 4]", "y = ArgMax<axis=1, keepdims=0>(x)", "int64[N, 4]"),
    ("x: float[N, 9]", "y, z = TopK(x, int64[1] {3})", "float[N, 3]; int64[N, 3]"),
    ("x: float[N, 6]", "y, z = Split<axis=1>(x, int64[2] {2, 4})", "float[N, 2]; float[N, 4]"),
    ("x: float[N, 7]", "y, z = Split<axis=1, num_outputs=2>(x)", "float[N, 4]; float[N, 3]"),
    ("x: float[N, 8, H, W]", "y = DepthToSpace<blocksize=2>(x)", 'float[N, 2, "2*H", "2*W"]'),
    ("x: float[N, 8, H, 3]", "y = Resize(x, _, float[4] {1, 1, 2, 1.5})", 'float[N, 8, "2*H", 4]'),
    ("x: float[N, 8]", "y = Cast<to=10>(x)", "float16[N, 8]"),
    ("x: float[N, 8]", "y = Shape(x)", "int64[2]"),
    ("x: float[N, 8]", "y = NonZero(x)", "int64[2, ?]"),
    ("x: float[N, 8]", "y = QuantizeLinear(x, float[] {0.1}, int8[] {0})", "int8[N, 8]"),
    ("x: uint8[N, 8]", "y = DequantizeLinear(x, float[] {0.1}, uint8[] {0})", "float[N, 8]"),
    ("x: float[T, N, 3], w: float[2, 20, 3], r: float[2, 20, 5]",
     'y, h, c = LSTM<direction="bidirectional", hidden_size=5>(x, w, r)',
     "float[T, 2, N, 5]; float[2, N, 5]; float[2, N, 5]"),
    ("x: float[N, T, 8], w: float[H, 8, 4]", 'y = Einsum<equation="ntd,hde->nhte">(x, w)', "float[N, H, T, 4]"),
    ("x: float[N, 8], s: float[8]", "y, m = LayerNormalization(x, s)", "float[N, 8]; float[N, 1]"),
    ("x: float[T, T]", "y = Det(x)", "float[]"),
    ("x: float[N, 4, 4]", "y = Det(x)", "float[N]"),
    ("x: float[N, 4]", "y = com.example.Own(x)", "?"),
]  # fmt: skip


def graph_of(inputs: str, lines: str, outputs: str = "y") -> Graph:
    """The graph of a few lines of text, with a constant for each tensor written among a node's inputs."""
    texts: list[str] = []

    def constant(match: re.Match[str]) -> str:
        texts.append(match[0])
        return f"k{len(texts)}"

    body = re.sub(r"(?<!=)\b(?:float|u?int\d+|bool)(?:\[[\d, ]*\])? \{[^}]*\}", constant, lines)
    constants = "\n".join(f"k{i + 1} = {text}" for i, text in enumerate(texts))
    return parse(f"opset 21\nopset com.example 1\ngraph g({inputs}) -> ({outputs}) {{\n{constants}\n{body}\n}}")


@pytest.mark.parametrize(("inputs", "line", "expected"), CASES, ids=[case[1][:40] for case in CASES])
def test_an_operator(inputs: str, line: str, expected: str) -> None:
    graph = graph_of(inputs, line)
    infer(graph)
    names = line.partition(" = ")[0].split(", ")
    declared = ", ".join(f"{name}: {type}" for name, type in zip(names, expected.split("; "), strict=True))
    wanted = [value.type for value in parse(f"graph g({declared}) -> () {{}}").inputs]
    [node] = graph
    assert [value.type for value in node.outputs] == wanted


def elements_of(graph: Graph, name: str = "s") -> list[str]:
    elements = analyse(graph).elements
    [value] = [value for node in graph for value in node.outputs if value.name == name]
    return [str(element) for element in elements[value]]


@pytest.mark.parametrize(
    ("lines", "elements"),
    [
        ("s = Shape(x)", ["N", "3", "H", "W"]),
        ("s = Shape<start=-2>(x)", ["H", "W"]),
        ("a = Shape(x)\ns = Gather(a, int64[] {0})", ["N"]),
        ("a = Shape(x)\ns = Slice(a, int64[1] {2}, int64[1] {4}, int64[1] {0})", ["H", "W"]),
        ("a = Shape(x)\ns = Slice(a, int64[1] {-1}, int64[1] {-9}, int64[1] {0}, int64[1] {-1})", ["W", "H", "3", "N"]),
        ("a = Shape(x)\nb = Gather(a, int64[1] {3})\ns = Concat<axis=0>(b, int64[1] {-1})", ["W", "-1"]),
        ("a = Shape(x)\ns = Mul(a, int64[] {2})", ["2*N", "6", "2*H", "2*W"]),
        ("a = Shape(x)\ns = ReduceProd<keepdims=0>(a)", ["3*H*N*W"]),
        ("s = Size(x)", ["3*H*N*W"]),
        ("a = Shape<start=2>(x)\ns = Div(a, int64[] {2})", ["floor(H/2)", "floor(W/2)"]),
        ("a = Shape(x)\nb = Cast<to=1>(a)\nc = Mul(b, float[] {2})\nd = Floor(c)\ns = Cast<to=7>(d)",
         ["2*N", "6", "2*H", "2*W"]),
        ("a = Shape(x)\nb = Equal(a, int64[] {-1})\ns = Where(b, int64[] {1}, a)", ["N", "3", "H", "W"]),
        ("a = Shape(x)\nb, s = Split(a, int64[2] {1, 3})", ["3", "H", "W"]),
        ("a = Mul(float[] {3}, float[] {0.33333334})\nb = Floor(a)\ns = Cast<to=7>(b)", ["1"]),
        ("s = Cast<to=6>(float[3] {-2.5, 2.5, 7})", ["-2", "2", "7"]),
        ("s = Range(int64[] {1}, int64[] {8}, int64[] {3})", ["1", "4", "7"]),
        ("a = ConstantOfShape<value=int64[1] {7}>(int64[1] {2})\nb = Unsqueeze(a, int64[1] {0})\n"
         "c = Transpose(b)\ns = Reshape(c, int64[1] {-1})", ["7", "7"]),
    ],
)  # fmt: skip
def test_shape_arithmetic(lines: str, elements: list[str]) -> None:
    graph = graph_of("x: float[N, 3, H, W]", lines, "s")
    assert elements_of(graph) == elements


def test_a_size_of_which_nothing_is_known_stays_the_same_one() -> None:
    graph = graph_of(
        "x: float[?, 3], i: int64[1]", "s = Shape(x)\nb = Gather(s, i)\ny = Reshape(x, s)\nz = Relu(x)", "y, z"
    )
    inference = infer(graph)
    y, z = (output.value for output in graph.outputs)
    assert y.shape == z.shape == (None, 3)
    assert inference.shape(y) == inference.shape(z) == inference.shape(graph.inputs[0])


def test_an_unknown_element_is_no_size() -> None:
    """An element of an input may be -1 or 0, so the size that Reshape makes of it is another unknown."""
    graph = graph_of("x: float[N, 3], i: int64[2]", "y = Reshape(x, i)\nz = Concat<axis=0>(i, int64[1] {3})", "y, z")
    inference = infer(graph)
    assert graph.outputs[0].value.shape == (None, None)
    first, second = inference.shape(graph.outputs[0].value) or ()
    assert first != second


@pytest.mark.parametrize(
    "step", ["h{1} = Mul(h{0}, h{0})\n", "a{1} = Div(h{0}, int64[] {{3}})\nh{1} = Min(a{1}, h{0})\n"]
)
def test_arithmetic_that_explodes_is_given_up(step: str) -> None:
    """Squaring a size forty times has 2**40 factors."""
    lines = "h0 = Shape<end=1>(x)\nh1 = Add(h0, int64[] {1})\n" + "".join(step.format(i, i + 1) for i in range(1, 40))
    graph = graph_of("x: float[N, 3]", lines + "y = ConstantOfShape(h40)")
    infer(graph)
    assert graph.outputs[0].value.shape == (None,)


class TestRecorded:
    """How types that the model records meet the inferred ones."""

    def test_a_recorded_size_completes_an_unknown_one(self) -> None:
        graph = graph_of("x: float[N, 3]", "y: int64[2, 7] = NonZero(x)")
        infer(graph)
        assert graph.outputs[0].value.shape == (2, 7)

    def test_an_inferred_size_wins(self) -> None:
        graph = graph_of("x: float[N, 3]", "y: float[1, 3] = Relu(x)")
        infer(graph)
        assert graph.outputs[0].value.shape == ("N", 3)

    def test_a_recorded_element_type_must_agree(self) -> None:
        graph = graph_of("x: float[N, 3]", "y: int64[N, 3] = Relu(x)")
        with pytest.raises(ModelError, match=r"'y'.*int64.*float"):
            infer(graph)

    def test_fresh_forgets_what_is_stale(self) -> None:
        graph = graph_of("x: float[N, 3]", "h: int64[2, 7] = NonZero(x)\nz: float[1] = Cast<to=1>(h)", "z")
        infer(graph, fresh=True)
        assert graph.outputs[0].value.type == TensorType(DType.FLOAT, (2, None))

    def test_fresh_keeps_what_only_the_model_can_say(self) -> None:
        graph = graph_of("x: float[N, 3]", "h: float[N, 5] = com.example.Own(x)\ny = Relu(h)")
        infer(graph, fresh=True)
        assert graph.outputs[0].value.shape == ("N", 5)

    def test_the_interface_stays_as_declared(self) -> None:
        graph = graph_of("x: float[N, 3]", "y = Relu(x)", "y: float[M, ?]")
        infer(graph, fresh=True)
        assert graph.outputs[0].type == TensorType(DType.FLOAT, ("M", None))
        assert graph.outputs[0].value.shape == ("N", 3)

    def test_a_second_time_changes_nothing(self) -> None:
        graph = graph_of("x: float[N, 3, H, W], w: float[4, 3, 3, 3]", "h = Conv(x, w)\ny = Flatten(h)")
        infer(graph)
        text = dump(graph)
        infer(graph)
        assert dump(graph) == text


@pytest.mark.parametrize(
    ("inputs", "line", "message"),
    [
        ("x: float[2, 3], w: float[4, 3]", "y = Add(x, w)", "do not broadcast"),
        ("x: float[2, 3], w: float[4, 3]", "y = MatMul(x, w)", "inner sizes 3 and 4"),
        ("x: float[1, 3, 8, 8], w: float[4, 2, 3, 3]", "y = Conv(x, w)", "3 channels"),
        ("x: float[1, 3, 2, 2], w: float[4, 3, 3, 3]", "y = Conv(x, w)", "does not fit"),
        ("x: float[2, 3]", "y = Reshape(x, int64[2] {4, -1})", "do not divide"),
        ("x: float[2, 3]", "y = Transpose<perm=[0, 0]>(x)", "no permutation"),
        ("x: float[2, 3]", "y = Softmax(x)\nz = Concat<axis=5>(x, y)", "axis 5"),
        ("x: float[2, 6]", "y, z = Split<axis=1>(x, int64[2] {2, 3})", "do not make up the 6"),
        ("x: float[2, 6]", "y, z = Split<axis=1>(x, int64[2] {7, -1})", "do not make up the 6"),
        ("x: float[2, 6]", "a = Shape(x)\ny = Split(a, int64[1] {4611686018427387904})", "do not make up the 2"),
    ],
)
def test_what_cannot_run_is_named(inputs: str, line: str, message: str) -> None:
    graph = graph_of(inputs, line + " @culprit")
    with pytest.raises(ModelError, match=message) as raised:
        infer(graph)
    assert "'culprit'" in str(raised.value)


IF = """
opset 21
graph g(c: bool, x: float[N, 4]) -> (y) {
  y = If<
    then_branch=graph() -> (a) {
      a = Relu(x)
    },
    else_branch=graph() -> (b) {
      b = Concat<axis=1>(x, x)
    }
  >(c)
}
"""


def test_an_if_gives_what_both_branches_agree_on() -> None:
    graph = parse(IF)
    infer(graph)
    assert graph.outputs[0].value.shape == ("N", None)


def test_a_branch_that_cannot_run_is_no_error() -> None:
    graph = parse(IF.replace("Concat<axis=1>(x, x)", "MatMul(x, x)").replace("N, 4", "3, 4"))
    infer(graph)
    assert graph.outputs[0].value.dtype is None or graph.outputs[0].value.dtype is DType.FLOAT


LOOP = """
opset 21
graph g(x: float[2, 4]) -> (last, all) {
  five = int64[] {5}
  last, all = Loop<
    body=graph(i, go, state) -> (again, next, step) {
      again = Identity(go)
      next = NEXT
      step = Relu(state)
    }
  >(five, _, x)
}
"""


def test_a_loop_whose_state_keeps_its_shape() -> None:
    graph = parse(LOOP.replace("NEXT", "Relu(state)"))
    infer(graph)
    last, stacked = (output.value for output in graph.outputs)
    assert last.shape == (2, 4)
    assert stacked.shape == (5, 2, 4)
    [body] = next(iter(graph)).bodies
    assert [value.shape for value in body.inputs] == [(), (), (2, 4)]


def test_a_loop_whose_state_grows() -> None:
    graph = parse(LOOP.replace("NEXT", "Concat<axis=0>(state, state)"))
    infer(graph)
    last, stacked = (output.value for output in graph.outputs)
    assert last.shape == (None, 4)
    assert stacked.shape == (5, None, 4)


FUNCTION = """
opset 21
opset local 1
graph g(x: float[N, 4], w: float[T, 3, 6]) -> (y, z) {
  y = local.Flat(x)
  z = local.Flat<axis=2>(w)
}
function local.Flat<axis=1>(a) -> (b) opset 21 {
  b = Flatten<axis: int = @axis>(a)
}
"""


def test_a_function_is_inferred_for_each_call() -> None:
    graph = parse(FUNCTION)
    inference = infer(graph)
    y, z = (output.value for output in graph.outputs)
    assert y.shape == ("N", 4)
    assert z.shape == ("3*T", 6)
    assert len(inference.calls) == 2
    [function] = graph.functions.values()
    assert all(value.type is None for node in function.graph for value in node.outputs)


def test_nodes_out_of_order_are_inferred() -> None:
    graph = graph_of("x: float[N, 3]", "h = Relu(x)\ny = Transpose(h)")
    first, second = graph
    graph.move(second, before=first)
    infer(graph)
    assert graph.outputs[0].value.shape == (3, "N")


class TestBind:
    def test_sizes_become_numbers_everywhere(self) -> None:
        graph = graph_of("x: float[N, T, 4]", "h = Reshape(x, int64[2] {-1, 4})\ny = Relu(h)", "y: float[NT, 4]")
        bind(graph, {"N": 2, "T": 3})
        assert graph.inputs[0].shape == (2, 3, 4)
        assert graph.outputs[0].type == TensorType(DType.FLOAT, (6, 4))
        assert all(value.static_shape is not None for node in graph for value in node.outputs)

    def test_other_names_stay(self) -> None:
        graph = graph_of("x: float[N, T, 4]", "y = Flatten(x)", "y: float[N, ?]")
        bind(graph, {"N": 2})
        assert graph.inputs[0].shape == (2, "T", 4)
        assert graph.outputs[0].value.shape == (2, "4*T")

    def test_an_unknown_name_is_refused(self) -> None:
        graph = graph_of("x: float[N, 4]", "y = Flatten(x)")
        with pytest.raises(ModelError, match=r"'M'.*: N"):
            bind(graph, {"M": 2})


def test_analysis_changes_nothing() -> None:
    graph = graph_of("x: float[N, 3, H, W], w: float[4, 3, 3, 3]", "h = Conv(x, w)\ny = Flatten(h)")
    text = dump(graph)
    analyse(graph, {"N": 1})
    assert dump(graph) == text


def test_trained_models(kit: Path) -> None:
    """No value without a rank, and no size that is not named; every size a number once N and T are bound."""
    from optc.ir.onnx.reader import load

    paths = sorted((kit / "models").glob("*.onnx"))
    assert paths
    for path in paths:
        graph = load(path)
        infer(graph, fresh=True)
        for node in graph.walk():
            for value in node.outputs:
                assert value.shape is not None, (path.name, node)
                assert None not in value.shape, (path.name, node)
        names = {d for value in graph.inputs for d in value.shape or () if isinstance(d, str)}
        bind(graph, {"N": 2} | ({"T": 48} if "T" in names else {}))
        assert all(v.static_shape is not None for node in graph.walk() for v in node.outputs), path.name


def test_not_of_a_scalar_is_followed() -> None:
    graph = Graph("g", opsets={"": 17})
    seen = graph.add("Not", [graph.constant(np.array(True))]).output
    graph.add_output(graph.add("Not", [seen]).output, "y")
    infer(graph)
    assert (seen.dtype, seen.shape) == (DType.BOOL, ())
