"""The scales and biases of all layers in few short constants, taken apart as the runtime loads the model.

    biases (int32)        ->  Split(Cast(float16) * 2^k)       where 11 bits hold each
    scales (float)        ->  Split(Pow(base, Cast(uint8)))    where all are powers of `SCALE_BASE`
                              Split(Cast(float16) * 2^-k)      where 11 bits hold each

`quant` rounds weights on scales that are such numbers, and its biases to such codes, so nothing is lost here. All that
depends on constants alone is folded before the runtime looks for integer kernels. What it saves is two or three bytes a
channel, and what each constant says of itself: a third of a model of 20,000 weights is not weights.

Does not fire where it would save less than `LEAST` bytes, before opset 13, nor in bodies of control flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..ir.node import Node
from ..ir.types import DType, TensorType
from ..passes.quant.numbers.params import SCALE_BASE, powers_of_base

if TYPE_CHECKING:
    from ..ir.graph import Graph, Value

LEAST = 128
"""Bytes that a rewrite must save."""
OWN = 20
"""Bytes that a constant says about itself."""
WORDS = 200
"""Bytes of the nodes that take a packed constant apart, but for those of each part."""
PART = 12
"""Bytes of each part: its size, and its name."""
LARGEST = 15
"""The exponent of float16's largest power of two."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What a list of constants became: `stored` in few bytes, and how it is read. 0 is no factor."""

    stored: NDArray[np.generic]
    factor: float = 0.0
    base: float = 0.0


def pack(graph: Graph) -> dict[str, int]:
    """Store the scales and biases of `graph` together, as short as they are; returns how many of each kind."""
    if graph.opset() < 13 or not len(graph):
        return {}
    scales, biases = _scales_and_biases(graph)
    sizes: dict[tuple[int, ...], Value] = {}
    short = [value for value in scales if powers_of_base(_numbers(value)) is not None]
    rest = [value for value in scales if value not in set(short)]
    packed = {
        "biases": _store(graph, biases, _pack_halves, sizes),
        "short scales": _store(graph, short, _pack_powers, sizes),
        "scales": _store(graph, rest, _pack_halves, sizes),
    }
    graph.sweep()
    graph.sort()
    return {kind: count for kind, count in packed.items() if count}


def _scales_and_biases(graph: Graph) -> tuple[list[Value], list[Value]]:
    """The constant vectors that are read as scales, and as biases in codes, each once and in order."""
    scales: dict[Value, None] = {}
    biases: dict[Value, None] = {}
    for node in graph:
        places = {"DequantizeLinear": (1, 0), "QLinearConv": (4, 8)}.get(node.op)
        if node.domain or places is None:
            continue
        for place, dtype, arrays in zip(places, (DType.FLOAT, DType.INT32), (scales, biases), strict=True):
            value = node.input(place)
            if value is None or value.constant is None or value.dtype is not dtype or value.is_output:
                continue
            alone = all(isinstance(user, Node) and user.graph is graph for user in value.users)
            if alone and len(value.constant.shape) == 1 and value.constant.size > 1:
                arrays[value] = None
    return list(scales), list(biases)


def _numbers(value: Value) -> NDArray[np.generic]:
    assert value.constant is not None
    return np.asarray(value.constant.numpy())


def _pack_powers(numbers: NDArray[np.generic]) -> Packed | None:
    exponents = powers_of_base(numbers)
    return None if exponents is None else Packed(exponents, base=float(SCALE_BASE))


def _pack_halves(numbers: NDArray[np.generic]) -> Packed | None:
    """As float16 times a power of two, where that is what they are."""
    wide = numbers.astype(np.float64)
    peak = float(np.abs(wide).max(initial=0.0))
    if not np.isfinite(peak) or peak == 0.0:
        return None
    exponent = int(np.floor(np.log2(peak))) - LARGEST + 1
    factor = 2.0 ** (max(exponent, 0) if numbers.dtype == np.int32 else exponent)
    with np.errstate(over="ignore"):
        stored = (wide / factor).astype(np.float16)
    if not np.array_equal(stored.astype(np.float64) * factor, wide):
        return None
    return Packed(stored, 0.0 if factor == 1.0 else factor)


def _store(
    graph: Graph,
    values: Sequence[Value],
    form: Callable[[NDArray[np.generic]], Packed | None],
    stored: dict[tuple[int, ...], Value],
) -> int:
    """Put `values` into one constant where that saves bytes; returns how many there were. `stored` are the lists of
    sizes that the graph holds already."""
    values = [value for value in values if form(_numbers(value)) is not None]
    if not values:
        return 0
    packed = form(np.concatenate([_numbers(value) for value in values]))
    if packed is None:
        return 0
    before = sum(_numbers(value).nbytes + OWN for value in values)
    if packed.stored.nbytes + WORDS + PART * len(values) + LEAST > before:
        return 0
    first: Node = next(iter(graph))
    dtype = values[0].dtype
    assert dtype is not None

    def number(x: float) -> Value:
        return graph.constant(np.asarray(x, np.float32))

    constant = graph.constant(packed.stored, "packed")
    direct = not packed.factor and not packed.base
    constant = graph.add("Cast", [constant], {"to": int(dtype if direct else DType.FLOAT)}, before=first).output
    if packed.base:
        constant = graph.add("Pow", [number(packed.base), constant], before=first).output
    if packed.factor:
        constant = graph.add("Mul", [constant, number(packed.factor)], before=first).output
    if not direct and dtype is not DType.FLOAT:
        constant = graph.add("Cast", [constant], {"to": int(dtype)}, before=first).output
    sizes = tuple(value.constant.size for value in values)  # type: ignore[union-attr]
    if sizes not in stored:
        stored[sizes] = graph.constant(np.asarray(sizes, np.int64), "sizes")
    parts = graph.add(
        "Split", [constant, stored[sizes]],
        outputs=[value.name for value in values], types=[TensorType(dtype, (n,)) for n in sizes], before=first,
    ).outputs  # fmt: skip
    for value, part in zip(values, parts, strict=True):
        value.replace_uses(part)
    return len(values)
