"""Half precision on ARM: which parts of a model compute in it, how well they answer, and that it is what they run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from quantized import layers_on_codes

from optc.ir.graph import Graph, Value
from optc.ir.types import DType
from optc.ir.verify.verify import verify
from optc.passes.base import Context
from optc.passes.runner import run
from optc.runtime.session import Session
from optc.targets import table
from optc.targets.tvm.artifact import folder as artifact
from optc.targets.tvm.legal.half import Half, rounded

from .test_codes import CodedNet, innermost_loops
from .test_codes import picture_net as quantized
from .test_library import Net, images, need, picture, tokens

SPEC = "arm64:fp16=true"


def legal(graph: Graph, spec: str = SPEC) -> Graph:
    target = table.parse(spec)[0]
    copy = graph.clone()
    run(target.legalisation(), copy, Context(target.facts))
    return copy


def built(graph: Graph, path: Path, spec: str = SPEC) -> Path:
    table.parse(spec)[0].emit(legal(graph, spec), str(path))
    return path


def noise_db(graph: Graph, path: Path, feeds: dict[str, np.ndarray]) -> list[float]:
    """How far below each output of the float model what is wrong with it lies."""
    answers = table.parse(SPEC)[0].open(str(built(graph, path)), threads=2).run(feeds)
    wanted = Session(graph, threads=1, optimise=False).run(feeds)
    assert [(one.shape, one.dtype) for one in answers] == [(one.shape, one.dtype) for one in wanted]
    return [
        float(10 * np.log10(np.sum(want**2) / np.sum((got - want) ** 2)))
        for got, want in zip(answers, wanted, strict=True)
    ]


def halves(graph: Graph) -> list[str]:
    return [node.op for node in graph if node.op != "Cast" and node.output.dtype is DType.FLOAT16]


def test_images_are_computed_in_half_precision(tmp_path: Path) -> None:
    need("arm64")
    assert halves(legal(images())).count("Conv") == 5
    assert min(noise_db(images(), tmp_path / "a.tar", picture(2))) > 50


def test_sequences_are_computed_in_half_precision(tmp_path: Path) -> None:
    need("arm64")
    assert halves(legal(tokens())).count("MatMul") == 6
    ids = np.random.default_rng(0).integers(0, 50, size=(2, 19))
    assert min(noise_db(tokens(), tmp_path / "a.tar", {"ids": ids})) > 50


@pytest.mark.parametrize(("ci", "size"), [(16, 3), (256, 1)])
def test_the_hot_loop_multiplies_eight_halves_at_once(ci: int, size: int, tmp_path: Path) -> None:
    """Of one run of sums, and of several."""
    need("arm64")
    if shutil.which("aarch64-linux-gnu-objdump") is None:
        pytest.skip("aarch64-linux-gnu-objdump is not here: apt-get install binutils-aarch64-linux-gnu")
    net = Net()
    x = net.input("x", 1, ci, 9, 9)
    graph = net.done(net.add("Conv", net.add("Conv", x, net.constant(ci, ci, 1, 1)), net.constant(32, ci, size, size)))
    artifact.unpack(str(built(graph, tmp_path / "a.tar")), str(tmp_path))
    command = ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", str(tmp_path / "model.so")]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    named = re.sub(r"\tfmla\t(v\d+\.8h)", r"\tfmla.8h\t\1", listing)
    hot = max(innermost_loops(named), key=lambda loop: loop["fmla.8h"])
    assert hot["fmla.8h"] >= 16
    assert hot["fmla.8h"] > 0.4 * hot.total()
    assert "\tfmla\t" not in named


@pytest.mark.parametrize("deep", [8, 37, 96, 1280])
def test_every_kernel_of_halves_is_cut(deep: int) -> None:
    """Those with one run of sums and with several, of whole and of ragged tiles."""
    need("arm64")
    from optc.targets.tvm.relax.module import workloads
    from optc.targets.tvm.tuning.kernel import alone

    net = Net()
    x, y = net.input("x", 1, 8 * deep, 7, 9), net.input("y", 5, deep)
    square = net.input("z", 2, 5, deep), net.input("u", 2, deep, 13)
    layer = net.add("Conv", x, net.constant(24, 8 * deep, 1, 1))
    graph = net.done(layer, net.add("MatMul", y, net.constant(deep, 40)), net.add("MatMul", *square))
    machine = table.parse(SPEC)[0].machine()  # type: ignore[attr-defined]
    works = workloads(legal(graph), machine)
    assert [work.dtype for work in works] == ["float16"] * 3
    for work in works:
        kernel = alone(work, work.default(machine), machine)
        assert kernel is not None


def test_weights_take_half_the_bytes(tmp_path: Path) -> None:
    need("arm64")
    net = Net()
    graph = net.done(net.add("MatMul", net.input("x", "N", 512), net.constant(512, 512)))
    whole, half = (built(graph, tmp_path / f"{spec}.tar", spec).stat().st_size for spec in ("arm64", SPEC))
    assert 0.95 * 2**19 < whole - half < 1.05 * 2**19


def test_what_halves_cannot_carry_stays_float() -> None:
    net = Net()
    x, mask = net.input("x", "N", 4, 16), net.input("mask", "N", 1, 16)
    scores = net.add("MatMul", net.add("MatMul", x, net.constant(16, 16)), net.constant(16, 16))
    hidden = net.add("Mul", mask, net.graph.constant(np.float32(-1e9)))
    weights = net.add("Softmax", net.add("Add", scores, hidden), axis=-1)
    mixed = net.add("MatMul", weights, net.constant(16, 16))
    squares = net.add("MatMul", net.add("Mul", mixed, mixed), net.constant(16, 16))
    shifted = net.add("Add", mixed, net.graph.constant(np.float32(1e-9)))
    huge = net.add("MatMul", shifted, net.graph.constant(np.full((16, 2), 1e5, np.float32)))
    bound = [net.graph.constant(np.float32(one)) for one in (0, 1e9)]
    clipped = net.add("MatMul", net.add("Clip", mixed, *bound), net.constant(16, 3))
    lowered = legal(net.done(squares, huge, clipped))
    verify(lowered)
    assert halves(lowered) == ["MatMul", "MatMul", "MatMul", "MatMul", "Clip", "MatMul"]
    clip = next(node for node in lowered if node.op == "Clip")
    assert [float(v.constant.numpy()) for v in clip.inputs[1:]] == [0, 65504]  # type: ignore[union-attr]
    assert [output.value.dtype for output in lowered.outputs] == [DType.FLOAT] * 3
    assert Half().run(lowered, Context(table.parse(SPEC)[0].facts)).rewrites == {}


def test_a_mask_of_large_numbers_makes_no_nan(tmp_path: Path) -> None:
    need("arm64")
    net = Net()
    x, mask = net.input("x", 2, 8, 16), net.input("mask", 2, 1, 8)
    keys = net.add("Transpose", net.add("MatMul", x, net.constant(16, 16)), perm=[0, 2, 1])
    scores = net.add("MatMul", net.add("MatMul", x, net.constant(16, 16)), keys)
    hidden = net.add("Mul", mask, net.graph.constant(np.float32(np.finfo(np.float32).min)))
    weights = net.add("Softmax", net.add("Add", scores, hidden), axis=-1)
    random = np.random.default_rng(0)
    feeds = {"x": random.normal(size=(2, 8, 16)), "mask": np.array([[[0] * 5 + [1] * 3], [[1] * 8]])}
    graph = net.done(net.add("MatMul", weights, x))
    assert min(noise_db(graph, tmp_path / "a.tar", {k: v.astype(np.float32) for k, v in feeds.items()})) > 50


def test_layers_on_codes_keep_to_integers(tmp_path: Path) -> None:
    need("arm64")
    graph = quantized(np.int8)
    spec = f"{SPEC}:dotprod=true"
    assert len(layers_on_codes(legal(graph, spec))) == len(layers_on_codes(graph)) == 8
    net = CodedNet(np.int8)
    x: Value = net.add("Conv", net.input("x", 1, 16, 9, 9), net.constant(16, 16, 3, 3))
    mixed = legal(net.done(net.add("Relu", net.conv(net.rounded(x), 16, 16, 1, 1))), spec)
    assert len(layers_on_codes(mixed)) == 1
    assert halves(mixed) == ["Conv"]


def test_rounded_kernels_keep_their_sums() -> None:
    weights = np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32) * 30
    wanted = weights.sum((2, 3))
    plain, kept = (
        np.abs(kernel.astype(np.float32).sum((2, 3)) - wanted).mean()
        for kernel in (weights.astype(np.float16), rounded(weights))
    )
    assert kept < plain / 10
    assert np.abs(rounded(weights) - weights).max() < 0.07
