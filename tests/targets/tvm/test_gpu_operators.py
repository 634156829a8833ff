"""Operators on an OpenCL device: names, conditions and element types that its language takes otherwise than others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from opencl import Array, Outputs, answers, need_driver, need_tvm

from optc.compiler import compile
from optc.errors import TargetError
from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.targets import table

RANDOM = np.random.default_rng(0)


def test_a_padded_convolution_reads_another(tmp_path: Path) -> None:
    """Rows beyond the border are zeros chosen for four channels by one condition."""
    need_driver()
    net = Outputs(x=RANDOM.normal(size=(1, 4, 9, 11)).astype(np.float32))
    last: str | Value = "x"
    for pads, group in (([1, 1, 1, 1], 1), ([2, 0, 1, 1], 1), ([1, 1, 1, 1], 8), ([0, 1, 2, 1], 2)):
        shape = (8, (4 if last == "x" else 8) // group, 3, 3)
        weights = net.constant(RANDOM.normal(size=shape) / 3)
        last = net.add("Conv", last, weights, pads=pads, group=group)
    net.add("AveragePool", last, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    net.add("MaxPool", last, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    net.check(tmp_path)


def test_the_zoo_network_with_such_convolutions(tmp_path: Path) -> None:
    need_driver()
    shapes = {"input": [1, 1, 16, 16]}
    built = compile("zoo:digits_resnet", "clean", target="opencl", shapes=shapes, output=tmp_path / "a", threads=1)
    assert built.report.agreement is not None
    assert built.report.agreement.outputs[0].sqnr_db > 80  # type: ignore[operator]


def test_functions_and_kernels_whose_names_the_language_has(tmp_path: Path) -> None:
    need_driver()
    x = RANDOM.uniform(-0.9, 0.9, size=(3, 8)).astype(np.float32)
    net = Outputs(x=x, y=RANDOM.uniform(0.1, 0.9, size=(3, 8)).astype(np.float32))
    for op in ("Max", "Min", "Pow", "Add", "Mod"):
        net.add(op, *(("y", "x") if op == "Pow" else ("x", "y")), **({"fmod": 1} if op == "Mod" else {}))
    for op in ("Erf", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Atanh", "Tanh", "Sin", "Cos", "Round"):
        net.add(op, "x")
    for op in ("Log", "Sqrt", "Exp", "Floor", "Ceil", "Sign", "Abs", "Hardmax", "Softplus"):
        net.add(op, "y")
    net.add("Acosh", net.add("Add", "y", net.constant(1.5)))
    for op in ("ArgMax", "ArgMin"):
        net.add(op, "x", axis=1)
        net.add(op, "x", axis=0, keepdims=0, select_last_index=1)
    net.check(tmp_path)


def test_scattering(tmp_path: Path) -> None:
    need_driver()
    net = Outputs(x=RANDOM.normal(size=(4, 6)).astype(np.float32), u=RANDOM.normal(size=(2, 6)).astype(np.float32))
    rows = net.constant([[0, 1, 2, 3, 0, 1], [2, 3, 1, 0, 3, 2]], np.int64)
    net.add("ScatterElements", "x", rows, "u", axis=0)
    net.add("ScatterElements", "x", rows, "u", axis=0, reduction="add")
    net.add("ScatterND", "x", net.constant([[3], [1]], np.int64), "u")
    net.check(tmp_path)


@pytest.mark.parametrize("last", [8, 7])
def test_conditions_and_narrow_types(last: int, tmp_path: Path) -> None:
    """With a last axis of whole fours, which become vectors where they can, and without."""
    need_driver()
    shape = (3, last)
    x = RANDOM.normal(size=shape).astype(np.float32) * 3
    x[0, :2] = np.nan, np.inf
    net = Outputs(
        x=x,
        b=RANDOM.integers(0, 2, shape).astype(bool),
        i8=RANDOM.integers(-128, 128, shape).astype(np.int8),
        u8=RANDOM.integers(0, 256, shape).astype(np.uint8),
        i64=RANDOM.integers(-(2**40), 2**40, shape),
        j64=np.arange(last) - 2**50,
    )
    zero = net.constant(0.0)
    less = net.add("Less", "x", zero)
    both = net.add("And", less, "b")
    for mask in ("b", less, both, net.add("Not", "b"), net.add("IsNaN", "x"), net.add("IsInf", "x")):
        net.add("Where", mask, "x", zero)
        net.add("Where", mask, "i64", "j64")
        net.add("Where", mask, "i8", net.constant(-3, np.int8))
    for value in ("i8", "u8"):
        net.add("Add", value, value)
        net.add("Cast", net.add("Mul", value, value), to=int(DType.FLOAT))
        net.add("Sub", net.constant(5, np.int8 if value == "i8" else np.uint8), value)
        net.add("Cast", value, to=int(DType.BOOL))
    net.add("Add", "i64", "i64")
    net.add("Cast", "b", to=int(DType.FLOAT))
    net.add("Cast", "b", to=int(DType.INT64))
    net.add("Equal", "i8", net.constant(1, np.int8))
    for op, slope in (("LeakyRelu", {"alpha": 0.3}), ("Elu", {}), ("Selu", {}), ("ThresholdedRelu", {}), ("Relu", {})):
        net.add(op, net.add("Where", net.add("IsNaN", "x"), zero, "x"), **slope)
    net.add("Pad", "i8", net.constant([1, 2, 0, 3], np.int64), net.constant(9, np.int8))
    net.add("Pad", "x", net.constant([1, 4, 0, 4], np.int64), net.constant(2.0))
    net.check(tmp_path)


def half_net() -> tuple[Graph, dict[str, Array]]:
    """Convolutions, a product, a mean and a softmax in half precision, with a Cast that the model itself makes."""
    graph = Graph("half", opsets={"": 17})
    random = np.random.default_rng(2)

    def constant(*shape: int) -> Value:
        return graph.constant((random.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float16))

    def add(op: str, *inputs: Value, **attributes: object) -> Value:
        return graph.add(op, list(inputs), attributes).output  # type: ignore[arg-type]

    x = graph.add_input("x", TensorType(DType.FLOAT16, (1, 3, 8, 8)))
    first = add("Relu", add("Conv", x, constant(16, 3, 3, 3), constant(16), pads=[1, 1, 1, 1]))
    second = add("Conv", first, constant(16, 1, 3, 3), constant(16), pads=[1, 1, 1, 1], group=16)
    mean = add("Flatten", add("GlobalAveragePool", add("Add", first, second)))
    wide = add("Cast", add("Gemm", mean, constant(16, 8), constant(8)), to=int(DType.FLOAT))
    graph.add_output(add("Cast", add("Softmax", wide), to=int(DType.FLOAT16)), "p")
    graph.add_output(second, "second")
    infer(graph)
    return graph, {"x": random.normal(size=(1, 3, 8, 8)).astype(np.float16)}


@pytest.mark.parametrize("spec", ["host", "host:cpu=x86-64-v2", "opencl"])
def test_models_in_half_precision(spec: str, tmp_path: Path) -> None:
    need_tvm()
    if spec == "opencl":
        need_driver()
    graph, feeds = half_net()
    answers(graph, feeds, tmp_path, spec, 2e-3)


@pytest.mark.parametrize(
    "spec",
    ["host:cpu=x86-64-v3", "host:cpu=x86-64-v4", "arm64:cpu=cortex-a53", "arm64:cpu=cortex-a76:fp16=true", "armv7"],
)
def test_models_in_half_precision_build_for_every_machine(spec: str, tmp_path: Path) -> None:
    need_tvm()
    target = table.one(spec)
    try:
        target.check_ready(run=False)
    except TargetError as error:
        pytest.skip(str(error))
    compile(half_net()[0], "clean", target=target, output=tmp_path / "a", threads=1, check=False)
    assert (tmp_path / "a" / "model.so").stat().st_size > 0


@pytest.mark.parametrize(
    ("spec", "dtype", "why"),
    [
        ("opencl:device=mali", np.float64, ": it computes with doubles, which such GPUs lack"),
        ("webgpu", np.float32, ""),
    ],
)
def test_what_a_gpu_lacks_is_refused_by_the_node(spec: str, dtype: type, why: str, tmp_path: Path) -> None:
    need_tvm()
    net = Outputs(x=np.zeros((2, 4), dtype))
    first = net.graph.add("Neg", [net.values["x"]], name="first").output
    last = net.graph.add("ArgMax", [first], {"axis": 1}, name="last").output
    net.graph.add_output(last, "y")
    infer(net.graph)
    with pytest.raises(TargetError, match=rf"node '(first|last)' cannot be compiled for {spec}{why}; replace it"):
        table.one(spec).emit(net.graph, str(tmp_path / "a.tar"))


def test_a_driver_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    need_driver()
    net = Outputs(x=np.zeros((2, 4), np.float32))
    net.add("Relu", "x")
    infer(net.graph)
    table.one("opencl").emit(net.graph, str(tmp_path / "a.tar"))
    code = f"from optc.targets import table; table.one('opencl').open({str(tmp_path / 'a.tar')!r})"
    environment = {**os.environ, "OPTC_OPENCL": "/nowhere/libOpenCL.so"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "no OpenCL driver can be opened where OPTC_OPENCL says: /nowhere/libOpenCL.so" in done.stderr


def test_what_is_known_only_when_it_runs_is_looked_at_then(tmp_path: Path) -> None:
    need_driver()
    axes = np.array([1], np.int64)
    net = Outputs(x=RANDOM.normal(size=(2, 3)).astype(np.float32), axes=axes)
    summed = net.graph.add("ReduceSum", [net.values["x"], net.values["axes"]], name="sum").output
    net.graph.add_output(summed, "y", TensorType(DType.FLOAT, (2, 1)))
    net.check(tmp_path)
    program = table.one("opencl").open(str(tmp_path / "a"))
    with pytest.raises(TargetError, match="'sum'"):
        program.run({**net.feeds, "axes": axes * 0})


def test_many_operators_in_one_kernel_make_no_name_that_is_too_long(tmp_path: Path) -> None:
    need_driver()
    net = Outputs(x=RANDOM.normal(size=(2, 4)).astype(np.float32))
    last: str | Value = "x"
    for op in ("Sigmoid", "Tanh", "Exp", "Neg") * 12:
        last = net.graph.add(op, [net.values["x"] if last == "x" else last]).output  # type: ignore[list-item]
    assert isinstance(last, Value)
    net.graph.add_output(last, "y")
    net.check(tmp_path)
    kernels = re.findall(r"(\w+)\(", (tmp_path / "a" / "kernels.cl").read_text())
    assert max(map(len, kernels)) < 128


@pytest.mark.parametrize("dtype", [DType.BFLOAT16, DType.FLOAT8E4M3FN, DType.FLOAT8E5M2])
def test_numbers_of_few_bits(dtype: DType) -> None:
    need_driver()
    from launched import answers as launched

    graph = Graph("few", opsets={"": 19})
    x = graph.add_input("x", TensorType(DType.FLOAT, (3, 8)))
    few = graph.add("Cast", [x], {"to": int(dtype)}).output
    graph.add_output(few, "few")
    graph.add_output(graph.add("Cast", [few], {"to": int(DType.FLOAT)}).output, "back")
    infer(graph)
    numbers = RANDOM.normal(size=(3, 8)).astype(np.float32)
    wanted = numbers.astype(dtype.numpy)
    got, back = launched(graph, [numbers])
    np.testing.assert_array_equal(got.view(f"u{got.itemsize}"), wanted.view(f"u{got.itemsize}"))
    np.testing.assert_array_equal(back, wanted.astype(np.float32))


def test_an_output_that_no_kernel_gives_is_named(tmp_path: Path) -> None:
    need_tvm()
    net = Outputs(x=np.zeros((1, 1, 4, 4), np.float32))
    node = net.graph.add("MaxPool", [net.values["x"]], {"kernel_shape": [2, 2]}, outputs=["most", "where"], name="p")
    net.graph.add_output(node.outputs[1], "where")
    infer(net.graph)
    with pytest.raises(TargetError, match="MaxPool node 'p' cannot be compiled: no kernel gives 'where'"):
        table.one("opencl").emit(net.graph, str(tmp_path / "a.tar"))


def test_remainders_of_floats() -> None:
    need_driver()
    from launched import answers as launched

    x = RANDOM.normal(size=(3, 5)).astype(np.float32)
    net = Outputs(x=x)
    net.add("Mod", "x", net.constant(-0.3))
    infer(net.graph)
    np.testing.assert_allclose(launched(net.graph, [x])[0], np.mod(x, np.float32(-0.3)), atol=1e-6)


def test_maxima_of_regions_are_refused(tmp_path: Path) -> None:
    need_tvm()
    net = Outputs(x=np.zeros((1, 1, 4, 4), np.float32), rois=np.zeros((1, 4), np.float32))
    at = net.constant([0], np.int64)
    node = net.graph.add("RoiAlign", [net.values["x"], net.values["rois"], at], {"mode": "max"}, name="r")
    net.graph.add_output(node.output, "y")
    infer(net.graph)
    with pytest.raises(TargetError, match=r"RoiAlign node 'r' cannot be compiled: .* take means, not maxima"):
        table.one("opencl").emit(net.graph, str(tmp_path / "a.tar"))
