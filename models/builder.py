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
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..errors import ModelError, SpecError
from ..ir.graph import Graph
from ..ir.node import Node, Value
from ..ir.types import DType, Shape, TensorType

OPSET = 18
MOST_PARAMETERS = 2_000_000_000
MOST_NODES = 20_000
MOST_ELEMENTS = 4_000_000_000
"""Of one value, of one sample. A network beyond these was asked for by mistake, and would take all memory."""

FloatArray: TypeAlias = npt.NDArray[np.float32]

Weights: TypeAlias = Callable[[str, tuple[int, ...], float, float], FloatArray]
"""Name, shape, mean and standard deviation of a parameter, to its values."""

Activation: TypeAlias = Literal["relu", "relu6", "hard_swish", "silu", "sigmoid", "hard_sigmoid", ""]

Pads: TypeAlias = Literal["torch", "tf"]
"""Where a window that does not fit is padded: alike on both sides, or as TensorFlow's SAME, more at the end."""


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
            fault = f"has shape {arrays[name].shape}" if name in arrays else "is missing"
            raise ModelError(f"parameter {name!r} {fault}; the network needs one of shape {shape}")
        return arrays[name]

    return look_up


class NetworkBuilder:
    """A graph under construction. Verbs take and return values; `name` is the node's, and a prefix of its parameters'.

    With `batch_norm` a convolution is followed by BatchNormalization of this `epsilon` as a node of its own; without,
    it has the bias that remains after folding. Raises `SpecError` for unknown `pads`.
    """

    def __init__(
        self, name: str, weights: Weights, *, batch_norm: bool = True, epsilon: float = 1e-5, pads: str = "torch"
    ) -> None:
        if pads not in get_args(Pads):
            raise SpecError(f"pads={pads} is unknown; take 'torch' (symmetric) or 'tf' (TensorFlow's SAME)")
        self.graph = Graph(name, opsets={"": OPSET})
        self._parameters = 0
        self._weights = weights
        self._batch_norm = batch_norm
        self._epsilon = epsilon
        self._tf_pads = pads == "tf"

    def input(self, name: str, *sizes: int) -> Value:
        """An input of shape `("N", *sizes)`."""
        return self.graph.add_input(name, _type(("N", *sizes)))

    def finish(self, value: Value, name: str) -> Graph:
        """Return `value` as the output `name`; the graph is complete."""
        self.graph.add_output(value, name)
        return self.graph

    def parameter(self, name: str, shape: Sequence[int], *, mean: float = 0.0, deviation: float = 0.0) -> Value:
        self._parameters += math.prod(shape)
        if self._parameters > MOST_PARAMETERS:
            raise SpecError(
                f"{self.graph.name} would have more than {MOST_PARAMETERS / 1e9:.0f} billion parameters at "
                f"'{name}'; make it narrower, or give it fewer layers or classes"
            )
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
        if len(self.graph) >= MOST_NODES:
            raise SpecError(
                f"network {self.graph.name} would have more than {MOST_NODES:,} nodes; give it fewer layers"
            )
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
        pads: Sequence[int] | None = None,
        activation: Activation = "",
        gain: float = 2.0,
        scale: float = 1.0,
    ) -> Value:
        """Convolution (N, c, h, w) -> (N, channels, ceil(h / stride), ceil(w / stride)), normalised, activated.

        `pads` are (top, left, bottom, right) where the sizes above are not wanted. `gain` is what the initialisation
        multiplies the signal's power by: 2 makes up for the ReLU behind it, 1 suits a linear layer. `scale` is the
        initial gamma of the normalisation; without one it scales the weights.
        """
        power = gain if self._batch_norm else gain * scale**2
        around = self.pads(x, kernel, stride) if pads is None else list(pads)
        y = self._convolved(x, name, channels, kernel, stride, groups, around, power, bias=not self._batch_norm)
        return self.activate(self.normalise(y, f"{name}.bn", scale) if self._batch_norm else y, name, activation)

    def plain_conv(
        self, x: Value, name: str, channels: int, *, activation: Activation = "", gain: float = 2.0
    ) -> Value:
        """A 1x1 convolution with a bias and no normalisation, activated."""
        y = self._convolved(x, name, channels, 1, 1, 1, [0] * 4, gain, bias=True)
        return self.activate(y, name, activation)

    def bare_depthwise(self, x: Value, name: str, kernel: int, *, stride: int = 1, gain: float = 2.0) -> Value:
        """A convolution of each channel apart, without bias, normalisation and activation."""
        channels, pads = sizes(x)[0], self.pads(x, kernel, stride)
        return self._convolved(x, name, channels, kernel, stride, channels, pads, gain, bias=False)

    def _convolved(
        self,
        x: Value,
        name: str,
        channels: int,
        kernel: int,
        stride: int,
        groups: int,
        pads: list[int],
        gain: float,
        *,
        bias: bool,
    ) -> Value:
        inputs = sizes(x)[0]
        weight_shape = (channels, inputs // groups, kernel, kernel)
        deviation = math.sqrt(gain / math.prod(weight_shape[1:]))
        operands = [x, self.parameter(f"{name}.weight", weight_shape, deviation=deviation)]
        if bias:
            operands.append(self.parameter(f"{name}.bias", [channels]))
        attributes: dict[str, int | list[int]] = {
            "kernel_shape": [kernel, kernel],
            "strides": [stride, stride],
            "pads": pads,
            "group": groups,
        }
        shape: Shape = ("N", channels, *_strided(x, kernel, stride, pads))
        return self.node("Conv", name, operands, shape, attributes)

    def pads(self, x: Value, kernel: int, stride: int) -> list[int]:
        """Pads (top, left, bottom, right) with which a window gives ceil(size / stride) places.

        TensorFlow's SAME pads just as much as the last window needs, the odd pixel at the end.
        """
        if not self._tf_pads:
            return [kernel // 2] * 4
        totals = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in sizes(x)[1:]]
        return [*(total // 2 for total in totals), *(total - total // 2 for total in totals)]

    def pool(
        self, x: Value, name: str, op: Literal["MaxPool", "AveragePool"], kernel: int, stride: int, pads: Sequence[int]
    ) -> Value:
        """A pooling window over (N, c, h, w) with pads (top, left, bottom, right), which an average does not count."""
        attributes = {"kernel_shape": [kernel, kernel], "strides": [stride, stride], "pads": list(pads)}
        shape: Shape = ("N", sizes(x)[0], *_strided(x, kernel, stride, pads))
        return self.node(op, name, [x], shape, attributes)

    def normalise(self, x: Value, name: str, scale: float = 1.0) -> Value:
        """BatchNormalization (N, c, h, w); its initial values differ a little from (1, 0, 0, 1), so folding shows."""
        channels = sizes(x)[0]
        parts = (("gamma", scale), ("beta", 0.0), ("mean", 0.0), ("variance", 1.0))
        operands = [
            self.parameter(f"{name}.{part}", [channels], mean=mean, deviation=0.1 * (mean or 1.0))
            for part, mean in parts
        ]
        return self.node("BatchNormalization", name, [x, *operands], _like(x), {"epsilon": self._epsilon})

    def activate(self, x: Value, name: str, activation: Activation) -> Value:
        """HardSigmoid is that of MobileNetV3, a sixth of ReLU6 of x + 3; SiLU is spelled x times its Sigmoid."""
        match activation:
            case "relu":
                return self.node("Relu", f"{name}.relu", [x], _like(x))
            case "relu6":
                low = self.graph.constant(np.float32(0.0), f"{name}.relu6.min")
                high = self.graph.constant(np.float32(6.0), f"{name}.relu6.max")
                return self.node("Clip", f"{name}.relu6", [x, low, high], _like(x))
            case "hard_swish":
                return self.node("HardSwish", f"{name}.hard_swish", [x], _like(x))
            case "hard_sigmoid":
                slope = {"alpha": 1 / 6, "beta": 0.5}
                return self.node("HardSigmoid", f"{name}.hard_sigmoid", [x], _like(x), slope)
            case "sigmoid":
                return self.node("Sigmoid", f"{name}.sigmoid", [x], _like(x))
            case "silu":
                gate = self.node("Sigmoid", f"{name}.silu.sigmoid", [x], _like(x))
                return self.node("Mul", f"{name}.silu", [x, gate], _like(x))
            case "":
                return x

    def gate(self, x: Value, name: str, squeezed: int, activation: Activation, opening: Activation) -> Value:
        """Squeeze-and-excite: (N, c, h, w) times a factor a channel, which two dense layers tell from the means.

        Hu et al., "Squeeze-and-Excitation Networks", 2018 (arXiv:1709.01507), section 3. `squeezed` is the width
        between the two, `activation` follows the first, `opening` the second.
        """
        channels = sizes(x)[0]
        means = self.node("GlobalAveragePool", f"{name}.pool", [x], ("N", channels, 1, 1))
        factors = self.plain_conv(means, f"{name}.squeeze", squeezed, activation=activation)
        factors = self.plain_conv(factors, f"{name}.excite", channels, activation=opening, gain=1.0)
        return self.node("Mul", f"{name}.scale", [x, factors], _like(x))

    def concat(self, values: Sequence[Value], name: str) -> Value:
        """The values side by side along the channels."""
        shape: Shape = ("N", sum(sizes(value)[0] for value in values), *sizes(values[0])[1:])
        return self.node("Concat", name, values, shape, {"axis": 1})

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
    if math.prod(size for size in shape if isinstance(size, int)) > MOST_ELEMENTS:
        raise SpecError(
            f"the network would have a value of shape {shape}, more than {MOST_ELEMENTS / 1e9:.0f} billion numbers; "
            "make it narrower, or its input smaller"
        )
    return TensorType(DType.FLOAT, shape)


def sizes(value: Value) -> tuple[int, ...]:
    """The sizes of a value behind its batch axis. Raises `ModelError` where a builder did not make the value."""
    fixed = tuple(size for size in (value.shape or ())[1:] if isinstance(size, int))
    if value.shape is None or len(fixed) != len(value.shape) - 1:
        raise ModelError(f"{value} has no known sizes behind the batch axis; make it with a Builder")
    return fixed


def _strided(x: Value, kernel: int, stride: int, pads: Sequence[int]) -> tuple[int, ...]:
    """Height and width of what a window with pads (top, left, bottom, right) makes of a map."""
    around = (pads[0] + pads[2], pads[1] + pads[3])
    return tuple((size + pad - kernel) // stride + 1 for size, pad in zip(sizes(x)[1:], around))


def _like(value: Value) -> Shape:
    return ("N", *sizes(value))
