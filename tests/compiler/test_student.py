"""A student of its own: read, matched with its teacher, taught, and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import optc
from optc.compiler import read
from optc.compiler.student import stranger, student_of
from optc.errors import ModelError
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType

FLOAT = DType.FLOAT


def small(path: Path, *, classes: int = 10, channels: int = 1, name: str = "x", seed: int = 0) -> Path:
    """A network of two convolutions and a classifier with random weights."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return (rng.normal(size=shape) * np.sqrt(2.0 / np.prod(shape[1:]))).astype(np.float32)

    graph = Graph("small", opsets={"": 17})
    x = graph.add_input(name, TensorType(FLOAT, ("N", channels, 16, 16)))
    for width, before in ((12, channels), (24, 12)):
        kernel = graph.constant(weights(width, before, 3, 3), f"w{width}")
        bias = graph.constant(np.zeros(width, np.float32), f"b{width}")
        x = graph.add("Conv", [x, kernel, bias], {"pads": [1, 1, 1, 1], "strides": [2, 2]}).output
        x = graph.add("Relu", [x]).output
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x]).output]).output
    y = graph.add("Gemm", [x, graph.constant(weights(classes, 24), "fc")], {"transB": 1}).output
    graph.add_output(y, "y", TensorType(FLOAT, ("N", classes)))
    optc.save(graph, path)
    return path


def test_a_random_student_learns_what_its_teacher_says(tmp_path: Path) -> None:
    build = optc.compile(
        "zoo:digits_dscnn", "distill:steps=150:batch=64", student=small(tmp_path / "s.onnx"), threads=1,
        output=tmp_path / "out.onnx",
    )  # fmt: skip
    assert build.report.agreement is not None
    assert build.report.agreement.top1 is not None
    assert build.report.agreement.top1 > 0.5
    result = optc.load(tmp_path / "out.onnx")
    assert [value.name for value in result.inputs] == ["input"]
    assert [output.name for output in result.outputs] == ["logits"]
    assert {node.op for node in result} <= {"Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"}


def test_a_student_gets_the_end_that_its_teacher_has(tmp_path: Path) -> None:
    teacher = read("zoo:digits_dscnn")
    logits = teacher.outputs[0].value
    teacher.set_output(0, teacher.add("Softmax", [logits], {"axis": -1}, types=[logits.type]).output)
    student = student_of(small(tmp_path / "s.onnx"), teacher)
    producer = student.outputs[0].value.producer
    assert producer is not None
    assert producer.op == "Softmax"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": 7}, r"its output 'y' is float\[N, 7\], that of the model, 'logits', float\[N, 10\]$"),
        ({"channels": 3}, r"its input 'x' is float\[N, 3, "),
    ],
)
def test_a_student_of_another_interface_is_named(tmp_path: Path, options: dict[str, int], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        student_of(small(tmp_path / "s.onnx", **options), read("zoo:digits_dscnn"))


def test_the_nearest_output_that_would_fit_is_named(tmp_path: Path) -> None:
    def ends(path: Path, **outputs: int) -> Path:
        graph = Graph("ends", opsets={"": 17})
        x = graph.add_input("x", TensorType(FLOAT, ("N", 4)))
        for name, width in outputs.items():
            weight = graph.constant(np.ones((4, width), np.float32))
            graph.add_output(graph.add("MatMul", [x, weight]).output, name, TensorType(FLOAT, ("N", width)))
        optc.save(graph, path)
        return path

    teacher = read(str(ends(tmp_path / "t.onnx", boxes=4, scores=2)))
    with pytest.raises(ModelError, match=r"its output 'score' is .*, that of the model, 'boxes', .* is 'scores'"):
        student_of(ends(tmp_path / "s.onnx", score=2, box=4), teacher)


def test_names_inside_a_student_mean_nothing_to_its_teacher(tmp_path: Path) -> None:
    teacher = stranger(read("zoo:digits_dscnn"))
    assert all(value.name.startswith("teacher.") for node in teacher for value in node.outputs)
    assert [output.name for output in teacher.outputs] == ["logits"]


def test_a_changed_student_is_another_build(tmp_path: Path) -> None:
    student, cache = small(tmp_path / "s.onnx"), tmp_path / "cache"
    builds = [
        optc.compile("zoo:digits_dscnn", "clean", student=student, cache=cache, output=tmp_path / "o.onnx", check=False)
        for _ in range(2)
    ]
    assert builds[1].report.cached
    small(student, seed=1)
    other = optc.compile(
        "zoo:digits_dscnn", "clean", student=student, cache=cache, output=tmp_path / "o.onnx", check=False
    )
    assert not other.report.cached
    assert other.report.outputs != builds[0].report.outputs
