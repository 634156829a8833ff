"""The GPU targets: what their kernels answer on an OpenCL device, and what the folders hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from opencl import need_driver, need_tvm

from optc.compiler import compile
from optc.errors import SpecError, TargetError
from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.runtime.session import Runnable, Session
from optc.targets import table
from optc.targets.tvm.artifact import folder as artifact
from optc.targets.tvm.artifact import manifest


def tiny() -> Graph:
    """Convolutions of every kind, pooling, a mean, a product and a softmax; no tile divides its sizes."""
    graph = Graph("tiny", opsets={"": 17})
    random = np.random.default_rng(0)

    def constant(*shape: int) -> Value:
        scale = np.sqrt(max(1, int(np.prod(shape[1:]))))
        return graph.constant((random.normal(size=shape) / scale).astype(np.float32))

    def add(op: str, *inputs: Value, **attributes: object) -> Value:
        return graph.add(op, list(inputs), attributes).output  # type: ignore[arg-type]

    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 3, 13, 11)))
    first = add("Relu", add("Conv", x, constant(12, 3, 3, 3), constant(12), pads=[1, 1, 1, 1]))
    depth = add("Conv", first, constant(12, 1, 3, 3), group=12, strides=[2, 2], pads=[0, 1, 1, 0])
    wide = add("Conv", add("MaxPool", first, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), constant(24, 12, 1, 1))
    wide = add("Clip", wide, graph.constant(np.float32(0)), graph.constant(np.float32(6)))
    mean = add("GlobalAveragePool", wide)
    classes = add("Softmax", add("Gemm", add("Flatten", mean), constant(7, 24), constant(7), transB=1))
    for index, value in enumerate((add("Sigmoid", depth), classes, add("Transpose", mean, perm=[0, 2, 3, 1]))):
        graph.add_output(value, f"y{index}")
    infer(graph)
    return graph


FEEDS = {"x": np.random.default_rng(1).normal(size=(1, 3, 13, 11)).astype(np.float32)}


@pytest.mark.parametrize(
    ("spec", "most"),
    [("opencl", 1e-5), ("opencl:device=mali:host=arm64", 4e-3)],
)
def test_kernels_answer_as_before(spec: str, most: float, tmp_path: Path) -> None:
    need_driver()
    target = table.parse(spec)[0]
    if "arm64" in spec:
        try:
            target.check_ready(run=True)
        except TargetError as error:
            pytest.skip(str(error))
    target.emit(tiny(), str(tmp_path / "a.tar"))
    opened = target.open(str(tmp_path / "a.tar"))
    answers(opened, most)
    with pytest.raises(TargetError, match="the model takes"):
        opened.run({"x": np.zeros((2, 3, 13, 11), np.float32)})


def answers(artifact: Runnable, most: float) -> None:
    """Twice, since what a run leaves behind must not tell in the next."""
    wanted = Session(tiny(), threads=1, optimise=False).run(FEEDS)
    for _ in range(2):
        for got, want in zip(artifact.run(FEEDS), wanted, strict=True):
            assert got.shape == want.shape
            assert got.dtype == want.dtype
            np.testing.assert_allclose(got, want, rtol=0, atol=most * float(np.abs(want).max()))


def small() -> Graph:
    graph = Graph("small", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 4, 8, 8)))
    weights = graph.constant(np.random.default_rng(0).normal(size=(16, 4, 3, 3)).astype(np.float32))
    graph.add_output(graph.add("Relu", [graph.add("Conv", [x, weights]).output]).output, "y")
    infer(graph)
    return graph


@pytest.mark.parametrize(("spec", "name"), [("metal:fp16=true", "*.metal"), ("webgpu", "*.wgsl")])
def test_shaders_that_cannot_run_here_are_emitted(
    spec: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_tvm()
    monkeypatch.setattr("optc.targets.tvm.gpu.wgpu_run.adapter", lambda: None)
    folder = tmp_path / "out"
    build = compile(small(), "clean", target=spec, output=folder, threads=1)
    assert build.report.agreement is None
    assert build.report.validation is not None
    assert "cannot run here: needs" in build.report.validation.reason
    with pytest.raises(SpecError, match="a budget on agreement needs the check"):
        compile(small(), "clean", target=spec, budget="agreement=99%", threads=1)
    said = json.loads((folder / "manifest.json").read_text())["gpu"]
    shaders = {path.stem: path.read_text() for path in folder.glob(name)}
    assert {launch["kernel"] for launch in said["launches"]} == set(shaders)
    assert all(f" {kernel}(" in text for kernel, text in shaders.items())
    launch = said["launches"][0]
    assert np.prod(launch["groups"]) * np.prod(launch["threads"]) > 1
    used = {said["buffers"][number]["kind"] for launch in said["launches"] for number in launch["buffers"]}
    assert used == {"input", "output", "weights", "scratch"}
    assert said["storage"] == ("float16" if "fp16" in spec else "float32")
    # A tensor of 16 x 4 x 3 x 3 numbers, of two bytes each where they are halves.
    assert (folder / "weights.bin").stat().st_size == 576 * (2 if "fp16" in spec else 4)
    with pytest.raises(TargetError, match="cannot run here: needs"):
        table.parse(spec)[0].open(str(folder))


@pytest.mark.parametrize(("spec", "most"), [("webgpu", 1e-5), ("webgpu:fp16=true", 4e-3)])
def test_shaders_answer_as_before_where_a_driver_is(spec: str, most: float, tmp_path: Path) -> None:
    need_tvm()
    target = table.parse(spec)[0]
    if target.cannot_run:
        pytest.skip(target.cannot_run)
    target.emit(tiny(), str(tmp_path / "a.tar"))
    answers(target.open(str(tmp_path / "a.tar")), most)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    need_tvm()
    for name in ("a.tar", "b.tar"):
        table.parse("opencl:device=adreno")[0].emit(small(), str(tmp_path / name))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    artifact.place_folder(str(tmp_path / "a.tar"), str(tmp_path / "out"))
    said = manifest.read(str(tmp_path / "out"))
    assert set(said["files"]) == {
        *("gpu.h", "kernels.cl", "model.cc", "model.h", "model.so", "opencl.cc", "runner.cc", "weights.bin")
    }
    text = (tmp_path / "out" / "kernels.cl").read_text()
    assert "vload_half4" in text
    assert "cl_khr_fp16" not in text


def coded() -> Graph:
    """A convolution and a product with int8 weights, scales for each channel and a bias in int32."""
    graph = Graph("coded", opsets={"": 17})
    random = np.random.default_rng(0)

    def constant(array: np.ndarray) -> Value:
        return graph.constant(array)

    def weights(*shape: int) -> Value:
        codes = constant(random.integers(-127, 128, size=shape).astype(np.int8))
        scales = constant(np.linspace(0.01, 0.02, shape[0]).astype(np.float32))
        return graph.add("DequantizeLinear", [codes, scales], {"axis": 0}).output

    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 8, 6, 6)))
    step = constant(np.array(0.05, np.float32)), constant(np.array(3, np.int8))
    rounded = graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [x, *step]).output, *step]).output
    bias = graph.add(
        "DequantizeLinear",
        [constant(np.arange(-8, 8, dtype=np.int32)), constant(np.linspace(0.1, 0.2, 16).astype(np.float32))],
        {"axis": 0},
    ).output
    activation = graph.add("Relu", [graph.add("Conv", [rounded, weights(16, 8, 3, 3), bias]).output]).output
    flat = graph.add("Flatten", [graph.add("GlobalAveragePool", [activation]).output]).output
    graph.add_output(graph.add("Gemm", [flat, weights(40, 16)], {"transB": 1}).output, "y")
    infer(graph)
    return graph


def test_int8_weights_stay_so(tmp_path: Path) -> None:
    need_driver()
    build = compile(coded(), "clean", target="opencl:device=mali", output=tmp_path / "out", threads=1)
    assert [step.name for step in build.report.steps] == ["clean", "scale-behind"]
    assert build.report.agreement is not None
    assert build.report.agreement.outputs[0].sqnr_db > 50  # type: ignore[operator]
    said = manifest.read(str(tmp_path / "out"))["gpu"]
    assert said["weights"]["int8"] == 16 * 8 * 9 + 48 * 16  # columns up to whole tiles
    assert "convert_float4(vload4" in (tmp_path / "out" / "kernels.cl").read_text()


@pytest.mark.parametrize(("spec", "most"), [("opencl", 1e-5), ("opencl:device=mali", 4e-3)])
def test_what_lies_apart_is_read_one_by_one(spec: str, most: float, tmp_path: Path) -> None:
    """Every second column of codes, and of what is stored as halves: no four of them lie side by side."""
    need_driver()
    graph = Graph("apart", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 4, 8, 16)))
    bounds = [graph.constant(np.array(value, np.int64)) for value in ([0, 0], [8, 16], [2, 3], [2, 2])]
    scale, zero = graph.constant(np.float32(0.02)), graph.constant(np.int8(3))
    codes = graph.add("QuantizeLinear", [x, scale, zero]).output
    graph.add_output(codes, "codes")
    decoded = graph.add("DequantizeLinear", [codes, scale, zero]).output
    soft = graph.add("Softmax", [x], {"axis": 3}).output
    for index, value in enumerate((decoded, soft)):
        every = graph.add("Slice", [value, *bounds]).output
        padded = graph.add("Pad", [every, graph.constant(np.array([0, 2, 0, 0, 0, 2, 0, 0], np.int64))]).output
        graph.add_output(graph.add("Sigmoid", [padded]).output, f"y{index}")
    infer(graph)
    feeds = {"x": np.random.default_rng(2).normal(size=(1, 4, 8, 16)).astype(np.float32)}
    target = table.parse(spec)[0]
    target.emit(graph.clone(), str(tmp_path / "a.tar"))
    wanted = Session(graph, threads=1, optimise=False).run(feeds)
    for got, want in zip(target.open(str(tmp_path / "a.tar")).run(feeds), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=most * float(np.abs(want).max()))


def test_open_sizes_are_refused_before_the_work() -> None:
    graph = small()
    graph.inputs[0].type = TensorType(DType.FLOAT, ("N", 4, 8, 8))
    with pytest.raises(TargetError, match=r"needs fixed sizes: give them with --shape x=1x4x8x8"):
        table.parse("opencl")[0].check_inputs(graph)
    with pytest.raises(TargetError, match=r"\[N, 4, 8, 8\], and webgpu needs fixed sizes"):
        table.parse("webgpu")[0].emit(graph, "nowhere.tar")


def test_inputs_that_webgpu_has_no_numbers_of_are_named() -> None:
    graph = Graph("ids", opsets={"": 17})
    x = graph.add_input("ids", TensorType(DType.INT64, (1, 4)))
    graph.add_output(graph.add("Cast", [x], {"to": 1}).output, "y")
    with pytest.raises(TargetError, match="input 'ids' is int64, which WebGPU has no numbers of"):
        table.parse("webgpu")[0].check_inputs(graph)


def test_what_a_gpu_target_tells_the_passes() -> None:
    facts = table.parse("opencl:device=mali")[0].facts
    assert (facts.channel_alignment, facts.integer_qdq, facts.measurable) == (4, False, False)
    halves = {
        text: table.parse(text)[0].half  # type: ignore[attr-defined]
        for text in ("opencl", "opencl:device=adreno", "metal")
    }
    assert halves == {"opencl": False, "opencl:device=adreno": True, "metal": False}
