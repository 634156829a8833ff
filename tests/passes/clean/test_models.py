"""Whole models: fewer nodes, the same interface, the same answers, no larger a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corpus import cases
from equivalence import assert_equivalent, distance, feeds

from optc.errors import ModelError
from optc.ir.graph import Function, Graph
from optc.ir.onnx.reader import from_proto, load
from optc.ir.onnx.writer import size
from optc.ir.tensor import ArrayTensor, FileTensor
from optc.ir.text.parse import parse
from optc.ir.types import DType, TensorType
from optc.ir.verify.verify import verify
from optc.passes.base import Context, Report, TargetFacts
from optc.passes.clean import Clean
from optc.runtime.session import Session

LIGHT = {
    "light_bvlc_alexnet": 22,
    "light_densenet121": 491,
    "light_inception_v1": 138,
    "light_inception_v2": 154,
    "light_resnet50": 123,
    "light_shufflenet": 154,
    "light_squeezenet": 65,
    "light_vgg19": 44,
    "light_zfnet512": 22,
}
KIT = {
    "cifar_resnet20": 54,
    "cifar_resnet32_bn": 84,
    "face_rfb320": 127,
    "kws_dscnn": 21,
    "minilm_l6": 253,
    "mobilenetv2": 100,
    "silero_vad16k": 41,
    "squeezenet11": 65,
}
"""The fewest nodes that onnxslim, onnxsim, onnxoptimizer or ONNX Runtime's basic level leave: `benchmarks/clean.py`."""


def clean(graph: Graph) -> Report:
    return Clean().run(graph, Context(TargetFacts("onnx")))


def nodes(graph: Graph) -> int:
    return sum(1 for _ in graph.walk())


def interface(graph: Graph) -> list[tuple[str, object]]:
    return [(v.name, v.type) for v in graph.inputs] + [(o.name, o.type) for o in graph.outputs]


@pytest.mark.slow
def test_no_peer_leaves_fewer_nodes_of_the_light_models() -> None:
    for case in cases("light"):
        graph = from_proto(case.model)
        before, declared = size(graph), interface(graph)
        clean(graph)
        verify(graph)
        assert nodes(graph) <= LIGHT[case.name]
        assert size(graph) <= before
        assert interface(graph) == declared
    assert len(cases("light")) >= len(LIGHT)


@pytest.mark.slow
@pytest.mark.parametrize("name", KIT)
def test_a_real_model(name: str, kit: Path) -> None:
    path = kit / "models" / f"{name}.onnx"
    original, graph = load(path), load(path)
    clean(graph)
    verify(graph)
    assert nodes(graph) <= KIT[name]
    assert size(graph) <= path.stat().st_size
    assert interface(graph) == interface(original)
    assert not clean(graph).rewrites
    assert_equivalent(original, graph, feeds(original, seed=1, size=3, dims={"T": 17}))


def test_an_overridable_input_is_not_a_constant() -> None:
    graph = parse("graph g(x: float[2], s: float[] = float[] {1}) -> (y: float[2]) { y = Mul(x, s) }")
    assert not clean(graph).rewrites
    assert_equivalent(graph, graph, [np.float32([1, 2]), np.float32(3)])


def test_other_domains_are_left_alone_and_lead_into_what_is_cleaned() -> None:
    graph = parse("""
        graph g(x: float[N, 3]) -> (y: float[N, 3]) {
          a = com.example.Thing(x)
          b = com.example.Thing(x)
          c = Identity(a)
          y = com.example.Join(c, b)
        }
    """)
    graph.opsets["com.example"] = 1
    assert clean(graph).rewrites == {"identity": 1}
    assert [node.op for node in graph] == ["Thing", "Thing", "Join"]


def test_functions_are_cleaned_but_for_their_parameters() -> None:
    graph = parse("""
        opset 21
        opset local 1
        graph g(x: float[2, 3]) -> (y: float[2, 3]) { y = local.f<to=1>(x) }
        function local.f<to>(a) -> (c) opset 20 {
          b = Identity(a)
          one = Constant<value=float[] {1}>()
          two = Mul(one, one)
          d = Mul(b, two)
          c = Cast<to: int = @to>(d)
        }
    """)
    original = graph.clone()
    (note,) = clean(graph).notes
    assert note.startswith("function 'f' stays one, and no pass looks for layers in it: it was written for version 20")
    (function,) = graph.functions.values()
    assert isinstance(function, Function)
    assert [node.op for node in function.graph] == ["Cast"]
    verify(graph)
    assert_equivalent(original, graph, feeds(original))


@pytest.mark.parametrize(
    ("call", "words"),
    [("local.f<to=1>()", "input 0 is absent"), ("local.f(x)", "attribute 'to' is missing")],
    ids=["input", "attribute"],
)
def test_a_call_that_leaves_out_what_its_function_needs_is_refused(call: str, words: str) -> None:
    graph = parse(f"""
        opset 21
        opset local 1
        graph g(x: float[2, 3]) -> (y: float[2, 3]) {{ y = {call} }}
        function local.f<to>(a) -> (c) opset 21 {{ c = Cast<to: int = @to>(a) }}
    """)
    with pytest.raises(ModelError, match=words):
        clean(graph)


def test_calls_give_way_to_the_nodes_of_functions_wherever_they_stand() -> None:
    graph = parse("""
        opset 21
        opset local 1
        graph g(c: bool[], x: float[2, 3], z: float[2, 3]) -> (y: float[2, 3], same: float[2, 3]) {
          a = local.outer<slope=0.5>(x, z) @one
          b = local.outer(a, z) @two
          y, same = If<then_branch=graph then() -> (p, r) { p, r = local.clip(b, _, z) @in },
            else_branch=graph other() -> (q, s) { q = Neg(b) s = Abs(b) }>(c)
        }
        function local.outer<slope>(a, b) -> (d) opset 21 opset local 1 {
          c = LeakyRelu<alpha: float = @slope>(a) @act
          e = local.inner(c, b) @call
          d = Tanh(e) @end
        }
        function local.inner(a, b) -> (c) opset 21 { d = Add(a, b) @add c = Sigmoid(d) @sigmoid }
        function local.clip(a, low, high) -> (c, e) opset 21 {
          d = ReduceMax<keepdims=0>(high)
          c = Clip(a, low, d)
          e = Abs(c)
        }
    """)
    verify(graph)
    original = graph.clone()
    report = clean(graph)
    verify(graph)
    assert report.rewrites["inline"] == 5
    assert not graph.functions
    assert graph.opsets == {"": 21}
    names = [node.name for node in graph if node.name]
    assert names == ["act", "add", "sigmoid", "end", "act_1", "add_1", "sigmoid_1", "end_1"]
    assert {node.origin.nodes for node in graph if node.name.startswith("add")} == {("one",), ("two",)}
    assert_equivalent(original, graph, feeds(original))


def test_a_function_stays_where_it_returns_what_a_call_leaves_out() -> None:
    graph = parse("""
        opset 21
        opset local 1
        graph g(x: float[2, 3]) -> (y: float[2, 3], z) { y, z = local.f(x) a = local.f(x, x) }
        function local.f(a, b) -> (c, b) opset 21 { c = Neg(a) }
    """)
    report = clean(graph)
    verify(graph)
    assert report.notes == [
        "function 'f' stays one, and no pass looks for layers in it: it returns an input that a call leaves out"
    ]
    assert [node.op for node in graph] == ["f"]


def test_bodies_are_cleaned_and_their_captures_kept() -> None:
    graph = parse("""
        graph g(x: float[N, 3], n: int64[], go: bool[]) -> (y: float[N, 3]) {
          one = float[] {1}
          scaled = Mul(x, one)
          twice = Relu(scaled)
          y = Loop<body=graph body(i: int64[], on: bool[], s: float[N, 3]) -> (on_out: bool[], s_out: float[N, 3]) {
            on_out = Identity(on)
            a = Identity(s)
            zero = Constant<value=float[] {0}>()
            b = Add(a, zero)
            c = Relu(twice)
            s_out = Add(b, c)
          }>(n, go, x)
        }
    """)
    original = graph.clone()
    report = clean(graph)
    verify(graph)
    assert report.rewrites["identity"] == 1
    assert report.rewrites["neutral"] == 2
    inputs = [np.ones((2, 3), np.float32), np.int64(3), np.bool_(True)]
    assert_equivalent(original, graph, inputs)


def test_an_old_operator_set_only_loses_what_is_dead() -> None:
    graph = parse("""
        opset 6
        graph g(x: float[2, 3]) -> (y: float[2, 3]) {
          a = Identity(x)
          b = Relu(a)
          y = Sigmoid(a)
        }
    """)
    report = clean(graph)
    assert report.rewrites == {"dead": 1}
    assert "operator set 6" in report.notes[0]


def test_a_weight_is_not_read_when_nothing_is_folded_into_it(tmp_path: Path) -> None:
    from optc.ir.onnx.writer import save

    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 512)))
    weight = graph.constant(np.ones((512, 512), np.float32), "w")
    y = graph.add("MatMul", [graph.add("Identity", [x]).output, weight]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("N", 512)))
    save(graph, tmp_path / "m.onnx")
    again = load(tmp_path / "m.onnx")
    clean(again)
    (value,) = again.constants
    assert isinstance(value.constant, FileTensor)


def test_weights_that_are_shared_are_not_copied() -> None:
    graph = parse("""
        graph g(x: float[N, 64], z: float[N, 64]) -> (y: float[N, 64], t: float[N, 64]) {
          w = float[64, 64] {3, ...}
          two = float[] {2}
          a = MatMul(x, w)
          y = Mul(a, two)
          t = MatMul(z, w)
        }
    """)
    (weight,) = (v for v in graph.constants if v.shape == (64, 64))
    random = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    weight.constant = ArrayTensor(random)
    assert not clean(graph).rewrites
    assert len(graph.constants) == 2


def test_a_batchnorm_after_a_large_matmul_makes_a_gemm() -> None:
    random = np.random.default_rng(0)
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 64)))
    weight = graph.constant(random.standard_normal((64, 48)).astype(np.float32))
    constants = [graph.constant(random.uniform(0.5, 1, 48).astype(np.float32)) for _ in range(4)]
    y = graph.add("BatchNormalization", [graph.add("MatMul", [x, weight]).output, *constants]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("N", 48)))
    original = graph.clone()
    assert clean(graph).rewrites == {"batchnorm-after": 1}
    assert [node.op for node in graph] == ["Gemm"]
    assert_equivalent(original, graph, feeds(original))


def test_traces_of_an_exporter_go_and_other_notes_stay() -> None:
    text = (
        'graph g(x: float[N, 3]) -> (y: float[N, 3]) { h = Relu(x) doc "why" metadata {"mine": "kept", '
        '"pkg.torch.onnx.stack_trace": "File", "namespace": "layer"} y = Sigmoid(h) doc "/home/net.py(7): forward" }'
    )
    kept, graph = parse(text), parse(text)
    Clean(traces=True).run(kept, Context(TargetFacts("onnx")))
    assert len(next(iter(kept)).metadata or {}) == 3
    report = Clean().run(graph, Context(TargetFacts("onnx")))
    assert report.rewrites == {"trace": 2}
    first, second = graph
    assert (first.doc, first.metadata) == ("why", {"mine": "kept"})
    assert (second.doc, second.metadata) == ("", None)


def test_the_measure_of_equality_can_fail() -> None:
    one = np.float32([1, 2, 3])
    assert distance(one, one) == 0
    assert 0.5 < distance(one, one + np.float32([0, 0, 3.6e-7])) < 2
    assert distance(one, one.astype(np.float64)) == np.inf
    assert distance(one, one[:2]) == np.inf
    assert distance(one, np.float32([1, 2, np.nan])) == np.inf
    assert distance(np.int64([1]), np.int64([2])) == np.inf


def test_thousands_of_constant_nodes_are_evaluated_in_a_session_for_each_kind() -> None:
    """Bit for bit what ONNX Runtime makes of them where they stay."""
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1,)))
    value = graph.constant(np.float32([0.3]), "c")
    for index in range(3000):
        value = graph.add(("Cos", "Exp", "Tanh")[index % 3], [value]).output
    graph.add_output(graph.add("Add", [x, value]).output, "y")
    feeds = {"x": np.float32([0])}
    (expected,) = Session(graph, optimise=False).run(feeds)
    clean(graph)
    assert [node.op for node in graph] == ["Add"]
    (result,) = Session(graph).run(feeds)
    assert result.tobytes() == expected.tobytes()
