"""Bad samples and odd weights, through every pass on the walk and the public interface: a right result, or a layer that
is skipped for a reason that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from optc.compiler import Build, compile
from optc.errors import DataError
from optc.ir.graph import Graph, Node, Value
from optc.ir.tensor import ArrayTensor
from optc.ir.types import DType, Shape, TensorType
from optc.passes.base import Outcome
from optc.runtime.session import Session

PASSES = (
    "prune:ratio=0.5",
    "prune:kind=nm",
    "prune:kind=channels:ratio=0.5:align=1",
    "prune:kind=channels:ratio=0.3:scope=global:align=1",
    "svd:ratio=0.6:align=1",
    "svd:ratio=0.6:scope=global:align=1",
    "depthwise:rank=2",
)
DEFAULTS = ("prune", "prune:kind=channels", "svd", "depthwise")
STRUCTURE = ("prune:kind=blocks:ratio=0.1", "merge:ratio=0.1", "replace:ratio=0.2:steps=20")
"""Passes that edit the structure, of which blocks are told, not layers."""
STRUCTURE_DEFAULTS = ("prune:kind=blocks", "merge", "replace:steps=20")
each_pass = pytest.mark.parametrize("passes", PASSES)
each_of_all = pytest.mark.parametrize("passes", [*PASSES, *STRUCTURE])
each_with_defaults = pytest.mark.parametrize("passes", [*PASSES, *DEFAULTS, *STRUCTURE, *STRUCTURE_DEFAULTS])
each_default = pytest.mark.parametrize("passes", DEFAULTS)

Array = np.ndarray


class Net:
    """Conv stem - Relu - Conv mid - Relu - Conv last - pool - Gemm head."""

    def __init__(self, shape: Shape = ("N", 4, 6, 6)) -> None:
        self.rng = np.random.default_rng(0)
        self.graph = Graph("net", opsets={"": 17})
        self.x = self.graph.add_input("x", TensorType(DType.FLOAT, shape))

    def weight(self, *shape: int) -> Array:
        return (self.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def conv(self, x: Value, weight: Array | Value, name: str) -> Value:
        w = weight if isinstance(weight, Value) else self.graph.constant(weight)
        assert w.constant is not None
        n, _, k, _ = w.constant.shape
        bias = self.graph.constant(0.1 * self.weight(n))
        return self.graph.add("Conv", [x, w, bias], {"pads": [k // 2] * 4}, name=name, outputs=[f"{name}.y"]).output

    def relu(self, x: Value) -> Value:
        return self.graph.add("Relu", [x]).output

    def head(self, x: Value, channels: int) -> Graph:
        flat = self.graph.add("Flatten", [self.graph.add("GlobalAveragePool", [x]).output]).output
        inputs = [flat, self.graph.constant(self.weight(5, channels)), self.graph.constant(self.weight(5))]
        out = self.graph.add("Gemm", inputs, {"transB": 1}, name="head").output
        self.graph.add_output(out, "y", TensorType(DType.FLOAT, None))
        return self.graph


def net(mid: Array | None = None, shape: Shape = ("N", 4, 6, 6)) -> Graph:
    one = Net(shape)
    hidden = one.relu(one.conv(one.x, one.weight(12, 4, 3, 3), "stem"))
    hidden = one.relu(one.conv(hidden, one.weight(12, 12, 3, 3) if mid is None else mid, "mid"))
    return one.head(one.relu(one.conv(hidden, one.weight(8, 12, 1, 1), "last")), 8)


def samples(count: int = 96, *shape: int) -> Array:
    return np.random.default_rng(1).normal(size=(count, *(shape or (4, 6, 6)))).astype(np.float32)


def built(graph: Graph, passes: str, x: Array | Sequence[dict[str, Array]]) -> Build:
    """The build, with every layer accounted for."""
    data = {"x": x} if isinstance(x, np.ndarray) else x
    build = compile(graph, passes, data=data, guard=False, check=False, threads=1)
    layers = [layer for step in build.report.steps for layer in step.report.layers]
    assert layers
    assert all(layer.reason for layer in layers if layer.outcome is not Outcome.DONE)
    return build


def outcomes(build: Build) -> dict[str, Outcome]:
    return {layer.name: layer.outcome for step in build.report.steps for layer in step.report.layers}


def reasons(build: Build) -> str:
    return "\n".join(layer.reason for step in build.report.steps for layer in step.report.layers)


def notes(build: Build) -> str:
    return "\n".join(note for step in build.report.steps for note in step.report.notes)


def error(graph: Graph, build: Build, x: Array) -> float:
    """Relative squared error of the result on `x`; both answer in numbers."""
    t, s = (Session(g, threads=1).run({"x": x})[0].astype(np.float64) for g in (graph, build.graph))
    assert t.shape == s.shape
    assert np.isfinite(t).all()
    assert np.isfinite(s).all()
    return float(np.sum((t - s) ** 2) / max(np.sum((t - t.mean(axis=0)) ** 2), 1e-12))


@each_of_all
def test_too_few_samples_are_told_and_do_no_harm(passes: str) -> None:
    graph = net()
    build = built(graph, passes, samples(2))
    where = reasons(build) if "replace" in passes else notes(build)
    assert "too few" in where
    assert "for the width" in where
    assert error(graph, build, samples(64)) < 5  # what was asked for is done, and nothing runs away


@each_of_all
def test_dead_and_constant_inputs(passes: str) -> None:
    x = samples()
    x[:, 0] = 0.0
    x[:, 1] = 3.0
    graph = net()
    build = built(graph, passes, x)
    assert Outcome.DONE in outcomes(build).values()
    assert error(graph, build, x) < 0.5


@each_of_all
def test_samples_that_are_all_the_same(passes: str) -> None:
    """Nothing varies, so every covariance is zero and biases alone can answer."""
    x = np.repeat(samples(1), 64, axis=0)
    graph = net()
    build = built(graph, passes, x)
    assert error(graph, build, x) * 1e-12 < 1e-3


@each_of_all
def test_inputs_that_repeat_each_other_give_a_singular_covariance(passes: str) -> None:
    x = samples()
    x[:, 1] = x[:, 0]
    x[:, 3] = -2.0 * x[:, 2]
    graph = net()
    assert error(graph, built(graph, passes, x), x) < 0.8


@each_with_defaults
def test_samples_that_are_not_numbers_are_a_data_error(passes: str) -> None:
    x = samples()
    x[7, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"'x'.*sample 7.*NaN"):
        built(net(), passes, x)


@pytest.mark.parametrize("passes", [*PASSES, *DEFAULTS])
def test_weights_that_are_not_numbers_are_skipped(passes: str) -> None:
    weight = np.random.default_rng(2).normal(size=(12, 12, 3, 3)).astype(np.float32)
    weight[3, 4, 1, 1] = np.nan
    graph = net(weight)
    build = built(graph, passes, samples())
    assert "not finite" in reasons(build)
    assert outcomes(build).get("mid") is not Outcome.DONE
    left = next(node for node in build.graph if node.name == "mid").inputs[1]
    assert left is not None
    np.testing.assert_array_equal(left.numpy(), weight)


@pytest.mark.parametrize("passes", [*STRUCTURE, *STRUCTURE_DEFAULTS])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_structure_around_weights_that_are_not_numbers_stays(passes: str, bad: float) -> None:
    weight = np.random.default_rng(2).normal(size=(12, 12, 3, 3)).astype(np.float32)
    weight[3, 4, 1, 1] = bad
    graph = net(weight)
    build = compile(graph, passes, data={"x": samples()}, guard=False, check=False, threads=1)
    assert Outcome.DONE not in outcomes(build).values()
    assert [node.name for node in build.graph if node.op == "Conv"] == ["stem", "mid", "last"]
    np.testing.assert_array_equal(weight_of(build.graph, "mid").numpy(), weight)


@each_pass
def test_a_layer_without_weights_to_speak_of(passes: str) -> None:
    graph = net(np.zeros((12, 12, 3, 3), dtype=np.float32))
    x = samples()
    build = built(graph, passes, x)
    assert error(graph, build, x) * 1e-12 < 1e-6  # nothing varies behind it
    if "channels" not in passes:  # what it makes are dead channels, which go
        assert outcomes(build).get("mid") is not Outcome.DONE
        assert "its weight is zero everywhere" in reasons(build)


@each_with_defaults
def test_every_size_is_dynamic(passes: str) -> None:
    graph = net(shape=("N", 4, "H", "W"))
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(1, 4, 5 + i % 3, 6 + i % 2)).astype(np.float32)} for i in range(192)]
    build = built(graph, passes, feeds)
    assert error(graph, build, np.concatenate([feed["x"] for feed in feeds[::6]])) < 1.0


@each_with_defaults
def test_a_batch_of_one(passes: str) -> None:
    graph = net(shape=(1, 4, 6, 6))
    x = samples(64)
    build = built(graph, passes, x)
    parts = [error(graph, build, x[i : i + 1]) * 1e-12 for i in range(4)]
    assert max(parts) < 0.5


def with_default(net: Net, name: str, array: Array) -> Value:
    return net.graph.add_input(name, TensorType(DType.FLOAT, array.shape), default=ArrayTensor(array))


@each_pass
def test_inputs_with_a_default_that_no_samples_hold(passes: str) -> None:
    """One scales what layers read, another is a weight, which a caller may override."""
    net = Net()
    x = net.graph.add("Mul", [net.x, with_default(net, "scale", np.asarray([2.0], np.float32))]).output
    hidden = net.relu(net.conv(x, net.weight(12, 4, 3, 3), "stem"))
    hidden = net.relu(net.conv(hidden, net.weight(12, 12, 3, 3), "mid"))
    kernel = with_default(net, "kernel", net.weight(8, 12, 3, 3))
    hidden = net.graph.add("Conv", [hidden, kernel], name="given").output
    graph = net.head(net.relu(hidden), 8)
    x = samples()
    build = built(graph, passes, x)
    assert Outcome.DONE in outcomes(build).values()
    assert "its weight is an input with a default, which a caller may override" in reasons(build)
    assert error(graph, build, x) < 1.0


def shared() -> Graph:
    """Two layers of one weight."""
    net = Net()
    hidden = net.relu(net.conv(net.x, net.weight(12, 4, 3, 3), "stem"))
    weight = net.graph.constant(net.weight(12, 12, 3, 3))
    for name in ("mid0", "mid1"):
        hidden = net.relu(net.conv(hidden, weight, name))
    return net.head(net.relu(net.conv(hidden, net.weight(8, 12, 3, 3), "last")), 8)


def weight_of(graph: Graph, name: str) -> Value:
    value = next(node for node in graph if node.name == name).inputs[1]
    assert value is not None
    return value


@pytest.mark.parametrize("passes", [*PASSES, *DEFAULTS])
def test_a_weight_of_two_layers_is_left_to_both(passes: str) -> None:
    """Each has a bias of its own: weights go for both, and no layer gets another form."""
    graph = shared()
    x = samples()
    build = built(graph, passes, x)
    assert weight_of(build.graph, "mid0") is weight_of(build.graph, "mid1")
    if not passes.startswith("prune") or "channels" in passes:
        assert "shared" in reasons(build)
        np.testing.assert_array_equal(weight_of(build.graph, "mid0").numpy(), weight_of(graph, "mid0").numpy())
    assert error(graph, build, x) < 1.0


@pytest.mark.parametrize("passes", [*PASSES, *DEFAULTS])
def test_a_weight_that_something_else_reads_too(passes: str) -> None:
    net = Net()
    hidden = net.relu(net.conv(net.x, net.weight(12, 4, 3, 3), "stem"))
    weight = net.graph.constant(net.weight(12, 12, 3, 3))
    hidden = net.relu(net.conv(hidden, weight, "mid"))
    norm: Node = net.graph.add("ReduceSumSquare", [weight], {"keepdims": 0})
    hidden = net.graph.add("Mul", [hidden, norm.output]).output
    graph = net.head(net.relu(net.conv(hidden, net.weight(8, 12, 3, 3), "last")), 8)
    x = samples()
    # `clean` would compute the norm and leave the weight to its layer
    build = compile(graph, passes, data={"x": x}, guard=False, check=False, clean=False, threads=1)
    assert "shared" in reasons(build) or "is also read by ReduceSumSquare" in reasons(build)
    np.testing.assert_array_equal(weight_of(build.graph, "mid").numpy(), weight_of(graph, "mid").numpy())
    assert error(graph, build, x) < 1.0
