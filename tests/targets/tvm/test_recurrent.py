"""Recurrent cells laid out step by step answer as ONNX Runtime's own do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from optc.compiler import compile
from optc.ir.graph import Graph
from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.targets import table
from optc.targets.tvm.cpu import machines
from optc.targets.tvm.legal.recurrent import MOST, unroll

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]

BATCH, INPUTS, HIDDEN = 3, 4, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
OTHER = {
    "RNN": (["Softsign"], [], []),
    "GRU": (["HardSigmoid", "LeakyRelu"], [0.3, 0.2], [0.4]),
    "LSTM": (["HardSigmoid", "ScaledTanh", "Affine"], [0.3, 0.8, 1.1], [0.4, 0.7, 0.1]),
}
"""Functions that are not the usual ones, with their alphas and betas."""


def cell(
    op: str,
    direction: str,
    *,
    lengths: list[int] | None = None,
    states: bool = True,
    bias: bool = True,
    constant: bool = True,
    steps: int = 5,
    opset: int = 14,
    **attributes: Any,
) -> tuple[onnx.ModelProto, Feeds]:
    """A model of one cell with drawn weights, constants or inputs, and what to feed it."""
    random = np.random.default_rng(0)
    ways = 2 if direction == "bidirectional" else 1

    def drawn(*sizes: int) -> Array:
        return (0.5 * random.standard_normal(sizes)).astype(np.float32)

    operands: Feeds = {
        "W": drawn(ways, GATES[op] * HIDDEN, INPUTS),
        "R": drawn(ways, GATES[op] * HIDDEN, HIDDEN),
    }
    if bias:
        operands["B"] = drawn(ways, 2 * GATES[op] * HIDDEN)
    if lengths is not None:
        operands["lengths"] = np.array(lengths, np.int32)
    if states:
        operands["h"] = drawn(ways, BATCH, HIDDEN)
    if states and op == "LSTM":
        operands["c"] = drawn(ways, BATCH, HIDDEN)
    if attributes.pop("peepholes", False):
        operands["P"] = drawn(ways, 3 * HIDDEN)
    feeds = {"X": drawn(steps, BATCH, INPUTS)} | ({} if constant else operands)
    names = ["X", "W", "R", "B", "lengths", "h", *(["c", "P"] if op == "LSTM" else [])]
    inputs = [name if name == "X" or name in operands else "" for name in names]
    outputs = ["Y", "Y_h", *(["Y_c"] if op == "LSTM" else [])]
    node = helper.make_node(op, inputs, outputs, name="cell", hidden_size=HIDDEN, direction=direction, **attributes)
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in operands.items() if constant],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), feeds


def laid_out(model: onnx.ModelProto) -> Graph:
    graph = from_proto(model)
    infer(graph)
    for node in list(graph):
        unroll(node)
    return graph


def check(model: onnx.ModelProto, feeds: Feeds) -> None:
    graph = laid_out(model)
    assert not any(node.op in GATES for node in graph)
    runs = [
        onnxruntime.InferenceSession(data).run(None, feeds) for data in (model.SerializeToString(), to_bytes(graph))
    ]
    for want, got in zip(*runs, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"lengths": [5, 2, 3]},
        {"states": False, "bias": False},
        {"constant": False, "lengths": [1, 5, 4]},
        {"clip": 0.3},
        {"steps": 1},
        {"opset": 11},
        {"own": True},
        {"other": True},
    ],
    ids=str,
)
def test_a_cell_s_steps_answer_as_the_cell(op: str, direction: str, how: dict[str, Any]) -> None:
    how = dict(how)
    ways = 2 if direction == "bidirectional" else 1
    if how.pop("own", False):
        how = {"RNN": {"activations": ["Relu"] * ways}, "GRU": {"linear_before_reset": 1}, "LSTM": {"peepholes": True}}[
            op
        ]
    if how.pop("other", False):
        names, alphas, betas = OTHER[op]
        how = {"activations": names * ways}
        how |= {"activation_alpha": alphas * ways} if alphas else {}
        how |= {"activation_beta": betas * ways} if betas else {}
    check(*cell(op, direction, **how))


@pytest.mark.parametrize(
    "how", [{"steps": MOST + 1}, {"activations": ["Affine"]}, {"activations": ["Nonsense"]}], ids=str
)
def test_what_cannot_be_laid_out_stays(how: dict[str, Any]) -> None:
    assert [node.op for node in laid_out(cell("RNN", "forward", **how)[0])] == ["RNN"]


@pytest.mark.parametrize("op", GATES)
def test_a_library_computes_a_cell(op: str) -> None:
    pytest.importorskip("tvm")
    import interpreted

    model, feeds = cell(op, "bidirectional", lengths=[5, 2, 3])
    answers = interpreted.run(interpreted.build(model, machines.host("x86-64-v3")), list(feeds.values()))
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    for want, got in zip(expected, answers, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("op", GATES)
def test_what_is_no_number_is_the_largest_in_gates_with_a_bias(op: str, bias: bool) -> None:
    pytest.importorskip("tvm")
    import interpreted

    model, feeds = cell(op, "forward", states=False, bias=bias)
    feeds["X"][1, 0, 2] = np.nan
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    assert np.isnan(expected[0]).any() == (op == "RNN" or not bias)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "T"  # a kernel walks the steps
    for one in (model, cell(op, "forward", states=False, bias=bias)[0]):
        answers = interpreted.run(interpreted.build(one, machines.host("x86-64-v3")), list(feeds.values()))
        for want, got in zip(expected, answers, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
def test_a_library_of_a_cell_over_any_number_of_steps_is_built(op: str, tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    model, feeds = cell(op, "forward", states=False)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "T"
    compile(from_proto(model), "clean", target="host", output=tmp_path / "cell", check=False)
    answers = table.one("host").open(str(tmp_path / "cell")).run(feeds)
    for want, got in zip(expected, answers, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
