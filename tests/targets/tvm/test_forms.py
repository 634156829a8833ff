"""Forms of single operators that other compilers answer otherwise than ONNX Runtime does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from opencl import need_driver

from optc.errors import TargetError
from optc.targets.tvm.cpu.machines import host

pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")

Array = np.ndarray[Any, Any]
NAN, INF = np.nan, np.inf
LARGEST, LEAST = 2**63 - 1, -(2**63)

random = np.random.default_rng(0)


def drawn(*sizes: int) -> Array:
    return random.standard_normal(sizes).astype(np.float32)


@dataclass(frozen=True)
class Form:
    """A node: what it reads as the model runs, the constants behind it (none where one is absent), its attributes."""

    op: str
    feeds: Sequence[Array]
    constants: Sequence[Array | None] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 18

    def model(self) -> onnx.ModelProto:
        inputs = {f"x{i}": feed for i, feed in enumerate(self.feeds)}
        stored = {f"c{i}": one for i, one in enumerate(self.constants) if one is not None}
        names = [*inputs, *(f"c{i}" if one is not None else "" for i, one in enumerate(self.constants))]
        graph = helper.make_graph(
            [helper.make_node(self.op, names, ["y"], name="node", **self.attributes)],
            "net",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(feed.dtype), feed.shape)
                for name, feed in inputs.items()
            ],
            [onnx.ValueInfoProto(name="y")],
            [numpy_helper.from_array(one, name) for name, one in stored.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def answer(self) -> Array:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(self.model().SerializeToString(), options)
        wanted: Array = session.run(None, {f"x{i}": feed for i, feed in enumerate(self.feeds)})[0]
        return wanted


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def scattered(reduction: str, *reach: int, axis: int = 0) -> Form:
    places = random.permuted(np.broadcast_to(np.arange(reach[axis])[:, None, None], reach), axis=0)
    return Form(
        "ScatterElements", [drawn(4, 5, 3), np.ascontiguousarray(places), drawn(*reach)],
        attributes={"axis": axis, "reduction": reduction},
    )  # fmt: skip


def regions(scale: float, opset: int = 16, **attributes: Any) -> Form:
    corners = np.sort(np.random.default_rng(1).random((4, 2, 2)) * 8 / scale - 1, axis=1)
    feeds = [drawn(2, 3, 8, 9), corners.reshape(4, 4).astype(np.float32), ints(0, 1, 1, 0)]
    return Form(
        "RoiAlign", feeds, attributes={"output_height": 2, "output_width": 3, "spatial_scale": scale, **attributes},
        opset=opset,
    )  # fmt: skip


def gates(op: str, biased: bool = True, **attributes: Any) -> Form:
    count = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    x = drawn(3, 2, 4)
    x[1, 0, 2], x[2, 1, 1] = NAN, -INF
    weights = [0.5 * drawn(1, count * 5, 4), 0.5 * drawn(1, count * 5, 5), drawn(1, 2 * count * 5) if biased else None]
    return Form(op, [x], weights, {"hidden_size": 5, **attributes}, opset=14)


SPECIAL = np.array([NAN, INF, -INF, -0.0, 2.5, -3.0, 0.25], np.float32)
TRUTHS = np.array([[True], [False]]), np.array([True, False, True])

FORMS = {
    "equal truths": Form("Equal", TRUTHS),
    "truths beside a constant": Form("Equal", TRUTHS[:1], TRUTHS[1:]),
    "bounds of clips as it runs": Form("Clip", [SPECIAL, np.array(-1, np.float32), np.array(2, np.float32)]),
    "bounds that are none": Form("Clip", [SPECIAL, np.array(NAN, np.float32), np.array(1, np.float32)]),
    "mean of large numbers": Form("ReduceMean", [np.array([[2**31 - 1, 2, 6, -4, -1]], np.int32)], [ints(1)]),
    "scatter into a corner": scattered("none", 3, 2, 2),
    "add into a corner": scattered("add", 4, 5, 1),
    "backwards to the largest": Form("Slice", [drawn(7, 4)], [ints(LEAST), ints(LARGEST), ints(1), ints(-1)]),
    "backwards from before": Form("Slice", [drawn(17)], [ints(-(2**31)), ints(LEAST), ints(0), ints(-100)]),
    "backwards to before": Form("Slice", [drawn(7, 4)], [ints(9), ints(-9), ints(0), ints(-2)]),
    "bounds of slices as it runs": Form(
        "Slice", [drawn(3, 4), ints(-1), ints(2**31 - 1)], [ints(1), ints(-1)]
    ),
    "regions by half a pixel": regions(0.25),
    "regions by half a pixel, sampled": regions(0.5, sampling_ratio=2),
    "regions since version 10": regions(0.25, 10),
    "regions of no halves": regions(0.5, coordinate_transformation_mode="output_half_pixel"),
    "pools of less than a stride": Form(
        "AveragePool", [drawn(2, 5, 3, 2)],
        attributes={"kernel_shape": [1, 1], "strides": [3, 2], "auto_pad": "SAME_UPPER"},
        opset=19,
    ),
    "pools of less than a stride, from below": Form(
        "LpPool", [drawn(2, 5, 9)], attributes={"kernel_shape": [1], "strides": [5], "auto_pad": "SAME_LOWER"}
    ),
    "GRU": gates("GRU"),
    "GRU, linear first": gates("GRU", linear_before_reset=1, clip=0.5),
    "GRU, other functions": gates("GRU", activations=["HardSigmoid", "Softsign"]),
    "LSTM": gates("LSTM"),
    "LSTM, clipped": gates("LSTM", clip=1.0),
    "GRU, no bias": gates("GRU", biased=False),
    "LSTM, no bias": gates("LSTM", biased=False, clip=1.0),
    "RNN": gates("RNN"),
    "RNN, clipped": gates("RNN", clip=1.0),
    "RNN of Relu": gates("RNN", activations=["Relu"]),
    "RNN of HardSigmoid": gates("RNN", activations=["HardSigmoid"]),
}  # fmt: skip


def same(got: Array, want: Array) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def parts(form: Form) -> tuple[onnx.ModelProto, list[Array]]:
    """The model with sizes of its result, which a result that depends on data must declare."""
    model, wanted = form.model(), form.answer()
    kind = helper.np_dtype_to_tensor_dtype(wanted.dtype)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", kind, wanted.shape))
    return model, [wanted]


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_answered_as_by_the_runtime(name: str) -> None:
    from interpreted import build, run

    model, (wanted,) = parts(FORMS[name])
    same(run(build(model, host("x86-64-v3")), FORMS[name].feeds)[0], wanted)


@pytest.mark.parametrize(
    "name",
    ["equal truths", "bounds of clips as it runs", "add into a corner", "regions by half a pixel", "LSTM"],
)
def test_a_form_is_answered_so_on_a_gpu(name: str) -> None:
    need_driver()
    from launched import answers

    model, (wanted,) = parts(FORMS[name])
    same(answers(model, FORMS[name].feeds)[0], wanted)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_sizes_that_the_runtime_reads_otherwise_are_refused(policy: str) -> None:
    from interpreted import build, run

    x = drawn(1, 1, 6, 10)

    def resize(*axes: int) -> Form:
        return Form("Resize", [x], [None, None, ints(3, 4)], {"axes": axes, "keep_aspect_ratio_policy": policy})

    same(run(build(resize(2, 3).model(), host("x86-64-v3")), [x])[0], resize(2, 3).answer())
    with pytest.raises(TargetError, match=r"Resize node 'node' cannot be compiled: .* from the front"):
        build(resize(-2, -1).model(), host("x86-64-v3"))
