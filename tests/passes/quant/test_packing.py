"""Codes stored in fewer bits than kernels read: exact, smaller, and nothing of it left when the model is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from quantized import quantized, runtime_ops

from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.quant import Quant
from optc.passes.quant.qdq.packing import LEAST, pack_words, store_codes
from optc.runtime.session import Session

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(40, 256), (3, 5, 7, 101), (7, 9)])
def test_stored_codes_come_back(bits: int, shape: tuple[int, ...]) -> None:
    codes = RANDOM.integers(-(1 << (bits - 1)), 1 << (bits - 1), size=shape).astype(np.int8)
    graph = Graph("codes", opsets={"": 21})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1,)))
    last = graph.add("Identity", [x])
    graph.add_output(last.output, "y", TensorType(DType.FLOAT, (1,)))
    value = store_codes(graph, codes, "w", bits=bits, before=last)
    wide = graph.add("Cast", [value], {"to": int(DType.FLOAT)}, after=last).output
    graph.add_output(wide, "codes", TensorType(DType.FLOAT, shape))
    for optimise in (False, True):
        answers = Session(graph, threads=1, optimise=optimise).run({"x": np.zeros(1, np.float32)})[1]
        np.testing.assert_array_equal(answers, codes)
    stored = sum(v.constant.nbytes for v in graph.constants if v.constant is not None and v.name == "w")
    packed = bits if codes.size >= LEAST else max(bits, 4)
    assert stored <= codes.size * packed / 8 + 3


def test_words_are_laid_out_from_the_lowest_bit() -> None:
    assert pack_words(np.asarray([-2, 1, -2, -2, -2, -2, -2, 1], np.int8), 2).tolist() == [[0b00001100, 0b11000000]]
    assert pack_words(np.asarray([3], np.int8), 3).tolist() == [[7, 0, 0]]


def network() -> Graph:
    """A convolution large enough to be packed, and one that is not."""
    graph = Graph("network", opsets={"": 21})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 32, 6, 6)))
    for i, (outputs, size) in enumerate([(48, 3), (8, 1)]):
        weight = RANDOM.normal(size=(outputs, x.shape[1], size, size)).astype(np.float32)  # type: ignore[index]
        x = graph.add("Conv", [x, graph.constant(weight / 16, f"w{i}")], {"pads": [size // 2] * 4}, name=f"c{i}").output
        x.type = TensorType(DType.FLOAT, ("N", outputs, 6, 6))
    graph.add_output(x, "y", TensorType(DType.FLOAT, ("N", 8, 6, 6)))
    infer(graph)
    return graph


def test_three_bits_take_three_bits_and_run_in_integer_kernels(tmp_path: Path) -> None:
    feeds = {"x": RANDOM.normal(size=(24, 32, 6, 6)).astype(np.float32)}
    sizes = {}
    for weights in ("int4", "int3", "int2"):
        graph = network()
        quantized(graph, feeds, Quant(weights=weights, slower="int8"))  # type: ignore[arg-type]
        sizes[weights] = len(to_bytes(graph))
        ops = runtime_ops(graph, tmp_path)
        assert ops["QLinearConv"] == 2
        assert not {"Div", "Mod", "Cast", "MatMul", "Reshape", "Gather", "Conv"} & set(ops)
    count = 48 * 32 * 9
    assert sizes["int4"] - sizes["int3"] > count / 8 - 1000
    assert sizes["int3"] - sizes["int2"] > count / 8 - 300
