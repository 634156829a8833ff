"""Inputs that are images already are codes: bytes, shifted and scaled a channel. They are encoded without any error.

Where every number of channel c that was seen is o_c + d_c k with k = 0..255, a grid over the whole tensor rounds k
anew, off by up to half a step, because the d_c differ or because 0 lies between two steps. Rounding the input is among
the largest errors of an otherwise careful int8 model. So k itself is made the code: with z_c = -o_c / d_c,

    x_c = d_c (k - z_c),       W x + b = (W d) k + (b - W d z)

the readers take d_c into their columns and the constant into their bias. Their zero padding becomes a Pad of x in front
of it. Where all d_c and all z_c are equal, the grid (d, z) does it alone, after a shift of all x by less than a step if
z is not whole: 0, and so the padding, is then off by that shift.

Does not fire where a reader of the input is not a quantized Conv, or on inputs of other numbers; inputs off the lattice
that come later are rounded to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node, Value
from ....ir.origin import Origin
from ....ir.types import DType
from ....runtime.samples import Samples
from ...walk.linear import Linear
from ..numbers.params import QuantParams

Array = NDArray[np.float64]

LEVELS = 256
SAMPLES, BATCH = 64, 4
SEEN = 1 << 16
"""Numbers of a channel among which the least gap is looked for."""
EXACT = 0.02
"""How far from the lattice, in steps, a number may lie: what float32 makes of (k / 255 - mean) / std lies within."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """`step` (channels,) is d and `zero` (channels,) is z."""

    step: Array
    zero: Array

    @property
    def uniform(self) -> bool:
        """Whether one grid holds every channel."""
        near = np.abs(self.zero - self.zero[0]).max() < EXACT
        return bool(near and np.abs(self.step / self.step[0] - 1.0).max() * LEVELS < EXACT)


def find_lattice(read: Callable[[], Iterable[NDArray[np.generic]]]) -> Lattice | None:
    """The lattice of what `read` gives, twice, in batches (samples, channels, ...); `None` where there is none.

    Channels must hold 3 different numbers at least.
    """
    some, low, high = np.zeros((0, 0)), np.zeros(0), np.zeros(0)
    for flat in filter(np.size, map(_by_channel, read())):
        if not low.size:
            some, low, high = flat[:, :0].astype(np.float64), flat.min(axis=1), flat.max(axis=1)
        some = np.concatenate([some, flat[:, : SEEN - some.shape[1]]], axis=1)
        low, high = np.minimum(low, flat.min(axis=1)), np.maximum(high, flat.max(axis=1))
    low, high = low.astype(np.float64), high.astype(np.float64)
    if not low.size or not np.isfinite([low, high]).all():
        return None
    steps = np.asarray([_step(*channel) for channel in zip(some, low.tolist(), high.tolist(), strict=True)])
    if not steps.all():
        return None
    for flat in filter(np.size, map(_by_channel, read())):
        for numbers, step, least in zip(flat, steps, low, strict=True):
            places = (numbers.astype(np.float64) - least) / step
            if np.abs(places - np.rint(places)).max() > EXACT:
                return None
    return Lattice(steps, -low / steps)


def _by_channel(x: NDArray[np.generic]) -> NDArray[np.float32]:
    """(samples, channels, ...) as (channels, numbers)."""
    return np.asarray(x, np.float32).swapaxes(0, 1).reshape(x.shape[1], math.prod(x.shape[2:]) * x.shape[0])


def _step(some: Array, low: float, high: float) -> float:
    """The step between numbers of which `some` are known, and the least and greatest; 0 where there is none."""
    gaps = np.diff(np.unique(some))
    gaps = gaps[gaps > 1e-6 * max(abs(low), abs(high))]
    count = round((high - low) / float(gaps.min())) if len(gaps) >= 2 else 0
    return (high - low) / count if 2 <= count < LEVELS else 0.0


def encode_inputs(
    graph: Graph, layers: Mapping[Node, Linear], samples: Samples, dtype: DType
) -> dict[Value, QuantParams]:
    """Rewrite the inputs of `graph` that lie on a lattice; returns the grid of each value that layers read instead."""
    params_of: dict[Value, QuantParams] = {}
    for value in graph.inputs if dtype is DType.UINT8 else ():
        readers = _readers(value, layers) if value.default is None else []
        lattice = _lattice_of(value, samples) if readers else None
        if lattice is not None and len(lattice.step) == readers[0].channels:
            levels, params = _rewrite(graph, value, readers, lattice)
            params_of[levels] = params
    return params_of


def _lattice_of(value: Value, samples: Samples) -> Lattice | None:
    taken = samples.take(SAMPLES)
    return find_lattice(lambda: (feeds[value.name] for feeds in taken.batches(BATCH)))


def _readers(value: Value, layers: Mapping[Node, Linear]) -> list[Linear]:
    """The layers that read an input, all alike in their padding; empty where anything else reads it."""
    quantized = [layers[user] for user in value.users if isinstance(user, Node) and user in layers]
    plain = [
        r
        for r in quantized
        if r.op == "Conv"
        and r.source is value
        and len(r.weight.uses) == 1
        and r.groups == 1
        and r.node.get_string("auto_pad", "NOTSET") in ("", "NOTSET", "VALID")
    ]
    pads = {_pads(r) for r in plain}
    return plain if len(plain) == len(value.uses) and len(pads) == 1 else []


def _pads(layer: Linear) -> tuple[int, ...]:
    return layer.node.get_ints("pads", (0,) * (2 * len(layer.kernel)))


def _rewrite(graph: Graph, value: Value, readers: list[Linear], lattice: Lattice) -> tuple[Value, QuantParams]:
    first = next(node for node in graph if node in {r.node for r in readers})
    origin = Origin.merge([first.origin], "quant")
    rank = 2 + len(readers[0].kernel)

    def add(op: str, x: Value, operand: NDArray[np.generic], hint: str) -> Value:
        inputs = [x, graph.constant(operand, hint)]
        return graph.add(op, inputs, outputs=[f"{value.name}_{hint}"], origin=origin, before=first).output

    def spread(numbers: Array) -> NDArray[np.float32]:
        return numbers.astype(np.float32).reshape(1, -1, *[1] * (rank - 2))

    x, step, zero = value, lattice.step, lattice.zero
    if lattice.uniform:
        whole = int(np.clip(np.floor(zero[0] + EXACT), 0, LEVELS - 1))
        params = QuantParams(np.asarray(np.float32(step[0])), whole, DType.UINT8, None, 0, LEVELS - 1)
        shift = float((zero[0] - whole) * step[0])
        if abs(shift) < EXACT * step[0]:
            return value, params
        x = add("Add", x, np.asarray(shift, np.float32), "shifted")
        for reader in readers:
            _fold(reader, np.ones_like(step), np.full_like(step, -shift))
    else:
        params = QuantParams(np.asarray(np.float32(1.0)), 0, DType.UINT8, None, 0, LEVELS - 1)
        pads, half = _pads(readers[0]), rank - 2
        if any(pads):
            x = add("Pad", x, np.asarray([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64), "padded")
        x = add("Add", add("Mul", x, spread(1.0 / step), "scaled"), spread(zero), "levels")
        for reader in readers:
            _fold(reader, step, -step * zero)
            reader.node.set_attribute("pads", [0] * len(pads))
    for reader in readers:
        reader.node.set_input(0, x)
    return x, params


def _fold(layer: Linear, factor: Array, constant: Array) -> None:
    """W (factor x + constant) + b as a layer of x; `factor` and `constant` are (channels,)."""
    weight = layer.weights().reshape(layer.outputs, layer.channels, -1)
    shift = (weight * constant[:, None]).reshape(len(weight), -1).sum(axis=1)
    layer.write((weight * factor[:, None]).reshape(layer.shape), None)
    layer.shift_bias(shift)
