"""Layer verbs over `Graph`: a network is written as its paper writes it, one line a layer.

Every value gets its type as it is made, so a built graph needs no shape inference. Where the numbers of a parameter
come from is one function of its name, its shape and the normal distribution it would be drawn from: `he` draws them,
`stored` looks trained ones up. The same network therefore builds with random and with trained weights.

Networks are NCHW, float32, and have the symbolic batch size `"N"`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import ModelError, SpecError
from ..ir.graph import Graph
from ..ir.node import Node, Value
from ..ir.types import DType, Shape, TensorType

OPSET = 18

FloatArray: TypeAlias = npt.NDArray[np.float32]

Weights: TypeAlias = Callable[[str, tuple[int, ...], float, float], FloatArray]
"""Name, shape, mean and standard deviation of a parameter, to its values."""

Activation: TypeAlias = Literal["relu", "relu6", ""]


def he(seed: int) -> Weights:
    """Normal random weights; each parameter has its own stream, so adding a layer changes no other.

    The standard deviations that the verbs ask for are those of He et al., "Delving Deep into Rectifiers", 2015, eq. 10.
    """

    def draw(name: str, shape: tuple[int, ...], mean: float, deviation: float) -> FloatArray:
        stream = np.random.default_rng([seed, zlib.crc32(name.encode())])
        return (mean + deviation * stream.standard_normal(shape)).astype(np.float32)

    return draw


def stored(arrays: Mapping[str, FloatArray]) -> Weights:
    """Weights looked up by name. Building raises `ModelError` where one is missing or has another shape."""

    def look_up(name: str, shape: tuple[int, ...], mean: float, deviation: float) -> FloatArray:
        if name not in arrays or arrays[name].shape != shape:
            found = f"has shape {arrays[name].shape}" if name in arrays else "is missing"
            raise ModelError(f"parameter {name!r} {found}; the network needs one of shape {shape}")
        return arrays[name]

    return look_up


class Builder:
    """A graph under construction. Verbs take and return values; `name` is the node's, and a prefix of its parameters'.

    With `batch_norm` a convolution is followed by BatchNormalization as a node of its own; without, it has the bias
    that remains after folding.
    """

    def __init__(self, name: str, weights: Weights, *, batch_norm: bool = True) -> None:
        self.graph = Graph(name, opsets={"": OPSET})
        self._weights = weights
        self._batch_norm = batch_norm

    def input(self, name: str, *sizes: int) -> Value:
        """An input of shape `("N", *sizes)`."""
        return self.graph.add_input(name, _type(("N", *sizes)))

    def finish(self, value: Value, name: str) -> Graph:
        """Return `value` as the output `name`; the graph is complete."""
        self.graph.add_output(value, name)
        return self.graph

    def parameter(self, name: str, shape: Sequence[int], *, mean: float = 0.0, deviation: float = 0.0) -> Value:
        return self.graph.constant(self._weights(name, tuple(shape), mean, deviation), name)

    def node(
        self,
        op: str,
        name: str,
        inputs: Sequence[Value | None],
        shape: Shape,
        attributes: Mapping[str, int | float | list[int]] | None = None,
    ) -> Value:
        """The only output, float32 of `shape`, of a new node."""
        node: Node = self.graph.add(op, inputs, attributes, outputs=[name], types=[_type(shape)], name=name)
        return node.output

    def integers(self, name: str, values: Sequence[int]) -> Value:
        return self.graph.constant(np.array(values, np.int64), name)

    # -- layers

    def conv(
        self,
        x: Value,
        name: str,
        channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = "",
        gain: float = 2.0,
        scale: float = 1.0,
    ) -> Value:
        """Convolution (N, c, h, w) -> (N, channels, ceil(h / stride), ceil(w / stride)), normalised, activated.

        `gain` is what the initialisation multiplies the signal's power by: 2 makes up for the ReLU behind it, 1 suits a
        linear layer. `scale` is the initial gamma of the normalisation; without one it scales the weights.
        """
        inputs, height, width = sizes(x)
        shape: Shape = ("N", channels, -(-height // stride), -(-width // stride))
        weight_shape = (channels, inputs // groups, kernel, kernel)
        deviation = math.sqrt(gain / math.prod(weight_shape[1:])) * (1.0 if self._batch_norm else scale)
        operands = [x, self.parameter(f"{name}.weight", weight_shape, deviation=deviation)]
        if not self._batch_norm:
            operands.append(self.parameter(f"{name}.bias", [channels]))
        attributes: dict[str, int | list[int]] = {
            "kernel_shape": [kernel, kernel],
            "strides": [stride, stride],
            "pads": [kernel // 2] * 4,
            "group": groups,
        }
        y = self.node("Conv", name, operands, shape, attributes)
        return self.activate(self.normalise(y, f"{name}.bn", scale) if self._batch_norm else y, name, activation)

    def normalise(self, x: Value, name: str, scale: float = 1.0) -> Value:
        """BatchNormalization (N, c, h, w); its initial values differ a little from (1, 0, 0, 1), so folding shows."""
        channels = sizes(x)[0]
        parts = (("gamma", scale), ("beta", 0.0), ("mean", 0.0), ("variance", 1.0))
        operands = [
            self.parameter(f"{name}.{part}", [channels], mean=mean, deviation=0.1 * (mean or 1.0))
            for part, mean in parts
        ]
        return self.node("BatchNormalization", name, [x, *operands], _like(x), {"epsilon": 1e-5})

    def activate(self, x: Value, name: str, activation: Activation) -> Value:
        if activation == "relu":
            return self.node("Relu", f"{name}.relu", [x], _like(x))
        if activation == "relu6":
            low = self.graph.constant(np.float32(0.0), f"{name}.relu6.min")
            high = self.graph.constant(np.float32(6.0), f"{name}.relu6.max")
            return self.node("Clip", f"{name}.relu6", [x, low, high], _like(x))
        return x

    def add(self, a: Value, b: Value, name: str) -> Value:
        """The sum of two values, in the shape of the first."""
        return self.node("Add", name, [a, b], _like(a))

    def classifier(self, x: Value, classes: int, name: str = "classifier") -> Value:
        """Global average pooling and a dense layer: (N, c, h, w) -> logits (N, classes)."""
        channels = sizes(x)[0]
        pooled = self.node("GlobalAveragePool", f"{name}.pool", [x], ("N", channels, 1, 1))
        return self.dense(self.node("Flatten", f"{name}.flatten", [pooled], ("N", channels)), name, classes)

    def dense(self, x: Value, name: str, features: int) -> Value:
        """Gemm (N, c) -> (N, features)."""
        inputs = sizes(x)[-1]
        weight = self.parameter(f"{name}.weight", [features, inputs], deviation=math.sqrt(1.0 / inputs))
        bias = self.parameter(f"{name}.bias", [features])
        return self.node("Gemm", name, [x, weight, bias], ("N", features), {"transB": 1})


def _type(shape: Shape) -> TensorType:
    if any(isinstance(size, int) and size < 1 for size in shape):
        raise SpecError(
            f"the network would have a value of shape {shape}; make it wider, or its input or output larger"
        )
    return TensorType(DType.FLOAT, shape)


def sizes(value: Value) -> tuple[int, ...]:
    """The sizes of a value behind its batch axis. Raises `ModelError` where a builder did not make the value."""
    known = tuple(size for size in (value.shape or ())[1:] if isinstance(size, int))
    if value.shape is None or len(known) != len(value.shape) - 1:
        raise ModelError(f"{value} has no known sizes behind the batch axis; make it with a Builder")
    return known


def _like(value: Value) -> Shape:
    return ("N", *sizes(value))
