"""Convolutions by minimal filtering: the answers, which convolutions they are, and how they share their work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_proto
from optc.ir.types import DType, TensorType
from optc.runtime import cpu
from optc.runtime.session import Session
from optc.targets import table
from optc.targets.tvm.compute.winograd import F2, F4, WinogradScheme
from optc.targets.tvm.cpu.machine import Machine
from optc.targets.tvm.cpu.machines import arm64

from .test_library import Net, need

WIDE = Machine("wide", "x86_64-linux-gnu", lanes=16, registers=32, block=16, filtering=True)


def network(size: tuple[int, int], channels: tuple[int, int], pads: list[int]) -> Graph:
    """A convolution that makes blocks of channels, and two of 3 x 3 behind it, one of them into a sum."""
    net = Net()
    x = net.input("x", "N", 3, *size)
    first = net.add("Conv", x, net.constant(channels[0], 3, 1, 1))
    second = net.add(
        "Relu",
        net.add("Conv", first, net.constant(channels[1], channels[0], 3, 3), net.constant(channels[1]), pads=pads),
    )
    third = net.add("Conv", second, net.constant(channels[1], channels[1], 3, 3), pads=[1, 1, 1, 1])
    return net.done(net.add("Clip", net.add("Add", third, second), net.graph.constant(np.float32(-0.5))))


def filtered(graph: Graph, machine: Machine) -> list[str]:
    """The kernels of the 3 x 3 convolutions."""
    from optc.ir.shapes.infer import infer
    from optc.targets.tvm.relax.module import workloads

    infer(graph)
    works = workloads(graph, machine)
    return [work.kernel for work, count in works.items() for _ in range(count) if work.weights[2:] == (3, 3)]


@pytest.mark.parametrize("scheme", [F2, F4])
def test_products_of_transforms_are_the_filter(scheme: WinogradScheme) -> None:
    """Of whole numbers, so that all is exact but the thirds and fifteenths in the weights."""
    random = np.random.default_rng(0)
    d = random.integers(-9, 9, (scheme.size, scheme.size)).astype(np.float64)
    g = random.integers(-9, 9, (3, 3)).astype(np.float64)
    kernel, read, written = np.asarray(scheme.weights), scheme.inputs.matrix, scheme.outputs.matrix
    got = written @ ((kernel @ g @ kernel.T) * (read @ d @ read.T)) @ written.T
    want = [[np.sum(d[i : i + 3, j : j + 3] * g) for j in range(scheme.out)] for i in range(scheme.out)]
    assert got == pytest.approx(np.asarray(want), abs=1e-10)


@pytest.mark.parametrize("spec", ["host", "host:cpu=x86-64-v3"])
@pytest.mark.parametrize(
    ("size", "channels", "pads"),
    [((58, 61), (32, 64), [1, 1, 1, 1]), ((64, 64), (32, 40), [1, 0, 0, 3])],
)
def test_large_images_are_filtered_by_larger_tiles(
    spec: str, size: tuple[int, int], channels: tuple[int, int], pads: list[int], tmp_path: Path
) -> None:
    """Their errors, against double precision, are a few of those that sums have."""
    need("host")
    if not cpu.is_x86():
        pytest.skip("no x86 CPU is here")
    graph = network(size, channels, pads)
    assert "winograd4" in filtered(graph.clone(), table.parse(spec)[0].machine())
    table.parse(spec)[0].emit(graph, str(tmp_path / "a.tar"))
    feeds = {"x": np.random.default_rng(1).normal(size=(2, 3, *size)).astype(np.float32)}
    (want,) = ReferenceEvaluator(to_proto(doubled(graph))).run(None, {"x": feeds["x"].astype(np.float64)})
    (got,) = table.parse(spec)[0].open(str(tmp_path / "a.tar"), threads=1).run(feeds)
    (shared,) = table.parse(spec)[0].open(str(tmp_path / "a.tar"), threads=2).run(feeds)
    assert np.array_equal(got, shared)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
    assert np.sqrt(np.mean((got - want) ** 2)) <= 2e-6 * np.sqrt(np.mean(want**2))


def doubled(graph: Graph) -> Graph:
    """The same in double precision."""
    wide = Graph("wide", opsets=graph.opsets)
    values = {one: wide.add_input(one.name, TensorType(DType.DOUBLE, one.shape)) for one in graph.inputs}
    for node in graph:
        inputs = [
            None if one is None
            else values[one] if one.constant is None
            else wide.constant(one.constant.numpy().astype(np.float64))
            for one in node.inputs
        ]  # fmt: skip
        values[node.output] = wide.add(node.op, inputs, dict(node.attributes)).output
    for output in graph.outputs:
        wide.add_output(values[output.value], output.name, TensorType(DType.DOUBLE, output.value.shape))
    return wide


@pytest.mark.parametrize("spec", ["host", "host:cpu=x86-64-v3"])
@pytest.mark.parametrize(
    ("size", "channels", "pads"),
    [
        ((13, 13), (32, 48), [1, 1, 1, 1]),
        ((16, 10), (16, 64), [0, 0, 0, 0]),
        ((9, 31), (48, 24), [2, 0, 1, 3]),
        ((8, 8), (64, 64), [1, 1, 1, 1]),
        ((7, 22), (32, 40), [0, 1, 2, 0]),
    ],
)
def test_answers_are_those_of_the_sums(
    spec: str, size: tuple[int, int], channels: tuple[int, int], pads: list[int], tmp_path: Path
) -> None:
    need("host")
    if not cpu.is_x86():
        pytest.skip("no x86 CPU is here")
    graph = network(size, channels, pads)
    assert "winograd" in filtered(graph.clone(), table.parse(spec)[0].machine())
    table.parse(spec)[0].emit(graph, str(tmp_path / "a.tar"))
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 3, *size)).astype(np.float32)}
    (want,) = Session(graph, threads=1, optimise=False).run(feeds)
    (got,) = table.parse(spec)[0].open(str(tmp_path / "a.tar"), threads=1).run(feeds)
    (shared,) = table.parse(spec)[0].open(str(tmp_path / "a.tar"), threads=2).run(feeds)
    assert np.array_equal(got, shared)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 4e-6 * np.abs(want).max()


def test_larger_tiles_only_where_they_save_much() -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    assert filtered(network((56, 56), (64, 64), [1, 1, 1, 1]), WIDE) == ["winograd4", "winograd4"]
    # It would take longer to compile than it saves in thousands of runs.
    assert filtered(network((16, 16), (32, 32), [1, 1, 1, 1]), WIDE) == ["winograd", "winograd"]
    # Weights beyond a near cache, and tiles that stand over the border.
    assert filtered(network((28, 28), (128, 128), [1, 1, 1, 1]), WIDE) == ["winograd", "winograd"]
    assert filtered(network((13, 13), (64, 64), [1, 1, 1, 1]), WIDE) == ["winograd", "winograd"]


def test_only_where_less_work_is_less_time() -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    big = network((32, 32), (64, 64), [1, 1, 1, 1])
    assert filtered(big.clone(), WIDE) == ["winograd4", "winograd4"]
    assert filtered(big, arm64()) == ["conv", "conv"]
    assert filtered(network((2, 2), (64, 64), [1, 1, 1, 1]), WIDE) == ["conv", "conv"]
    # Weights that are read again for each strip would come from memory.
    assert filtered(network((7, 7), (512, 512), [1, 1, 1, 1]), WIDE) == ["conv", "conv"]
    net = Net()
    x = net.add("Conv", net.input("x", 1, 3, 32, 32), net.constant(64, 3, 1, 1))
    y = net.add("Conv", x, net.constant(64, 64, 3, 3), strides=[2, 2])
    y = net.add("Conv", y, net.constant(64, 64, 3, 3), dilations=[2, 2])
    assert filtered(net.done(net.add("Conv", y, net.constant(64, 32, 3, 3), group=2)), WIDE) == ["conv"] * 3
