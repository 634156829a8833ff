"""Cross-layer equalisation towards the activations: every channel fills the grid of its tensor.

One grid serves a whole activation, but some channels are tens of times smaller than others and use a few of its codes.
Where the operators in between commute with a factor a channel (`homogeneous.py`), x_c is made 1/s_c times as large by
the rows of the weights that make it, and the columns of those that read it take s_c back: exactly the same function.
A scale a channel of the weight absorbs the rows for free, and with depthwise readers the columns too. So the grid of
the tensor becomes a grid a channel, at no cost at run time. (Nagel et al. 2019, "Data-free quantization through weight
equalization and bias correction", section 4.1, chooses s by the weights instead, for weights with one scale a tensor.)

With [-l_c, h_c] the range of channel c, L and H the largest l_c and h_c in a tensor, and v over the tensors of a class,

    s_c = max_v max(h_c / H, l_c / L) ** a        <= 1,

so no tensor's range grows. Dense readers pay: their weights spread more. The exponent a of each set of tensors that
classes tie together is the one with the least expected noise at the readers,

    D_x^2/12 sum_c s_c^2 |W_:c|^2  +  sum_o D_o^2/12 sum_c k E[x_c^2] / s_c^2

over the power of their answers, where D_x is the step of the grid and D_o that of the weights of output o.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node, Value
from ...walk.linear import Linear
from ..calibrate import Seen
from .homogeneous import FROZEN, Classes, scale_classes

Array = NDArray[np.float64]

EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
LEAST = 1 / 64
"""No channel is made more than so many times larger: what hardly fired on the samples may fire elsewhere."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A value that gets a grid: its classes, ends of each channel's range (low <= 0 <= high), and mean square."""

    classes: NDArray[np.int64]
    low: Array
    high: Array
    power: Array


@dataclass(frozen=True, slots=True)
class _Part:
    """Tensors that classes tie together, and the layers that read them."""

    tensors: list[_Tensor] = field(default_factory=list)
    readers: list[Linear] = field(default_factory=list)

    def classes(self) -> NDArray[np.int64]:
        """The classes that may be scaled."""
        labels = np.unique(np.concatenate([t.classes for t in self.tensors]))
        return np.asarray(labels[labels != FROZEN])


def scaled_values(graph: Graph, layers: Mapping[Node, Linear]) -> list[Value]:
    """The values that get a grid, and have channels that may be scaled."""
    return _scaled(scale_classes(graph, layers))


def equalise(graph: Graph, layers: Mapping[Node, Linear], seen: Seen, *, bits: int = 8) -> int:
    """Scale the channels of `graph` in place; returns how many. `bits` are those of the weights."""
    classes = scale_classes(graph, layers)
    tensors = _measure(_scaled(classes), classes, seen)
    if not tensors:
        return 0
    base = np.zeros(classes.count)
    for t in tensors.values():
        share = np.maximum(_over(t.high, t.high.max()), _over(-t.low, -t.low.min()))
        np.maximum.at(base, t.classes, share)
    base = np.clip(np.where(base > 0.0, base, 1.0), LEAST, 1.0)
    base[FROZEN] = 1.0
    scale = np.ones(classes.count)
    readers = [layer for layer in classes.readers(layers) if layer.source in tensors]
    tried = [base**a for a in EXPONENTS]
    for part in _parts(tensors, readers, classes.count):
        own, noises = part.classes(), []
        for s in tried:
            scale[own] = s[own]
            noises.append(_noise(scale, part.tensors, part.readers, tensors, bits))
        scale[own] = tried[int(np.argmin(noises))][own]
    for layer in classes.makers(layers):
        _divide_rows(layer, scale[classes.of[layer.node.output]])
    for layer in classes.readers(layers):
        _multiply_columns(layer, scale[classes.of[layer.source]])
    return int(np.count_nonzero(scale != 1.0))


def _over(x: Array, most: float) -> Array:
    return x / most if most > 0.0 else np.zeros_like(x)


def _scaled(classes: Classes) -> list[Value]:
    return [v for v in classes.of if (classes.of[v] != FROZEN).any() and not _clamped(v)]


def _clamped(value: Value) -> bool:
    """Whether a Relu or Clip alone reads the value, so that only what it answers gets a grid."""
    return len(value.uses) == 1 and len(value.users) == 1 and value.users[0].op in ("Relu", "Clip")


def _measure(values: list[Value], classes: Classes, seen: Seen) -> dict[Value, _Tensor]:
    tensors = {
        value: _Tensor(classes.of[value], np.minimum(one.low, 0.0), np.maximum(one.high, 0.0), one.square)
        for value, one in zip(values, seen.channels(dict.fromkeys(values, 1)), strict=True)
    }
    return {v: t for v, t in tensors.items() if np.isfinite(t.low).all() and np.isfinite(t.high).all()}


def _parts(tensors: Mapping[Value, _Tensor], readers: Sequence[Linear], count: int) -> list[_Part]:
    """The sets of the `count` classes that `tensors` tie together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    own = {value: np.unique(t.classes[t.classes != FROZEN]) for value, t in tensors.items()}
    first, other = (np.concatenate(ends) for ends in zip(*((np.repeat(c[:1], len(c)), c) for c in own.values())))
    ties = coo_array((np.ones(len(first)), (first, other)), shape=(count, count))
    number = connected_components(ties, directed=False)[1]
    parts: dict[int, _Part] = {}
    of: dict[Value, _Part] = {}
    for value, labels in own.items():
        if len(labels):
            of[value] = parts.setdefault(int(number[labels[0]]), _Part())
            of[value].tensors.append(tensors[value])
    for layer in readers:
        if layer.source in of:
            of[layer.source].readers.append(layer)
    return list(parts.values())


def _noise(s: Array, mine: list[_Tensor], readers: list[Linear], tensors: Mapping[Value, _Tensor], bits: int) -> float:
    total = 0.0
    for t in mine:
        total += _step(t, s) ** 2 * float(np.mean(s[t.classes] ** 2)) / max(float(np.mean(t.power)), 1e-30)
    for layer in readers:
        t = tensors[layer.source]
        factor = s[t.classes]
        w = _blocks(layer)  # (groups, outputs, channels, positions)
        by_group = factor.reshape(w.shape[0], 1, w.shape[2], 1)
        squares = np.square(w).sum(axis=(1, 3))  # (groups, channels)
        scaled = np.abs(w * by_group).max(axis=(2, 3)) / (2 ** (bits - 1) - 1)
        power = (t.power / factor**2).reshape(w.shape[0], -1).sum(axis=1)
        rounding = float(np.sum(np.square(scaled).sum(axis=1) * power)) * w.shape[3]
        activation = _step(t, s) ** 2 * float(np.sum(squares * by_group[:, 0, :, 0] ** 2))
        answer = float(np.sum(squares * t.power.reshape(squares.shape)))
        total += (activation + rounding) / max(answer, 1e-30)
    return total


def _step(t: _Tensor, s: Array) -> float:
    factor = s[t.classes]
    return float((t.high / factor).max() - (t.low / factor).min()) / 255


def _blocks(layer: Linear) -> Array:
    """The weight as (groups, outputs of a group, channels of a group, kernel positions)."""
    groups, n, _ = layer.shape
    return layer.weights().reshape(groups, n, layer.channels, -1)


def _multiply_columns(layer: Linear, factor: Array) -> None:
    groups = layer.groups
    layer.write((_blocks(layer) * factor.reshape(groups, 1, layer.channels, 1)).reshape(layer.shape), None)


def _divide_rows(layer: Linear, factor: Array) -> None:
    bias = layer.bias()
    groups, n, _ = layer.shape
    layer.write(layer.weights() / factor.reshape(groups, n, 1), None if bias is None else bias / factor)
