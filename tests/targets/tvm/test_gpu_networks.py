"""Whole networks on an OpenCL device, in single and half precision and with codes, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from opencl import need_driver
from quantized import quantized

from optc.compiler.fixed_sizes import fix_shapes
from optc.compiler.model import read
from optc.ir.graph import Graph
from optc.ir.onnx.opset import lower
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.runtime.session import Session
from optc.targets.onnx import newest_loadable

Array = npt.NDArray[np.generic]

TRAINED = {
    "digits_dscnn": ("floats", "halves", "codes"),
    "digits_efficientnet": ("floats", "halves"),
    "digits_mobilenet_v3": ("floats", "codes"),
    "digits_resnet": ("floats", "codes"),
    "digits_transformer": ("floats", "halves", "codes"),
}
"""What each network is built in; of two that have the same operators, one in halves and the other with codes."""
FLOAT_DB, HALF_DB, CODES_DB = 80.0, 45.0, 25.0
"""What roundings leave of a signal: of floats, of one half a tensor, and of codes, where some fall the other way."""


def halved(graph: Graph) -> Graph:
    """The network with all numbers in half precision."""
    for value in list(graph.constants):
        if value.constant is not None and value.dtype is DType.FLOAT:
            value.replace_uses(graph.constant(value.constant.numpy().astype(np.float16), value.name))
    for value in graph.inputs:
        if isinstance(value.type, TensorType) and value.dtype is DType.FLOAT:
            value.type = TensorType(DType.FLOAT16, value.type.shape)
    for node in graph.walk():
        for value in node.outputs:
            value.type = None
    for output in graph.outputs:
        output.type = None
    graph.sweep()
    infer(graph, fresh=True)
    return graph


def sqnr(graph: Graph, feeds: dict[str, Array]) -> float:
    """The worst signal-to-noise ratio of an output on the device, in decibels."""
    from launched import answers

    wanted = Session(graph.clone(), threads=1, optimise=False).run(feeds)
    ratios = []
    for got, want in zip(answers(graph, [feeds[v.name] for v in graph.inputs]), wanted, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        a, b = got.astype(np.float64), want.astype(np.float64)
        assert np.isfinite(a).all()
        ratios.append(10 * np.log10(max(float(np.sum(b**2)), 1e-30) / max(float(np.sum((a - b) ** 2)), 1e-30)))
    return min(ratios)


def loaded(model: str, **sizes: list[int]) -> Graph:
    graph = read(model)
    lower(graph, *newest_loadable())
    fix_shapes(graph, sizes)
    infer(graph)
    return graph


@pytest.mark.parametrize("name", TRAINED)
def test_networks_of_the_zoo(name: str) -> None:
    need_driver()
    graph = loaded(f"zoo:{name}", input=[1, 1, 16, 16])
    x = np.random.default_rng(0).normal(size=(8, 1, 16, 16)).astype(np.float32)
    assert sqnr(graph.clone(), {"input": x[:1]}) > FLOAT_DB
    if "halves" in TRAINED[name]:
        assert sqnr(halved(graph.clone()), {"input": x[:1].astype(np.float16)}) > HALF_DB
    if "codes" in TRAINED[name]:
        quantized(graph, {"input": x})
        assert sqnr(graph, {"input": x[:1]}) > CODES_DB


@pytest.mark.parametrize("name", ["cifar_resnet20", "kws_dscnn", "silero_vad16k"])
def test_real_networks(name: str, kit: Path) -> None:
    need_driver()
    shown = read(str(kit / "models" / f"{name}.onnx"))
    sizes = {v.name: [one if isinstance(one, int) else 1 for one in v.shape or ()] for v in shown.inputs}
    graph = loaded(str(kit / "models" / f"{name}.onnx"), **sizes)
    random = np.random.default_rng(0)
    feeds = {name: random.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    assert sqnr(graph.clone(), feeds) > FLOAT_DB
    assert sqnr(halved(graph), {key: feed.astype(np.float16) for key, feed in feeds.items()}) > HALF_DB
