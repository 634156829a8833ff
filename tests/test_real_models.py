"""Models of the kinds that people compress, through every lossy pass: status 0, and answers near to the float ones."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from optc.cli.app import run
from optc.compiler import compile
from optc.compiler.model import read
from optc.ir.onnx.writer import to_bytes

from .real_models import Maker, group_norm, pyramid, samples, siamese, unrolled

CHANNELS = "prune:kind=channels:ratio=0.4:align=4:scope=layer"


def answers(model: bytes, feeds: dict[str, np.ndarray]) -> list[object]:
    return list(onnxruntime.InferenceSession(model).run(None, feeds))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 32), (32,)])
@pytest.mark.parametrize("fused", [True, False], ids=["gemm", "matmul-add"])
def test_channels_go_whatever_the_shape_of_a_bias(shape: tuple[int, ...], fused: bool) -> None:
    """A Gemm, or a MatMul and an Add that are one, with every shape that a bias may have."""
    make = Maker()
    h = "x"
    for n, d in ((32, 16), (32, 32)):
        if fused:
            h = make.add("Gemm", h, make.weight(n, d), make.weight(*shape), transB=1, beta=0.5)
        else:
            h = make.add("Add", make.add("MatMul", h, make.weight(d, n)), make.weight(*shape))
        h = make.add("Relu", h)
    model = make.build({"x": ["N", 16]}, {"y": make.add("MatMul", h, make.weight(32, 5))})
    build = compile(model, CHANNELS, data=samples(200, x=(16,)), guard=False, check=False)
    small = sum(v.constant.size for v in build.graph.constants if v.constant is not None)
    assert small < 0.8 * (16 * 32 + 32 * 32 + 32 * 5)
    (y,), (t,) = (answers(m, samples(32, 2, x=(16,))) for m in (to_bytes(build.graph), model.SerializeToString()))
    assert np.sum((y - t) ** 2) < 0.5 * np.sum(t**2)


def _scalar(*, squeeze: bool) -> onnx.ModelProto:
    make = Maker()
    if not squeeze:
        return make.build({"x": [8]}, {"y": make.add("MatMul", "x", make.weight(8))})
    row = make.add("Unsqueeze", "x", make.constant([0], np.int64))
    score = make.add("Gemm", row, make.weight(8, 1), make.weight(1))
    return make.build({"x": [8]}, {"y": make.add("Squeeze", score)})


@pytest.mark.parametrize("squeeze", [True, False])
@pytest.mark.parametrize("passes", ["clean", "prune", "prune:kind=channels", "svd", "depthwise", "quant"])
def test_outputs_without_axes(passes: str, squeeze: bool) -> None:
    """Losses and scores: one number, of rank 0."""
    build = compile(_scalar(squeeze=squeeze), passes, data=samples(8, x=(8,)))
    assert build.report.agreement is not None
    assert build.report.agreement.share > 0.9


def test_models_with_outputs_without_axes_are_compared(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"{tmp_path}/m.onnx"
    onnx.save(_scalar(squeeze=False), path)
    assert run(["diff", path, path]) == 0
    assert "agreement 100 % (all of it)" in capsys.readouterr().out


def classifier(*, names: bool = True) -> onnx.ModelProto:
    """A small network whose probabilities a ZipMap gives by the names of the classes, as converters write them."""
    make = Maker(ai_onnx_ml=3)
    h = make.add("Relu", make.add("Gemm", "x", make.weight(64, 16), make.weight(64), transB=1))
    h = make.add("Relu", make.add("Gemm", h, make.weight(64, 64), make.weight(64), transB=1))
    p = make.add("Softmax", make.add("Gemm", h, make.weight(3, 64), make.weight(3), transB=1), axis=-1)
    keys: dict[str, object] = {"classlabels_strings": ["a", "b", "c"]} if names else {"classlabels_int64s": [7, 8, 9]}
    make.nodes.append(helper.make_node("ZipMap", [p], ["maps"], domain="ai.onnx.ml", **keys))
    model = make.build({"x": ["N", 16]}, {"p": p})
    key = TensorProto.STRING if names else TensorProto.INT64
    kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    model.graph.output.append(helper.make_value_info("maps", helper.make_sequence_type_proto(kind)))
    return model


@pytest.mark.parametrize("names", [True, False], ids=["strings", "integers"])
@pytest.mark.parametrize("passes", ["clean", "prune", "prune:kind=channels", "svd", "depthwise", "quant"])
def test_outputs_that_are_maps(passes: str, names: bool) -> None:
    build = compile(classifier(names=names), passes, data=samples(64, x=(16,)), check=True)
    assert build.report.agreement is not None
    one = next(o for o in build.report.agreement.outputs if o.name == "maps")
    assert one.cosine is not None
    assert one.cosine > 0.9
    assert one.broken == 0


SHARED = {
    "siamese": (siamese, {"left": (3, 16, 16), "right": (3, 16, 16)}),
    "pyramid": (pyramid, {"x": (3, 16, 16)}),
    "unrolled": (unrolled, {"x": (6, 16)}),
}


@pytest.mark.parametrize("passes", ["prune:ratio=0.5", "prune:kind=nm", "svd:ratio=0.8:align=4",
                                    "depthwise:rank=4", CHANNELS])  # fmt: skip
@pytest.mark.parametrize("name", SHARED)
def test_shared_weights_change_together(name: str, passes: str) -> None:
    """All readers of a weight go on reading one weight, and it answers for all of them."""
    build, shapes = SHARED[name]
    model = build()
    result = compile(model, passes, data=samples(48, **shapes), guard=False, check=False)
    changed = [x for step in result.report.steps for x in step.report.layers if "readers" in x.detail]
    if passes != CHANNELS and not (name == "unrolled" and passes.startswith("depthwise")):
        assert changed
        assert {x.detail["readers"] for x in changed} == ({2} if name == "siamese" else {3})
    stored = [
        sum(v.constant.nbytes for v in g.constants if v.constant is not None) for g in (read(model), result.graph)
    ]
    assert stored[1] <= 1.02 * stored[0]
    if passes == CHANNELS:
        assert stored[1] < 0.9 * stored[0]
    feeds = samples(16, 2, **shapes)
    for y, t in zip(answers(to_bytes(result.graph), feeds), answers(model.SerializeToString(), feeds), strict=True):
        assert np.sum((y - t) ** 2) < 0.7 * np.sum((t - t.mean(axis=0)) ** 2)


def test_both_sides_of_a_comparison_stay_alike() -> None:
    result = compile(siamese(), "prune:ratio=0.5,svd:ratio=0.7", data=samples(48, left=(3, 16, 16), right=(3, 16, 16)),
                     guard=False, check=False)  # fmt: skip
    one = samples(4, 3, x=(3, 16, 16))["x"]
    difference, _ = answers(to_bytes(result.graph), {"left": one, "right": one})
    assert not difference.any()


@pytest.mark.parametrize("size", [16, "S"])
@pytest.mark.parametrize("form", ["old", "18", "21"])
def test_channels_of_group_normalisations_go_in_whole_groups(form: str, size: object) -> None:
    model = group_norm(form, size=size)
    data = samples(48, x=(4, 16, 16))
    result = compile(model, "prune:kind=channels:ratio=0.25:align=8:groups=all", data=data, guard=False, check=False)
    kept = [x for step in result.report.steps for x in step.report.layers if "kept" in x.detail]
    assert kept
    norms = [n for n in result.graph if n.op in ("GroupNormalization", "InstanceNormalization")]
    assert len(norms) == 3
    groups = [n.get_int("num_groups") or n.inputs[1].constant.size for n in norms]
    assert min(groups) < 8
    feeds = samples(8, 2, x=(4, 16, 16))
    (y,), (t,) = answers(to_bytes(result.graph), feeds), answers(model.SerializeToString(), feeds)
    assert y.shape == t.shape
    assert np.sum((y - t) ** 2) < 0.6 * np.sum((t - t.mean(axis=0)) ** 2)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_strings_come_feed_by_feed(shape: tuple[int, ...]) -> None:
    """Arrays of Python strings, of other lengths in each feed."""
    nodes = [helper.make_node("StringConcat", ["x", "x"], ["y"])]
    io = [helper.make_tensor_value_info(name, TensorProto.STRING, shape) for name in "xy"]
    graph = helper.make_graph(nodes, "g", [io[0]], [io[1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    feeds = [{"x": np.full(shape, word, object)} for word in ("a", "hello world !", "é")]
    build = compile(model, "prune,svd,quant", data=feeds)
    assert build.report.agreement is not None
    assert build.report.agreement.share == 1.0
