"""What libraries hold besides weights and kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from optc.targets import table
from optc.targets.tvm.artifact import folder as artifact
from optc.targets.tvm.artifact.constants import Constants

from .test_codes import CodedNet, built
from .test_library import Net, need


def test_constants_of_few_kinds_are_codes() -> None:
    random = np.random.default_rng(0)
    constants = Constants()
    few = random.choice(random.normal(size=200).astype(np.float32), size=(40, 60))
    many = random.normal(size=2400).astype(np.float32)
    assert constants.place(few, coded=True)[0] == "tables"
    assert constants.place(few.copy(), coded=True) == constants.place(few, coded=True)
    assert constants.place(many, coded=True)[0] == "weights"
    assert constants.place(few[:4], coded=True)[0] == "weights"
    assert constants.place(few + 1, coded=False)[0] == "weights"
    (one,) = constants.tables
    codes = np.frombuffer(constants.stored, np.uint8, one.count, one.codes)
    words = np.frombuffer(constants.stored, np.float32, codes.max() + 1, one.words)
    assert np.array_equal(words[codes], few.ravel())
    assert constants.spread >= few.nbytes


@pytest.mark.parametrize("spec", ["host", "arm64", "armv7"])
def test_constants_are_spread_out_when_a_model_is_opened(spec: str, tmp_path: Path) -> None:
    need(spec)
    net = Net()
    x = net.input("x", "N", 64, 128)
    grid = np.tile(np.arange(128, dtype=np.float32) / 7, (64, 1))
    y = net.add("Add", net.add("Mul", x, net.graph.constant(grid)), net.graph.constant(grid.T.copy().reshape(64, 128)))
    built(net.done(y), spec, tmp_path / "a.tar")
    artifact.unpack(str(tmp_path / "a.tar"), str(tmp_path))
    assert (tmp_path / "model.so").stat().st_size < 2 * grid.nbytes
    data = np.random.default_rng(0).normal(size=(2, 64, 128)).astype(np.float32)
    (answer,) = table.parse(spec)[0].open(str(tmp_path / "a.tar"), threads=1).run({"x": data})
    want = data * grid + grid.T.reshape(64, 128)
    assert np.allclose(answer, want, rtol=1e-5, atol=1e-6)


def test_a_layer_more_of_a_quantized_model_costs_little_besides_its_weights(tmp_path: Path) -> None:
    """Layers alike share a kernel; what calls it again are a few numbers, not code."""
    need("arm64")
    sizes = []
    for layers in (2, 12):
        net = CodedNet(np.int8)
        x = net.rounded(net.input("x", "N", 16, 12, 20))
        for _ in range(layers):
            x = net.conv(x, 16, 1, 3, 3, group=16, pads=[1, 1, 1, 1])
        built(net.done(x), "arm64:dotprod=true", tmp_path / "a.tar")
        artifact.unpack(str(tmp_path / "a.tar"), str(tmp_path))
        sizes.append((tmp_path / "model.so").stat().st_size)
    weights, page = 192 + 2 * 64, 512  # what the loader sets begins at a page, whatever stands before it
    assert (sizes[1] - sizes[0] - page) / 10 < weights + 180
