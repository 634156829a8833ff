"""Odd but valid models through quant, as a user compiles them: a right result, or a layer skipped for a reason."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from protos import model, value

from optc.compiler import Build, compile
from optc.ir.onnx.writer import size
from optc.passes.base import Outcome
from optc.runtime.session import Session

# A number that numpy warns of is one that was not thought of.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

RANDOM = np.random.default_rng(0)
PASSES = ("quant:slower=int8", "quant:activations=dynamic", "quant:activations=none")
each_form = pytest.mark.parametrize("passes", PASSES)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """A test draws the same numbers whichever ran before it."""
    RANDOM.bit_generator.state = np.random.default_rng(0).bit_generator.state


def floats(*shape: int) -> np.ndarray:
    return (RANDOM.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def built(proto: onnx.ModelProto, passes: str, feeds: Mapping[str, np.ndarray]) -> Build:
    return compile(proto, passes, data=dict(feeds), threads=1, guard=False, check=False)


def noise(done: Build, feeds: Mapping[str, np.ndarray], output: int = 0) -> float:
    """The signal-to-noise ratio of an output against the original's, in decibels."""
    want, have = (
        np.asarray(Session(graph, threads=1).run(feeds)[output], np.float64) for graph in (done.original, done.graph)
    )
    off = ((want - have) ** 2).sum()
    return float(10 * np.log10((want**2).sum() / off)) if off else 200.0


def reasons(done: Build) -> dict[str, str]:
    """Skipped layers of the pass, without islands."""
    report = next(step.report for step in done.report.steps if step.name == "quant")
    return {
        layer.name: layer.reason
        for layer in report.layers
        if layer.outcome is Outcome.SKIPPED and "island" not in layer.detail
    }


def count(done: Build) -> int:
    return next(step.report for step in done.report.steps if step.name == "quant").count(Outcome.DONE)


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 15, 17, 18, 19, 20, 21, 22, 23])
def test_opsets(opset: int) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["c"], "conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w", "a"], ["y"], "head"),
    ]
    constants = {"k": floats(8, 3, 3, 3), "b": floats(8), "w": floats(8, 5), "a": floats(5)}
    feeds = {"x": RANDOM.standard_normal((40, 3, 8, 8)).astype(np.float32)}
    done = built(
        model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", ["N", 5])], constants, opset=opset), PASSES[0], feeds
    )
    assert count(done) == 2
    assert noise(done, feeds) > 25


PRODUCT = [helper.make_node("MatMul", ["x", "w"], ["m"], "product"), helper.make_node("Add", ["m", "b"], ["y"], "sum")]
WB = {"w": floats(8, 6), "b": floats(6)}


@each_form
@pytest.mark.parametrize("number", [0.0, 2.5, -1e30, 1e-30])
def test_activations_that_are_all_alike(passes: str, number: float) -> None:
    feeds = {"x": np.full((40, 8), number, np.float32)}
    done = built(model(PRODUCT, [value("x", ["N", 8])], [value("y", ["N", 6])], WB), passes, feeds)
    assert count(done) == 1
    assert noise(done, feeds) > 30


@each_form
def test_infinite_activations(passes: str) -> None:
    """A mask of minus infinity in front of a softmax, and a layer that reads a logarithm of zero."""
    nodes = [
        helper.make_node("Where", ["keep", "x", "low"], ["masked"], "mask"),
        helper.make_node("Softmax", ["masked"], ["soft"], "soft", axis=-1),
        helper.make_node("MatMul", ["soft", "w"], ["y"], "product"),
        helper.make_node("Log", ["soft"], ["log"], "log"),
        helper.make_node("MatMul", ["log", "w"], ["z"], "infinite"),
    ]
    keep = np.arange(8) < 5
    feeds = {"x": RANDOM.standard_normal((40, 8)).astype(np.float32)}
    constants = {"keep": keep, "low": np.float32(-np.inf), "w": np.abs(floats(8, 6))}
    outputs = [value("y", ["N", 6]), value("z", ["N", 6])]
    done = built(model(nodes, [value("x", ["N", 8])], outputs, constants), passes, feeds)
    assert noise(done, feeds) > 30


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("low", [-np.inf, -1e9, -1e5])
def test_a_mask_between_layers_stays_float(low: float, moved: bool) -> None:
    """One grid for the mask and what it lets through would leave nothing of the latter."""
    sums = [helper.make_node("Sigmoid", ["m"], ["s"], "squeeze")]
    if moved:  # which a move on codes hands on
        sums = [helper.make_node("Relu", ["m"], ["o"], "relu"), helper.make_node("Flatten", ["o"], ["s"], "flat")]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "left", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "v"], ["b"], "right", pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["a", "b"], ["p"], "times"),
        helper.make_node("Add", ["p", "mask"], ["m"], "masked"),
        *sums,
        helper.make_node("Gemm" if moved else "Conv", ["s", "k"], ["y"], "after"),
    ]
    mask = np.zeros((1, 8, 1, 1), np.float32)
    mask[0, 3] = low
    constants = {"w": floats(8, 3, 3, 3), "v": floats(8, 3, 3, 3), "mask": mask, "k": floats(8, 8, 1, 1)}
    if moved:
        constants["k"] = floats(8 * 64, 5)
    feeds = {"x": RANDOM.standard_normal((40, 3, 8, 8)).astype(np.float32)}
    proto = model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", None)], constants)
    done = built(proto, "quant:slower=int8", feeds)
    assert count(done) == 3
    masked = next(node for node in done.graph if node.name == "masked")
    assert not any(v.producer is not None and v.producer.op == "DequantizeLinear" for v in masked.inputs)
    assert noise(done, feeds) > 20


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("weights", ["int8", "int4", "int3"])
def test_a_layer_whose_inputs_overflow_stays_float_and_the_others_do_not(weights: str, images: bool) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "before", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "u"], ["y"], "beside"),
        helper.make_node("Mul", ["r", "k"], ["m"], "scale"),
        helper.make_node("Exp", ["m"], ["e"], "exp"),
        helper.make_node("Conv", ["e", "v"], ["z"], "after"),
    ]
    constants = {"w": floats(8, 3, 3, 3), "u": floats(4, 8, 1, 1), "k": np.float32(60), "v": np.abs(floats(4, 8, 1, 1))}
    feeds = {"x": RANDOM.standard_normal((40, 3, 8, 8)).astype(np.float32)}
    if images:  # they are codes without rounding
        feeds = {"x": (RANDOM.integers(0, 256, (40, 3, 8, 8)) / 32 - 4).astype(np.float32)}
    outputs = [value("y", ["N", 4, 8, 8]), value("z", ["N", 4, 8, 8])]
    proto = model(nodes, [value("x", ["N", 3, 8, 8])], outputs, constants)
    done = built(proto, f"quant:slower=int8:weights={weights}", feeds)
    assert list(reasons(done)) == ["after"]
    assert "not finite" in reasons(done)["after"]
    assert count(done) == 2
    assert noise(done, feeds) > {"int8": 25, "int4": 12, "int3": 6}[weights]


@pytest.mark.parametrize("weights", ["int8", "int4", "int3", "int2"])
def test_two_convolutions_that_share_a_weight(weights: str) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w"], ["y"], "second", pads=[1, 1, 1, 1]),
    ]
    feeds = {"x": RANDOM.standard_normal((40, 3, 8, 8)).astype(np.float32)}
    proto = model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", ["N", 3, 8, 8])], {"w": floats(3, 3, 3, 3)})
    done = built(proto, f"quant:slower=int8:weights={weights}", feeds)
    assert count(done) == 2
    assert noise(done, feeds) > {"int8": 25, "int4": 12, "int3": 6, "int2": 1}[weights]


@each_form
@pytest.mark.parametrize("transposed", [0, 1])
def test_two_layers_that_share_a_weight(passes: str, transposed: int) -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], "first"),
        helper.make_node("Gemm", ["h", "w"], ["y"], "second", transB=transposed),
    ]
    feeds = {"x": RANDOM.standard_normal((40, 8)).astype(np.float32)}
    done = built(model(nodes, [value("x", ["N", 8])], [value("y", ["N", 8])], {"w": floats(8, 8)}), passes, feeds)
    assert noise(done, feeds) > 25
    if transposed:
        assert all("reads the same weight" in reason for reason in reasons(done).values())
        assert len(reasons(done)) == 2
    else:
        assert count(done) == 2


@each_form
def test_factors_of_a_gemm_go_into_its_constants(passes: str) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "scaled", alpha=0.25, beta=-2.0)]
    feeds = {"x": RANDOM.standard_normal((40, 8)).astype(np.float32)}
    done = built(model(nodes, [value("x", ["N", 8])], [value("y", ["N", 6])], WB), passes, feeds)
    assert count(done) == 1
    assert noise(done, feeds) > 25


@each_form
def test_a_weight_made_by_a_subgraph(passes: str) -> None:
    nodes = [
        helper.make_node("Exp", ["v"], ["w"], "exp"),
        helper.make_node("MatMul", ["x", "w"], ["h"], "folded"),
        helper.make_node("ReduceMean", ["x"], ["mean"], "mean", axes=[0], keepdims=1),
        helper.make_node("Mul", ["u", "mean"], ["scaled"], "scale"),
        helper.make_node("MatMul", ["h", "scaled"], ["y"], "computed"),
    ]
    constants = {"v": floats(8, 6), "u": floats(6, 8)}
    feeds = {"x": RANDOM.standard_normal((40, 8)).astype(np.float32)}
    done = built(model(nodes, [value("x", [40, 8])], [value("y", [40, 8])], constants), passes, feeds)
    assert reasons(done) == {"computed": "both operands are computed"}
    assert count(done) == 1
    assert noise(done, feeds) > 25


@each_form
def test_inputs_with_a_default_that_no_samples_hold(passes: str) -> None:
    """One scales what a layer reads, one is read by a layer, and one is a weight, which a caller may override."""
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"], "scaling"),
        helper.make_node("Conv", ["scaled", "w"], ["h"], "first"),
        helper.make_node("Conv", ["image", "w"], ["other"], "second"),
        helper.make_node("Add", ["h", "other"], ["sum"], "sum"),
        helper.make_node("Conv", ["sum", "k"], ["y"], "given"),
    ]
    constants = {
        "scale": np.float32([2]), "image": 4 * floats(1, 3, 8, 8), "w": floats(8, 3, 1, 1), "k": floats(4, 8, 1, 1)
    }  # fmt: skip
    inputs = [value("x", ["N", 3, 8, 8]), *(value(name, constants[name].shape) for name in ("scale", "image", "k"))]
    feeds = {"x": RANDOM.standard_normal((40, 3, 8, 8)).astype(np.float32)}
    done = built(model(nodes, inputs, [value("y", ["N", 4, 8, 8])], constants), passes, feeds)
    assert reasons(done) == {"given": "the weight is an input with a default, which a caller may override"}
    assert count(done) == 2
    assert noise(done, feeds) > 25


@each_form
def test_a_batch_and_a_length_other_than_those_calibrated(passes: str) -> None:
    feeds = {"x": RANDOM.standard_normal((40, 7, 8)).astype(np.float32)}
    done = built(model(PRODUCT, [value("x", ["N", "T", 8])], [value("y", ["N", "T", 6])], WB), passes, feeds)
    assert count(done) == 1
    for shape in ((1, 1, 8), (3, 19, 8)):
        assert noise(done, {"x": RANDOM.standard_normal(shape).astype(np.float32)}) > 25


@each_form
def test_bodies_of_control_flow_stay_float_and_say_so(passes: str) -> None:
    def branch(name: str, weight: str) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["h", weight], [f"{name}_y"], f"in_{name}")
        return helper.make_graph([node], name, [], [value(f"{name}_y", None)])

    step = helper.make_graph(
        [helper.make_node("MatMul", ["state", "v"], ["next"], "in_loop"), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("state", ["N", 6])],
        [value("on", [], TensorProto.BOOL), value("next", ["N", 6])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "outside"),
        helper.make_node("ReduceSum", ["x"], ["total"], "total", keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"], "compare"),
        helper.make_node(
            "If", ["positive"], ["c"], "choose", then_branch=branch("a", "v"), else_branch=branch("b", "u")
        ),
        helper.make_node("Loop", ["times", "", "c"], ["y"], "repeat", body=step),
    ]
    constants = {
        "w": floats(8, 6), "v": floats(6, 6), "u": floats(6, 6), "zero": np.float32(0), "times": np.asarray(2),
    }  # fmt: skip
    feeds = {"x": RANDOM.standard_normal((40, 8)).astype(np.float32)}
    done = built(model(nodes, [value("x", ["N", 8])], [value("y", None)], constants), passes, feeds)
    assert set(reasons(done).values()) == {"inside the body of a control-flow node"}
    assert count(done) == 1
    assert noise(done, feeds) > 20


@each_form
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("hidden", [5, 16])
def test_recurrent_cells_are_stored_small_or_say_why_not(passes: str, op: str, gates: int, hidden: int) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "outside"),
        helper.make_node(op, ["h", "i", "r"], ["y"], "cell", hidden_size=hidden),
    ]
    constants = {"w": floats(8, 6), "i": floats(1, hidden * gates, 6), "r": 0.2 * floats(1, hidden * gates, hidden)}
    feeds = {"x": RANDOM.standard_normal((7, 40, 8)).astype(np.float32)}
    proto = model(nodes, [value("x", [7, "N", 8])], [value("y", [7, 1, "N", hidden])], constants)
    done = compile(proto, passes, data={"x": np.moveaxis(feeds["x"], 1, 0)}, threads=1, guard=False, check=False)
    if hidden * gates * (6 + hidden) < 512:
        assert reasons(done) == {"cell": f"{op} has no integer kernel, and fewer than 512 weights to store smaller"}
        assert count(done) == 1
    else:
        assert not reasons(done)
        assert count(done) == 2
    assert noise(done, feeds) > 25


@each_form
def test_integer_and_sequence_outputs(passes: str) -> None:
    nodes = [
        *PRODUCT,
        helper.make_node("ArgMax", ["y"], ["best"], "best", axis=-1, keepdims=0),
        helper.make_node("SplitToSequence", ["y"], ["parts"], "parts", axis=1, keepdims=1),
    ]
    outputs = [
        value("best", ["N"], TensorProto.INT64),
        helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None),
    ]
    feeds = {"x": 4 * RANDOM.standard_normal((40, 8)).astype(np.float32)}
    done = built(model(nodes, [value("x", ["N", 8])], outputs, WB), passes, feeds)
    assert count(done) == 1
    want, have = (Session(graph, threads=1).run(feeds) for graph in (done.original, done.graph))
    assert (want[0] == have[0]).mean() > 0.9
    # Values outside of the ranges that were calibrated are clipped, so a few of the answers may be far off.
    off = np.abs(np.concatenate(want[1], 1) - np.concatenate(have[1], 1))
    assert np.mean(off > 0.2) < 0.05


@pytest.mark.parametrize("passes", [*PASSES, "quant:weights=int4"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_stay_where_they_are(passes: str, number: float) -> None:
    """In a weight and in a bias: codes made finite numbers of them, and of the answers."""
    constants = {"w": floats(16, 32), "v": floats(32, 8), "u": floats(32, 8), "b": np.zeros(8, np.float32)}
    constants["v"][3, 2] = constants["b"][5] = number
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Tanh", ["a"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"], "weight"),
        helper.make_node("Gemm", ["h", "u", "b"], ["z"], "bias"),
    ]
    odd = model(nodes, [value("x", ("N", 16))], [value("y", ("N", 8)), value("z", ("N", 8))], constants)
    feeds = {"x": floats(32, 16)}
    done = built(odd, passes, feeds)
    for want, have in zip(
        *(Session(graph, threads=1).run(feeds) for graph in (done.original, done.graph)), strict=True
    ):
        assert np.array_equal(np.isfinite(want), np.isfinite(have))
    assert {name for name, reason in reasons(done).items() if "not finite" in reason} == {"weight", "bias"}
    assert count(done) == 1


@pytest.mark.parametrize("number", [1e14, 1e20, 1e28, 3e38])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_numbers_too_large_for_their_neighbours(where: str, number: float) -> None:
    """What overflows is left float by name, and where it does not, the channel keeps its sign."""
    w = [floats(24, 3, 3, 3), floats(24, 24, 3, 3), floats(10, 24, 1, 1)]
    bias = floats(24)
    if where == "weight":
        w[1][3, 2, 1, 1] = number
    else:
        bias[2] = number
    constants = {"w0": w[0], "w1": w[1], "w2": w[2], "b": bias}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], "c0", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b"], ["c1"], "c1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["y"], "c2"),
    ]
    feeds = {"x": RANDOM.standard_normal((40, 3, 12, 12)).astype(np.float32)}
    done = built(model(nodes, [value("x", ["N", 3, 12, 12])], [value("y", None)], constants), PASSES[0], feeds)
    want, have = (Session(graph, threads=1).run(feeds)[0] for graph in (done.original, done.graph))
    both = np.isfinite(want) & np.isfinite(have)
    assert both.sum() > 0.95 * np.isfinite(want).sum()
    assert (np.sign(want) == np.sign(have))[both & (np.abs(want) > 0.1 * np.abs(want[both]).max())].all()


def test_constants_that_repeat_few_numbers_are_not_written_out() -> None:
    """A table and a kernel of one number each take no bytes; their codes would."""
    constants = {"shape": np.array([3000, 64]), "kernel": np.array([64, 1, 9, 9]), "w": floats(64, 16)}
    filled = {
        name: helper.make_node(
            "ConstantOfShape", [shape], [name], value=helper.make_tensor("one", TensorProto.FLOAT, [1], [number])
        )
        for name, shape, number in (("table", "shape", 0.5), ("blur", "kernel", 1 / 81))
    }
    nodes = [
        *filled.values(),
        helper.make_node("Gather", ["table", "ids"], ["rows"], "rows"),
        helper.make_node("Conv", ["x", "blur"], ["mean"], "mean", group=64),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Add", ["flat", "rows"], ["sum"]),
        helper.make_node("MatMul", ["sum", "w"], ["y"], "fc"),
    ]
    feeds = {
        "x": RANDOM.standard_normal((40, 64, 9, 9)).astype(np.float32),
        "ids": RANDOM.integers(0, 3000, 40).astype(np.int64),
    }
    inputs = [value("x", ["N", 64, 9, 9]), value("ids", ["N"], TensorProto.INT64)]
    done = built(model(nodes, inputs, [value("y", ["N", 16])], constants), PASSES[0], feeds)
    assert size(done.graph) < 0.9 * size(done.original)
    assert "repeat" in reasons(done)["mean"]
    assert noise(done, feeds) > 25
