"""Two sizes that a file names alike, though they differ.

Exporters give one name to sizes that have nothing in common (`DynamicDimension`, `unk__1`, `s0` for height and width).
What samples contradict is told apart, before any pass takes the one for the other.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from ..ir.graph import Graph, Output, Value
from ..ir.shapes.infer import infer
from ..ir.shapes.symbols import Sym, symbol
from ..ir.types import Dim, TensorType
from ..runtime.samples import Samples

_LOOKED = 16
"""Samples that are looked at."""


def tell_apart(graph: Graph, samples: Samples) -> list[str]:
    """Give sizes of the inputs of `graph` that have one name, and differ in a sample, names of their own, and infer all
    that follows anew; returns a note for each such name.

    Inputs that always have the same size in common keep one name; the first keeps the old one.
    """
    seen: dict[str, dict[tuple[int, ...], list[tuple[Value, int]]]] = {}
    feeds = list(itertools.islice(samples.batches(1), _LOOKED))
    for value in graph.inputs:
        if value.shape is None or value.name not in feeds[0]:
            continue
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, str):
                sizes = tuple(one[value.name].shape[axis] for one in feeds)
                seen.setdefault(dim, {}).setdefault(sizes, []).append((value, axis))
    names = {dim for value in graph.inputs for dim in value.shape or () if isinstance(dim, str)}
    notes = []
    for name, groups in seen.items():
        if len(groups) < 2:
            continue
        _forget(graph, name)
        for number, places in enumerate(groups.values()):
            own = name if not number else _free(name, names)
            names.add(own)
            for value, axis in places:
                assert isinstance(value.type, TensorType)
                assert value.type.shape is not None
                value.type = replace(
                    value.type, shape=tuple(own if i == axis else d for i, d in enumerate(value.type.shape))
                )
        first = "; ".join(
            f"{sizes[0]} in {' and '.join(f'axis {axis} of {value.name!r}' for value, axis in places)}"
            for sizes, places in groups.items()
        )
        notes.append(f"the sizes that the model names '{name}' are not one: {first}")
    if notes:
        infer(graph, fresh=True)
    return notes


def _free(name: str, taken: set[str]) -> str:
    return next(one for i in itertools.count(2) if (one := f"{name}_{i}") not in taken)


def _forget(graph: Graph, name: str) -> None:
    """Leave open what was said in terms of `name`, but for the inputs."""
    for inner in graph.graphs():
        places: list[Value | Output] = [*inner.outputs, *(v for node in inner for v in node.outputs)]
        for place in places:
            kind = place.type
            if isinstance(kind, TensorType) and kind.shape is not None:
                place.type = replace(kind, shape=tuple(None if _says(dim, name) else dim for dim in kind.shape))


def _says(dim: Dim, name: str) -> bool:
    size = symbol(dim) if isinstance(dim, str) else dim
    return dim == name or (isinstance(size, Sym) and name in size.atoms)
