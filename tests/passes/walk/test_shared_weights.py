"""A weight that several nodes read, each in its own way, is pruned and factorised for all of them together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from real_models import FLOAT, Maker, samples

from optc.compiler import Build, compile
from optc.ir.onnx.writer import to_bytes
from optc.passes.base import Outcome

TOKENS = 60


def weight_of(make: Maker, kind: str, rows: int, columns: int, *kernel: int) -> str:
    """A weight of which half is all but zero (`sparse`), or of rank 8 (`thin`)."""
    shape = rows, columns, *kernel
    if kind == "thin":
        return make.constant(make.rng.standard_normal((rows, 8)) @ make.rng.standard_normal((8, columns)) / 20, "f4")
    weight = make.rng.standard_normal(shape) / np.sqrt(rows)
    weight[make.rng.random(shape) < 0.5] *= 1e-4
    return make.constant(weight, "f4")


def turned(make: Maker, weight: str) -> str:
    return make.add("Transpose", weight, perm=[1, 0])


def by_attribute(kind: str) -> onnx.ModelProto:
    """An autoencoder whose two layers are one weight, by Gemm's transB."""
    make = Maker()
    weight = weight_of(make, kind, 32, 64)
    h = make.add("Tanh", make.add("Gemm", "x", weight, make.weight(64), alpha=0.5))
    return make.build({"x": ["N", 32]}, {"y": make.add("Gemm", h, weight, make.weight(32), transB=1)})


def by_transpose(kind: str) -> onnx.ModelProto:
    """x W here, x W^T there, with a bias; W^T twice."""
    make = Maker()
    weight = weight_of(make, kind, 32, 64)
    h = make.add("Tanh", make.add("MatMul", make.add("Tanh", "x"), weight))
    h = make.add("Tanh", make.add("Add", make.add("MatMul", h, turned(make, weight)), make.weight(32)))
    h = make.add("Tanh", make.add("MatMul", h, weight))
    return make.build({"x": ["N", 5, 32]}, {"y": make.add("MatMul", h, turned(make, weight))})


def table(kind: str) -> onnx.ModelProto:
    """Embeddings that answer, too, as most language models tie them."""
    make = Maker()
    weight = weight_of(make, kind, TOKENS, 32)
    h = make.add("Tanh", make.add("MatMul", make.add("Gather", weight, "x"), weight_of(make, kind, 32, 32)))
    return make.build({"x": ["N", 5]}, {"y": make.add("MatMul", h, turned(make, weight))}, {"x": TensorProto.INT64})


def table_of_a_gemm(kind: str) -> onnx.ModelProto:
    make = Maker()
    weight = weight_of(make, kind, TOKENS, 32)
    h = make.add("ReduceMean", make.add("Gather", weight, "x"), axes=[1], keepdims=0)
    return make.build({"x": ["N", 5]}, {"y": make.add("Gemm", h, weight, transB=1)}, {"x": TensorProto.INT64})


def from_the_left(kind: str) -> onnx.ModelProto:
    """W x, then x W^T in the same rows, and W^T x."""
    make = Maker()
    weight = weight_of(make, kind, 64, 32)
    h = make.add("Tanh", make.add("MatMul", weight, make.add("Tanh", "x")))
    h = make.add("Tanh", make.add("MatMul", turned(make, weight), h))
    h = make.add("Transpose", h, perm=[0, 2, 1])
    return make.build({"x": ["N", 32, 7]}, {"y": make.add("MatMul", h, turned(make, weight))})


def left_and_turned(kind: str) -> onnx.ModelProto:
    """W^T x first, so that the layer itself reads a Transpose from the left."""
    make = Maker()
    weight = weight_of(make, kind, 32, 64)
    h = make.add("Tanh", make.add("MatMul", turned(make, weight), make.add("Tanh", "x")))
    return make.build({"x": ["N", 32, 7]}, {"y": make.add("MatMul", weight, h)})


def around_a_body(kind: str) -> onnx.ModelProto:
    """Read in a loop and, the other way round, in the graph around it."""
    make = Maker()
    weight = weight_of(make, kind, 32, 32)
    go, state = (helper.make_tensor_value_info(n, t, s) for n, t, s in (("go", 9, []), ("state", FLOAT, ["N", 32])))
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    nodes = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("MatMul", ["state", weight], ["product"]),
        helper.make_node("Tanh", ["product"], ["next"]),
    ]
    returned = [helper.make_tensor_value_info(n, t, s) for n, t, s in (("on", 9, []), ("next", FLOAT, ["N", 32]))]
    body = helper.make_graph(nodes, "body", [count, go, state], returned)
    h = make.add("Loop", make.constant(3, np.int64), make.constant(True), make.add("Tanh", "x"), body=body)
    return make.build({"x": ["N", 32]}, {"y": make.add("MatMul", h, turned(make, weight))})


def in_two_bodies(kind: str) -> onnx.ModelProto:
    """Read in both branches of an If, one the other way round, and nowhere else."""
    make = Maker()
    weight = weight_of(make, kind, 32, 32)
    h = make.add("Tanh", "x")
    branches = []
    for number, second in enumerate((weight, "turned")):
        info = [helper.make_tensor_value_info(f"o{number}", FLOAT, ["N", 32])]
        nodes = [] if second == weight else [helper.make_node("Transpose", [weight], ["turned"], perm=[1, 0])]
        nodes.append(helper.make_node("MatMul", [h, second], [f"o{number}"]))
        branches.append(helper.make_graph(nodes, f"branch{number}", [], info))
    positive = make.add("Greater", make.add("ReduceSum", "x", keepdims=0), make.constant(0, np.float32))
    h = make.add("If", positive, then_branch=branches[0], else_branch=branches[1])
    return make.build({"x": ["N", 32]}, {"y": make.add("MatMul", h, weight_of(make, kind, 32, 8))})


def own_biases(kind: str) -> onnx.ModelProto:
    """Steps that share a weight, each with a bias of its own."""
    make = Maker()
    weight = weight_of(make, kind, 32, 32)
    h = make.add("Tanh", "x")
    for _ in range(3):
        h = make.add("Tanh", make.add("Add", make.add("MatMul", h, weight), make.weight(32)))
    return make.build({"x": ["N", 5, 32]}, {"y": make.add("MatMul", h, weight_of(make, kind, 32, 8))})


def convolutions(kind: str) -> onnx.ModelProto:
    """A convolution, and the transposed one of the same kernel."""
    make = Maker()
    weight = weight_of(make, kind, 32, 8, 3, 3)
    h = make.add("Tanh", make.add("Conv", make.add("Tanh", "x"), weight, pads=[1] * 4))
    return make.build({"x": ["N", 8, 6, 6]}, {"y": make.add("ConvTranspose", h, weight, pads=[1] * 4)})


PRODUCTS = [
    by_attribute, by_transpose, table, table_of_a_gemm, from_the_left, left_and_turned, around_a_body, in_two_bodies,
    own_biases,
]  # fmt: skip


def feeds(model: onnx.ModelProto, count: int, seed: int) -> dict[str, np.ndarray]:
    taken = model.graph.input[0].type.tensor_type
    if taken.elem_type == TensorProto.INT64:
        return {"x": np.random.default_rng(seed).integers(0, TOKENS, (count, 5))}
    return samples(count, seed, x=[d.dim_value for d in taken.shape.dim][1:])


def built(model: onnx.ModelProto, passes: str) -> tuple[Build, float]:
    """The build, and the noise of its outputs on other samples as a share of their power."""
    build = compile(model, passes, data=feeds(model, 60, 1), guard=False, check=False)
    sessions = [onnxruntime.InferenceSession(one) for one in (to_bytes(build.graph), model.SerializeToString())]
    y, t = (session.run(None, feeds(model, 24, 2))[0] for session in sessions)
    return build, float(np.sum((y - t) ** 2) / np.sum(t**2))


def readers(build: Build) -> int:
    layers = [one for step in build.report.steps for one in step.report.layers if one.outcome is Outcome.DONE]
    return max(int(str(one.detail.get("readers", 1))) for one in layers)


@pytest.mark.parametrize("form", [*PRODUCTS, convolutions], ids=lambda form: form.__name__)
def test_what_is_all_but_zero_goes_for_all_readers(form: Callable[[str], onnx.ModelProto]) -> None:
    build, noise = built(form("sparse"), "prune:ratio=0.5")
    assert noise < 1e-3
    assert readers(build) >= 2
    weights = [v.numpy() for graph in build.graph.graphs() for v in graph.constants if v.constant.size >= 32 * 32]
    assert any(np.mean(weight == 0) == 0.5 for weight in weights if weight.dtype == np.float32)


@pytest.mark.parametrize("form", PRODUCTS, ids=lambda form: form.__name__)
def test_a_weight_of_low_rank_is_split_for_all_readers(form: Callable[[str], onnx.ModelProto]) -> None:
    model = form("thin")
    build, noise = built(model, "svd:ratio=0.7:align=8")
    assert noise < 1e-6
    assert readers(build) >= 2
    stored = [v.constant.nbytes for graph in build.graph.graphs() for v in graph.constants]
    assert sum(stored) < sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def test_convolutions_of_one_kernel_are_not_split() -> None:
    build, noise = built(convolutions("sparse"), "svd:ratio=0.5")
    assert noise == 0.0
    reasons = [one.reason for step in build.report.steps for one in step.report.layers]
    assert any("ConvTranspose" in reason and "in another way" in reason for reason in reasons)


def test_equal_nodes_are_merged_before_they_are_folded() -> None:
    """Two Transposes of one weight became two constants, and the file was told to grow."""
    make = Maker()
    weight = make.weight(64, 48)
    sides = [make.add("MatMul", side, turned(make, weight)) for side in ("a", "b")]
    model = make.build({"a": ["N", 48], "b": ["N", 48]}, {"y": make.add("Sub", *sides)})
    graph = compile(model, "clean", check=False).graph
    assert [node.op for node in graph if node.op == "Transpose"] == []
    assert len([value for value in graph.constants if value.constant.size == 64 * 48]) == 1
