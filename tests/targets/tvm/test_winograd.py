"""Convolutions by minimal filtering: the answers, which convolutions they are, and how they share their work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.runtime import cpu
from optc.runtime.session import Session
from optc.targets import table
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


def test_only_where_less_work_is_less_time() -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    big = network((32, 32), (64, 64), [1, 1, 1, 1])
    assert filtered(big.clone(), WIDE) == ["winograd", "winograd"]
    assert filtered(big, arm64()) == ["conv", "conv"]
    assert filtered(network((2, 2), (64, 64), [1, 1, 1, 1]), WIDE) == ["conv", "conv"]
    # Weights that are read again for each strip would come from memory.
    assert filtered(network((7, 7), (512, 512), [1, 1, 1, 1]), WIDE) == ["conv", "conv"]
    net = Net()
    x = net.add("Conv", net.input("x", 1, 3, 32, 32), net.constant(64, 3, 1, 1))
    y = net.add("Conv", x, net.constant(64, 64, 3, 3), strides=[2, 2])
    y = net.add("Conv", y, net.constant(64, 64, 3, 3), dilations=[2, 2])
    assert filtered(net.done(net.add("Conv", y, net.constant(64, 32, 3, 3), group=2)), WIDE) == ["conv"] * 3
