"""What a target writes is held against the graph that it was built from: wrong code is noticed, right code is not."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optc.cli.app import run
from optc.compiler import compile
from optc.compiler.validate import validate
from optc.errors import EmissionError, TargetError
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.runtime.session import Session
from optc.runtime.sources import load_samples
from optc.targets.onnx import OnnxTarget

TOOLS = {
    "host": "g++",
    "arm64": "aarch64-linux-gnu-g++ qemu-aarch64-static",
    "armv7": "arm-linux-gnueabihf-g++ qemu-arm-static",
    "opencl": "g++",
}


def need(target: str) -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    for tool in TOOLS[target].split():
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here")
    if target == "opencl":
        from optc.targets.tvm.gpu.run import require_driver

        try:
            require_driver()
        except TargetError:
            pytest.skip("no OpenCL device is here: apt-get install ocl-icd-libopencl1 pocl-opencl-icd")


def net() -> Graph:
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 3, 8, 8)))
    random = np.random.default_rng(0)
    weights = graph.constant(random.normal(size=(8, 3, 3, 3)).astype(np.float32))
    first = graph.add("Relu", [graph.add("Conv", [x, weights]).output]).output
    last = graph.constant(random.normal(size=(8 * 36, 5)).astype(np.float32) / 17)
    graph.add_output(graph.add("MatMul", [graph.add("Flatten", [first]).output, last]).output, "y")
    infer(graph)
    return graph


def absolute(graph: Graph) -> Graph:
    """The graph with every Relu computed wrongly."""
    for node in graph:
        if node.op == "Relu":
            node.op = "Abs"
    return graph


def one_weight(graph: Graph) -> Graph:
    """The graph with one weight of hundreds a hundredth off."""
    for node in graph:
        if node.op in ("MatMul", "Gemm"):
            value = node.inputs[1]
            assert value is not None
            assert value.constant is not None
            array = np.array(value.constant.numpy())
            array.flat[int(np.abs(array).argmax())] *= 1.01
            node.set_input(1, graph.constant(array))
    graph.sweep()
    return graph


def broken(monkeypatch: pytest.MonkeyPatch, target: str, change: Callable[[Graph], Graph]) -> None:
    """Let the target emit code for another graph than it is given."""
    if target == "onnx":
        monkeypatch.setattr(OnnxTarget, "_in_few_bytes", lambda self, graph: change(graph.clone()))
        return
    from optc.targets.tvm.relax import module

    right = module.import_graph
    monkeypatch.setattr(module, "import_graph", lambda graph, *rest: right(change(graph.clone()), *rest))


@pytest.mark.parametrize(
    ("target", "change"),
    [(name, absolute) for name in ("onnx", "host", "arm64", "armv7", "opencl")]
    + [("onnx", one_weight), ("host", one_weight)],
)
def test_wrong_code_is_not_put_in_its_place(
    target: str, change: Callable[[Graph], Graph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if target != "onnx":
        need(target)
    broken(monkeypatch, target, change)
    with pytest.raises(EmissionError, match=r"does not answer as the graph .* output 'y': .* nothing was written"):
        compile(net(), "clean", target=target, output=tmp_path / "out.tar", threads=1)
    assert not list(tmp_path.iterdir())
    build = compile(net(), "clean", target=target, output=tmp_path / "out.tar", threads=1, check=False)
    assert build.report.validation is not None
    assert build.report.validation.text == "not run: left out, --no-check"


@pytest.mark.parametrize("target", ["onnx", "host", "arm64", "armv7", "opencl"])
def test_right_code_is(target: str, tmp_path: Path) -> None:
    if target != "onnx":
        need(target)
    build = compile(net(), "clean", target=target, output=tmp_path / "out.tar", threads=1)
    assert build.report.validation is not None
    assert build.report.validation.samples == (8 if target in ("onnx", "host") else 2)


def test_what_cannot_be_run_here_is_said_in_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    save(net(), tmp_path / "m.onnx")
    words = [
        str(tmp_path / "m.onnx"),
        "--passes",
        "clean",
        "--target",
        "metal",
        "-o",
        str(tmp_path / "out"),
        "--no-cache",
    ]
    assert run(words) == 0
    assert "check of the artifact: not run: it cannot run here" in capsys.readouterr().out


def test_the_command_that_shows_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crashes").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "crashes"))
    save(net(), tmp_path / "m.onnx")
    with monkeypatch.context() as patch:
        broken(patch, "onnx", absolute)
        words = [str(tmp_path / "m.onnx"), "--passes", "clean", "-o", str(tmp_path / "o.onnx"), "--no-cache"]
        assert run(words) == 1
        said = capsys.readouterr().err.strip().splitlines()[-1]
        command = re.search(r"; to reproduce: optc (.*)$", said)
        assert command is not None
        again = [word for word in shlex.split(command[1]) if word != "--traceback"]
        assert run([*again, "-o", str(tmp_path / "again.onnx"), "--no-cache"]) == 1
        assert "does not answer as the graph" in capsys.readouterr().err
    assert run([*again, "-o", str(tmp_path / "again.onnx"), "--no-cache"]) == 0
    assert not (tmp_path / "o.onnx").exists()


def test_a_fault_inside_a_target_is_ours_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crashes").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "crashes"))

    def fails(self: OnnxTarget, graph: Graph) -> Graph:
        raise AssertionError("two\nlines")

    monkeypatch.setattr(OnnxTarget, "_in_few_bytes", fails)
    save(net(), tmp_path / "m.onnx")
    assert run([str(tmp_path / "m.onnx"), "--passes", "clean", "-o", str(tmp_path / "o.onnx"), "--no-cache", "-q"]) == 1
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert "onnx failed on graph 'net': AssertionError: two lines; nothing was written; to reproduce: optc " in said


class Answering:
    """An artifact that gives what a function makes of the graph's own answers."""

    emulated = False
    threads = 1

    def __init__(self, graph: Graph, change: Callable[[list[np.ndarray]], list[np.ndarray]]) -> None:
        self.outputs = graph.outputs
        self._session = Session(graph, threads=1)
        self._change = change

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self._change(self._session.run(feeds))


def every_kind() -> Graph:
    """A number, which class, a mask of -1e9 beside small numbers, what is no number, and drawn numbers."""
    graph = Graph("kinds", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 16)))
    weights = graph.constant(np.random.default_rng(0).normal(size=(16, 9)).astype(np.float32))
    y = graph.add("MatMul", [x, weights]).output
    mask = graph.constant(np.where(np.arange(9) % 3, 0, -1e9).astype(np.float32))
    for name, value in {
        "y": y,
        "class": graph.add("ArgMax", [y], {"axis": 1}).output,
        "masked": graph.add("Add", [y, mask]).output,
        "log": graph.add("Log", [y]).output,
        "drawn": graph.add("RandomNormalLike", [y]).output,
    }.items():
        graph.add_output(value, name)
    infer(graph)
    return graph


def changed(index: int, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    return lambda answers: [change(one.copy()) if i == index else one for i, one in enumerate(answers)]


def first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(0, lambda y: y.astype(np.float64)), "'y': it is float64[7, 9], and float32[7, 9] in the graph"),
        (changed(0, lambda y: y[:, :8]), "'y': it is float32[7, 8], and float32[7, 9] in the graph"),
        (changed(0, lambda y: y + np.float32(2e-3)), "'y': 72 of 72 elements are wrong"),
        (changed(0, first(np.nan)), "'y': 2 of 72 elements are wrong"),
        (changed(1, lambda y: (y + 1) % 9), "'class': 8 of 8 elements are wrong"),
        (changed(2, lambda y: np.where(y < -1e8, y, y * np.float32(1.01))), "'masked': "),
        (changed(3, lambda y: np.nan_to_num(y, nan=0.0)), "'log': "),
        (changed(4, lambda y: y.astype(np.float16)), "'drawn': it is float16[7, 9]"),
    ],
)
def test_what_is_wrong_with_an_output_is_said(
    change: Callable[[list[np.ndarray]], list[np.ndarray]], said: str
) -> None:
    graph = every_kind()
    samples = load_samples({"x": np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32)}, graph)
    with pytest.raises(EmissionError, match=re.escape(said)):
        validate(graph, Answering(graph, change), samples)


def test_rounding_and_chance_are_not_wrong() -> None:
    graph = every_kind()
    samples = load_samples({"x": np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32)}, graph)
    validation = validate(graph, Answering(graph, changed(0, lambda y: y * np.float32(1 + 1e-6))), samples)
    assert (validation.samples, validation.random) == (8, ("drawn",))


@pytest.mark.parametrize("dtype", [DType.INT4, DType.UINT4])
def test_what_the_runtime_rounds_by_itself_is_no_fault_of_the_artifact(dtype: DType, tmp_path: Path) -> None:
    """ONNX Runtime rounds what products with 4-bit weights in blocks read to 8 bits: the model itself answers so."""
    graph = Graph("net", opsets={"": 21})
    random = np.random.default_rng(0)
    value = graph.add_input("x", TensorType(DType.FLOAT, ("N", 32)))
    for _ in range(2):
        codes = graph.constant(random.integers(0, 8, size=(32, 32)).astype(dtype.numpy))
        scale = graph.constant(random.uniform(0.02, 0.05, (2, 32)).astype(np.float32))
        weights = graph.add("DequantizeLinear", [codes, scale], {"axis": 0, "block_size": 16}).output
        value = graph.add("MatMul", [value, weights]).output
    graph.add_output(value, "y")
    infer(graph)
    x = random.standard_normal((32, 32)).astype(np.float32)
    exact, rounded = (Session(graph, threads=1, exact=exact).run({"x": x})[0] for exact in (True, False))
    assert np.abs(exact - rounded).max() > 1e-3 * np.abs(exact).max()
    build = compile(graph, "clean", data={"x": x}, output=tmp_path / "a.onnx", threads=1)
    assert build.report.validation is not None
    assert build.report.validation.samples


def test_the_reference_has_as_many_threads_as_the_artifact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamically quantized recurrent layers answer by how many samples a thread has."""
    threads: list[int] = []

    class Recorded(Session):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            threads.append(kwargs.get("threads", 0))
            super().__init__(*args, **kwargs)

    monkeypatch.setattr("optc.compiler.validate.Session", Recorded)
    graph = net()
    validate(graph, Recorded(graph, threads=1), load_samples(np.zeros((2, 3, 8, 8), np.float32), graph))
    assert threads == [1] * len(threads)
    assert len(threads) > 1
