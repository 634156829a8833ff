"""Odd but valid models through a whole compilation: right results, or a named reason why not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from protos import model, value

from optc.compiler import Data, compile
from optc.errors import DataError, PassError, TargetError
from optc.ir.graph import Graph
from optc.passes.base import Context, Pass, Report

RANDOM = np.random.default_rng(0)
W43 = RANDOM.standard_normal((4, 3)).astype(np.float32)
MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")

Build = Callable[[], onnx.ModelProto]


X, Y = value("x", ["N", 4]), value("y", ["N", 3])

DOES_NOT_RUN: dict[str, tuple[Build, type[Exception], str]] = {
    "custom operator": (
        lambda: model([helper.make_node("Magic", ["x"], ["y"], domain="com.acme")], [X], [Y], others={"com.acme": 1}),
        TargetError,
        "com.acme:Magic",
    ),
    "no kernel": (
        lambda: model(
            [helper.make_node("Conv", ["x", "w"], ["y"])],
            [value("x", ["N", 1, 4, 4], TensorProto.DOUBLE)],
            [value("y", ["N", 1, 4, 4], TensorProto.DOUBLE)],
            {"w": np.ones((1, 1, 1, 1))},
        ),
        TargetError,
        "Conv",
    ),
    "text input": (
        lambda: model(
            [helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="UPPER")],
            [value("x", ["N"], TensorProto.STRING)],
            [value("y", ["N"], TensorProto.STRING)],
        ),
        DataError,
        "string",
    ),
    "sequence input": (
        lambda: model(
            [helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0)],
            [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["N", 4])],
            [value("y", ["N", 4])],
        ),
        DataError,
        "'s' is not a tensor",
    ),
    "no inputs": (
        lambda: model([helper.make_node("Relu", ["w"], ["y"])], [], [value("y", [4, 3])], {"w": W43}),
        DataError,
        "no inputs",
    ),
    "unknown rank": (
        lambda: model([helper.make_node("Concat", ["x", "x"], ["y"], axis=2)], [value("x", None)], [value("y", None)]),
        TargetError,
        "--data",
    ),
}


@pytest.mark.parametrize("name", DOES_NOT_RUN)
def test_a_model_that_does_not_run_here_is_cleaned_and_the_report_says_so(name: str, tmp_path: Path) -> None:
    build, _, word = DOES_NOT_RUN[name]
    out = tmp_path / "out.onnx"
    done = compile(build(), "clean", output=out, threads=1)
    assert done.report.agreement is None
    assert any("was not run beside the original" in note and word in note for note in done.report.notes)
    onnx.load(out)
    assert os.listdir(tmp_path) == ["out.onnx"]


@pytest.mark.parametrize("name", DOES_NOT_RUN)
def test_passes_that_fit_say_what_a_model_that_does_not_run_can_have_instead(name: str, tmp_path: Path) -> None:
    build, error, word = DOES_NOT_RUN[name]
    with pytest.raises(error, match=word) as caught:
        compile(build(), "quant", output=tmp_path / "out.onnx", threads=1)
    assert "--passes clean --no-check" in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("passes", ["clean", "quant"])
def test_a_batch_axis_that_is_declared_and_not_taken(passes: str) -> None:
    constants = {
        "c": RANDOM.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "one": np.array([1, 288], np.int64),
        "w": RANDOM.standard_normal((288, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "c"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Reshape", ["b", "one"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    lying = model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", ["N", 5])], constants)
    build = compile(lying, passes, threads=1, guard=False)
    assert build.report.agreement is not None
    assert build.report.agreement.samples > 1
    assert build.report.agreement.share > 0.9


@pytest.mark.parametrize("passes", ["prune", "svd", "quant"])
def test_a_single_layer_and_nothing_else(passes: str) -> None:
    build = compile(model([MATMUL], [X], [Y], {"w": W43}), passes, threads=1)
    assert build.report.agreement is not None
    assert len(build.report.steps[-1].report.layers) == 1


def test_a_model_without_outputs() -> None:
    build = compile(model([MATMUL], [X], [], {"w": W43}), "quant", threads=1)
    assert len(build.graph) == 0


def test_annotations_are_neither_added_nor_lost(tmp_path: Path) -> None:
    nodes = [MATMUL, helper.make_node("Relu", ["y"], ["a"]), helper.make_node("Neg", ["a"], ["z"])]
    plain = model(nodes, [X], [value("z", ["N", 3])], {"w": W43})
    out = tmp_path / "out.onnx"
    compile(plain, "clean", output=out, check=False)
    assert not onnx.load(out).graph.value_info
    plain.graph.value_info.append(value("a", ["N", 3]))
    compile(plain, "clean", output=out, check=False)
    assert [info.name for info in onnx.load(out).graph.value_info] == ["a"]


class Breaks(Pass):
    """Leaves a graph that verifies and that no runtime takes."""

    name: ClassVar[str] = "breaks"
    lossy: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        graph.opsets["com.acme"] = 1
        node = next(iter(graph))
        cut = graph.add("Magic", [node.output], domain="com.acme", types=[node.output.type], after=node)
        graph.set_output(0, cut.output)
        report.done("matmul", "MatMul")
        return report


def test_a_pass_that_breaks_a_model_is_a_fault_of_ours() -> None:
    with pytest.raises(PassError, match="left a graph that fails"):
        compile(model([MATMUL], [X], [Y], {"w": W43}), Breaks(), threads=1)


def test_agreement_is_a_share(tmp_path: Path) -> None:
    rows = RANDOM.standard_normal((40, 4)).astype(np.float32)
    graph = model([helper.make_node("Relu", ["x"], ["y"])], [X], [value("y", ["N", 4])])
    build = compile(graph, "clean", data=rows, output=tmp_path / "o.onnx", threads=1)
    assert build.report.agreement is not None
    assert build.report.agreement.share <= 1
    session = onnxruntime.InferenceSession(str(tmp_path / "o.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": rows})[0], np.maximum(rows, 0))


def test_the_number_of_samples_holds_for_made_up_ones_too() -> None:
    build = compile(model([MATMUL], [X], [Y], {"w": W43}), "clean", data=Data(limit=6), threads=1)
    assert build.report.samples is not None
    assert build.report.samples.synthetic
    assert build.report.samples.fit + build.report.samples.held_out == 6


def test_options_for_images_are_not_ignored_in_silence() -> None:
    rows = RANDOM.standard_normal((40, 4)).astype(np.float32)
    build = compile(model([MATMUL], [X], [Y], {"w": W43}), "clean", data=Data(rows, mean=(3.0,)), threads=1)
    assert any("are for images" in note for note in build.report.notes)


class Shouts(Pass):
    """Crashes with an error of many lines."""

    name: ClassVar[str] = "shouts"

    def run(self, graph: Graph, ctx: Context) -> Report:
        raise TypeError("first\n  second\n\nthird")


def test_a_crash_is_told_in_one_line() -> None:
    with pytest.raises(PassError, match=r"TypeError: first second third$"):
        compile(model([MATMUL], [X], [Y], {"w": W43}), Shouts(), threads=1)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("passes", ["clean", "quant"])
def test_pictures_in_a_batch_of_fixed_size(batch: int, passes: str) -> None:
    weights = {"w": RANDOM.standard_normal((8, 3, 3, 3)).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    fixed = model(nodes, [value("x", [batch, 3, 8, 8])], [value("y", [batch, 8, 6, 6])], weights)
    build = compile(fixed, passes, threads=1, data=Data(limit=4))
    assert build.report.agreement is not None
    assert build.report.agreement.share > 0.99
