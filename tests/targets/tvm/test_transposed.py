"""Transposed convolutions as convolutions, one for all phases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import interpreted
import launched
import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import Dim, DType, TensorType
from optc.runtime.session import Session
from optc.targets.tvm.cpu.machines import host
from optc.targets.tvm.relax.module import workloads

if TYPE_CHECKING:
    Attributes = dict[str, int | str | Sequence[int]]

RNG = np.random.default_rng(0)
FORMS: list[Attributes] = [
    {"strides": [2, 2]},
    {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    {"strides": [2, 3], "pads": [0, 1, 1, 0]},
    {"strides": [1, 1], "pads": [2, 0, 0, 2]},
    {"strides": [3, 2], "auto_pad": "SAME_UPPER"},
    {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {"strides": [2, 2], "output_shape": [9, 11]},
    {"strides": [4, 4], "auto_pad": "VALID"},
]
"""What a kernel of 3 x 4 may be asked for."""


def network(attributes: Attributes, *, batch: Dim = 2, channels: int = 16, filters: int = 5) -> Graph:
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (batch, channels, 5, 6)))
    kernel = graph.constant(RNG.standard_normal((channels, filters, 3, 4)).astype(np.float32))
    groups = attributes.get("group", 1)
    assert isinstance(groups, int)
    bias = graph.constant(RNG.standard_normal(filters * groups).astype(np.float32))
    layer = graph.add("ConvTranspose", [x, kernel, bias], attributes)
    graph.add_output(graph.add("Relu", [layer.output]).output, "y")
    infer(graph)
    return graph


def right(graph: Graph, x: np.ndarray) -> np.ndarray:
    return Session(graph).run({"x": x})[0]


@pytest.mark.parametrize("attributes", FORMS)
@pytest.mark.parametrize(("channels", "filters"), [(16, 5), (3, 16)])
def test_every_form_answers_as_its_graph(channels: int, filters: int, attributes: Attributes) -> None:
    graph = network(attributes, channels=channels, filters=filters)
    x = RNG.standard_normal((2, channels, 5, 6)).astype(np.float32)
    wanted, machine = right(graph, x), host("x86-64-v3")
    assert any(one.kernel in ("conv", "winograd") for one in workloads(graph.clone(), machine))
    (answer,) = interpreted.run(interpreted.build(graph, machine), [x])
    assert answer.shape == wanted.shape
    np.testing.assert_allclose(answer, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("attributes", [{"dilations": [2, 1]}, {"group": 4}])
def test_what_would_be_mostly_zeros_is_left_to_tvm(attributes: Attributes) -> None:
    graph = network({"strides": [2, 2], **attributes})
    x = RNG.standard_normal((2, 16, 5, 6)).astype(np.float32)
    (answer,) = interpreted.run(interpreted.build(graph, host("x86-64-v3")), [x])
    np.testing.assert_allclose(answer, right(graph, x), rtol=0, atol=2e-5)


def test_the_number_of_images_may_be_open() -> None:
    graph = network(FORMS[1], batch="N")
    program = interpreted.build(graph, host("x86-64-v3"))
    for n in (1, 3):
        x = RNG.standard_normal((n, 16, 5, 6)).astype(np.float32)
        np.testing.assert_allclose(interpreted.run(program, [x])[0], right(graph, x), rtol=0, atol=2e-5)


@pytest.mark.parametrize("attributes", FORMS[:3])
def test_it_runs_on_opencl(attributes: Attributes) -> None:
    graph = network(attributes)
    x = RNG.standard_normal((2, 16, 5, 6)).astype(np.float32)
    launched.Device.here()
    np.testing.assert_allclose(launched.answers(graph, [x])[0], right(graph, x), rtol=0, atol=2e-5)
