"""Images as their own codes."""

from __future__ import annotations

import numpy as np
import pytest
from quantized import quantized

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.quant.equivalent.uint8_inputs import encode_inputs, find_lattice
from optc.passes.quant.layers import find_layers
from optc.runtime.samples import Samples
from optc.runtime.session import Session
from optc.runtime.sources import load_samples

MEAN, STD = np.asarray([0.485, 0.456, 0.406]), np.asarray([0.229, 0.224, 0.225])
COLOURS = (MEAN, STD)
HALVES = (np.full(3, 127.5 / 255), np.full(3, 127.5 / 255))


def images(norm: tuple[np.ndarray, np.ndarray], count: int = 32) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, size=(count, 3, 8, 8))
    mean, std = (n[:, None, None] for n in norm)
    return ((pixels / np.float32(255) - mean) / std).astype(np.float32)


def network(pads: int) -> Graph:
    rng = np.random.default_rng(0)
    graph = Graph("first", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 8, 8)))
    parts = [x, graph.constant(rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "w")]
    y = graph.add("Conv", parts, {"pads": [pads] * 4}, name="conv").output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("N", 4, 6 + 2 * pads, 6 + 2 * pads)))
    infer(graph)
    return graph


def test_lattices_are_found_and_other_numbers_are_not() -> None:
    steps = find_lattice(lambda: [images(COLOURS)])
    assert steps is not None
    assert steps.step == pytest.approx(1 / 255 / STD, rel=1e-5)
    assert steps.zero == pytest.approx(255 * MEAN, abs=0.01)
    assert not steps.uniform
    even = find_lattice(lambda: [images(HALVES)])
    assert even is not None
    assert even.uniform
    normal = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    for x in (normal, np.zeros((8, 3, 8, 8), np.float32), np.rint(normal[:, :1] * 999)):
        assert find_lattice(lambda x=x: [x]) is None  # type: ignore[misc]


def test_images_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found is that of all at once, and a last image off the lattice is noticed."""
    x = images(COLOURS, 64)
    whole, parts = find_lattice(lambda: [x]), find_lattice(lambda: np.split(x, 16))
    assert whole is not None
    assert parts is not None
    np.testing.assert_array_equal([parts.step, parts.zero], [whole.step, whole.zero])
    graph = network(0)
    samples = load_samples({"x": x}, graph)
    seen = []
    batches = Samples.batches
    monkeypatch.setattr(Samples, "batches", lambda self, size: seen.append(size) or batches(self, size))
    assert encode_inputs(graph, find_layers(graph)[0], samples, DType.UINT8)
    assert max(seen) <= 8
    x[-1, 0, 0, 0] += np.float32(0.3 / 255)
    assert find_lattice(lambda: np.split(x, 16)) is None


@pytest.mark.parametrize("norm", [COLOURS, HALVES])
@pytest.mark.parametrize("pads", [0, 1])
def test_the_rewritten_input_is_encoded_without_error(norm: tuple[np.ndarray, np.ndarray], pads: int) -> None:
    graph = network(pads)
    x = images(norm)
    want = Session(graph, threads=1).run({"x": x})[0]
    samples = load_samples({"x": x}, graph)
    ((value, grid),) = encode_inputs(graph, find_layers(graph)[0], samples, DType.UINT8).items()
    levels, got = Session(graph, outputs=[value, graph.outputs[0].value], threads=1).run({"x": x})
    inside = np.s_[..., 1:-1, 1:-1] if norm is HALVES and pads else np.s_[...]  # a half step of padding
    assert got[inside] == pytest.approx(want[inside], abs=1e-3)
    pixels = np.s_[..., 1:-1, 1:-1] if norm is COLOURS and pads else np.s_[...]  # padding is 0, which is no byte
    assert grid.dequantize(grid.quantize(levels))[pixels] == pytest.approx(levels[pixels], abs=0.03 * float(grid.scale))


def test_numbers_off_the_lattice_are_left() -> None:
    graph = network(1)
    samples = load_samples({"x": np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)}, graph)
    assert not encode_inputs(graph, find_layers(graph)[0], samples, DType.UINT8)
    assert len(graph) == 1


def test_an_input_that_something_else_reads_is_left() -> None:
    graph = network(1)
    x = graph.inputs[0]
    graph.add_output(graph.add("Exp", [x]).output, "e", TensorType(DType.FLOAT, ("N", 3, 8, 8)))
    assert not encode_inputs(graph, find_layers(graph)[0], load_samples({"x": images(COLOURS)}, graph), DType.UINT8)


def test_the_whole_pass_takes_images_as_codes() -> None:
    graph = network(1)
    teacher = graph.clone()
    x = images(COLOURS)
    quantized(graph, {"x": x}, saturating_int8=False)
    want = Session(teacher, threads=1).run({"x": x})[0]
    answers = Session(graph, threads=1, optimise=False).run({"x": x})[0]
    # Rounding the answer itself to 8 bits costs about 40 dB.
    assert 10 * np.log10((want**2).sum() / ((want - answers) ** 2).sum()) > 37
