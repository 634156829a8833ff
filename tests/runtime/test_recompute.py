"""Segments computed twice: the same gradients, from less memory; a sample too large for a step fits then."""

from __future__ import annotations

import numpy as np
import pytest

from optc.errors import DataError
from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.models import zoo
from optc.runtime.training import losses
from optc.runtime.training.backward import Backward
from optc.runtime.training.parameters import Parameters
from optc.runtime.training.peak import Peak
from optc.runtime.training.recompute import recompute, segments
from optc.runtime.training.trainer import Trainer

DEPTH, CHANNELS, SIDE = 25, 8, 128


class Task:
    """A network with a loss, and what both read."""

    def __init__(self, graph: Graph, samples: int = 1) -> None:
        self.graph = graph
        infer(graph)
        answer, image = graph.outputs[0].value, graph.inputs[0]
        teacher = graph.add_input("teacher", TensorType(DType.FLOAT, answer.shape))
        self.loss = losses.squared_error(graph, answer, teacher)
        infer(graph)
        self.weights = [v for v in graph.constants if v.dtype is DType.FLOAT and len(v.static_shape or ()) > 1]
        random = np.random.default_rng(3)
        self.feeds = {}
        for value in (image, teacher):
            assert value.shape is not None
            sizes = [size if isinstance(size, int) else samples for size in value.shape]
            self.feeds[value.name] = random.standard_normal(sizes).astype(np.float32)

    def gradient(self, *, frugal: bool) -> tuple[np.ndarray, int]:
        """The gradient of a batch, and the bytes that it took."""
        parameters = Parameters(self.weights)
        backward = Backward(self.graph, self.loss, parameters, frugal=frugal)
        gradient = np.zeros_like(parameters.flat)
        run = backward.bind(gradient)
        run(self.feeds, shrink=True)
        with Peak() as peak:
            run(self.feeds, shrink=True)
        return gradient, peak.bytes


def deep() -> Graph:
    """Many layers of large maps and hardly any weights: all that a step takes is what lies between the layers."""
    graph = Graph("deep", opsets={"": 17})
    random = np.random.default_rng(1)
    x: Value = graph.add_input("x", TensorType(DType.FLOAT, ("N", CHANNELS, SIDE, SIDE)))
    for _ in range(DEPTH):
        weight = (0.2 * random.standard_normal((CHANNELS, CHANNELS, 3, 3))).astype(np.float32)
        x = graph.add("Relu", [graph.add("Conv", [x, graph.constant(weight)], {"pads": (1, 1, 1, 1)}).output]).output
    graph.add_output(graph.add("GlobalAveragePool", [x]).output, "y", TensorType(DType.FLOAT, ("N", CHANNELS, 1, 1)))
    return graph


@pytest.mark.parametrize("name", ["digits_resnet", "digits_mobilenet_v3", "digits_transformer", "digits_dscnn"])
def test_gradients_are_the_same(name: str) -> None:
    task = Task(zoo.load(name), samples=2)
    assert segments(task.graph, task.loss)
    plain, _ = task.gradient(frugal=False)
    twice, _ = task.gradient(frugal=True)
    np.testing.assert_allclose(twice, plain, rtol=1e-4, atol=1e-6 * np.abs(plain).max())
    assert np.abs(plain).max() > 0


def test_less_memory_is_taken() -> None:
    task = Task(deep())
    _, plain = task.gradient(frugal=False)
    _, twice = task.gradient(frugal=True)
    assert twice < 0.75 * plain


def test_a_segment_without_a_derivative_stays() -> None:
    task = Task(deep())
    parts = segments(task.graph, task.loss)
    assert len(parts) == 4
    assert recompute(task.graph, task.loss, parts, {}) == 0


def test_a_sample_too_large_fits_when_computed_twice() -> None:
    _, plain = Task(deep()).gradient(frugal=False)
    _, twice = Task(deep()).gradient(frugal=True)
    task = Task(deep())
    trainer = Trainer(task.graph, task.loss, Parameters(task.weights), memory=(plain + twice) // 2, threads=1)
    gradient = trainer.gradient(task.feeds)[1]
    assert trainer.micro == 1
    free = Trainer(task.graph, task.loss, Parameters(task.weights), threads=1)
    np.testing.assert_allclose(gradient, free.gradient(task.feeds)[1], rtol=1e-3, atol=1e-6)


def test_what_is_too_large_even_so_is_refused() -> None:
    task = Task(deep())
    trainer = Trainer(task.graph, task.loss, Parameters(task.weights), memory=1 << 16, threads=1)
    with pytest.raises(DataError, match="even where layers are computed twice"):
        trainer.step(task.feeds)
