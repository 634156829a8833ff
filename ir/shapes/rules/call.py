"""What a shape rule sees: one node, and what is known of the values it reads.

A `Fact` is what is known of one value. Elements are kept for small tensors only, as an array of Python objects (`int`,
`float`, `bool` or `Sym`), so that shape arithmetic is ordinary numpy on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ....errors import ModelError
from ...attributes import AttributeKind
from ...node import Node
from ...tensor import Tensor
from ...types import DType, Type
from ..symbols import Size, Sym, atom, maximum

Elements: TypeAlias = "npt.NDArray[np.object_]"
Sizes: TypeAlias = "tuple[Size, ...]"

LIMIT = 1024
"""The most elements of a tensor that are followed through shape arithmetic."""

MOST_AXES = 64
"""The most axes of a tensor: numpy's, and more than runtimes know."""


@dataclass(slots=True)
class Fact:
    """What is known of one value; UNDEFINED and `None` mean unknown. `other` is the type of what is no tensor."""

    dtype: DType = DType.UNDEFINED
    shape: Sizes | None = None
    data: Elements | None = None
    other: Type | None = None
    tensor: Tensor | None = None

    @property
    def elements(self) -> Elements | None:
        if self.data is None and self.tensor is not None and self.tensor.size <= LIMIT:
            if self.dtype not in _FOLLOWED:
                return None
            self.data = np.array(self.tensor.numpy().tolist(), dtype=object).reshape(self.tensor.shape)
        return self.data

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)


_FOLLOWED = frozenset((DType.INT64, DType.INT32, DType.BOOL, DType.FLOAT, DType.DOUBLE))
INTEGRAL = frozenset((DType.INT64, DType.INT32, DType.BOOL))


class Cannot(Exception):
    """Raised by a rule that cannot say anything about this node."""


@dataclass(slots=True)
class Call:
    """One node, the facts of its inputs, and a source of fresh unknowns."""

    node: Node
    facts: list[Fact | None]
    opset: int
    version: int
    """The version of the node's own operator set; `opset` is that of the default one."""
    counter: Iterator[int]
    dims: Mapping[str, int]

    def fact(self, index: int) -> Fact:
        """Input `index`. Raises `Cannot` where it is absent."""
        fact = self.facts[index] if index < len(self.facts) else None
        if fact is None:
            raise Cannot
        return fact

    def has(self, index: int) -> bool:
        return index < len(self.facts) and self.facts[index] is not None

    def shape(self, index: int) -> Sizes:
        """The shape of input `index`. Raises `Cannot` where its rank is unknown."""
        shape = self.fact(index).shape
        if shape is None:
            raise Cannot
        return shape

    def data(self, index: int) -> Elements | None:
        return self.fact(index).elements if self.has(index) else None

    def ints(self, name: str, index: int) -> tuple[Size, ...] | None:
        """A list given as attribute `name` or as input `index`, depending on the opset; `None` where unknown."""
        attribute = self.node.attributes.get(name)
        if attribute is not None and attribute.kind is AttributeKind.INTS:
            return self.node.get_ints(name)
        if attribute is not None:
            return (self.node.get_int(name),)
        data = self.data(index)
        return None if data is None else tuple(data.reshape(-1).tolist())

    def numbers(self, name: str, index: int) -> tuple[int, ...] | None:
        """Like `ints`, where all of them are numbers."""
        sizes = self.ints(name, index)
        if sizes is None or not all(isinstance(s, int) for s in sizes):
            return None
        return tuple(s for s in sizes if isinstance(s, int))

    def states(self, name: str, index: int) -> bool:
        return name in self.node.attributes or self.has(index)

    def axis(self, default: int, rank: int, name: str = "axis") -> int:
        return self.normalise(self.node.get_int(name, default), rank)

    def normalise(self, axis: int, rank: int) -> int:
        if not -rank <= axis < rank:
            raise self.error(f"axis {axis} is out of range for rank {rank}")
        return axis % rank

    def fresh(self) -> Sym:
        """A size of which nothing is known."""
        return atom(f"?{next(self.counter)}")

    def unknown(self, rank: int) -> Sizes:
        """Sizes of which nothing is known. Raises `ModelError` for a rank that no runtime has."""
        if rank > MOST_AXES:
            raise self.error(f"a tensor of {rank} axes is none that a runtime takes")
        return tuple(self.fresh() for _ in range(rank))

    def items(self, fact: Fact) -> Elements | None:
        """The elements of a small integer tensor, each unknown one a fresh symbol; `None` where not even how many."""
        if fact.elements is not None:
            return fact.elements
        if fact.dtype not in INTEGRAL or fact.shape is None or not all(isinstance(s, int) for s in fact.shape):
            return None
        shape = tuple(s for s in fact.shape if isinstance(s, int))
        if math.prod(shape) > 64:
            return None
        data = np.empty(shape, dtype=object)
        for index in np.ndindex(shape):
            data[index] = atom(f"?x{next(self.counter)}")
        return data

    def broadcast(self, shapes: Sequence[Sizes]) -> Sizes:
        """The shape of an elementwise operation (ONNX multidirectional broadcasting)."""
        first = shapes[0]
        if all(shape == first for shape in shapes):
            return first
        rank = max(len(shape) for shape in shapes)
        result: list[Size] = []
        for axis in range(rank):
            there = [shape[axis - rank + len(shape)] for shape in shapes if axis - rank + len(shape) >= 0]
            sizes = [size for size in there if size != 1]
            numbers = {size for size in sizes if isinstance(size, int)}
            if len(numbers) > 1:
                raise self.error(f"shapes {', '.join(map(show, shapes))} do not broadcast")
            # Symbols that differ are equal when the model runs, or 1: a number decides, else the largest.
            result.append(numbers.pop() if numbers else reduce(maximum, sizes) if sizes else 1)
        return tuple(result)

    def error(self, message: str) -> ModelError:
        node = self.node
        graph = node.graph.name if node.graph is not None else ""
        output = node.outputs[0].name if node.outputs else ""
        return ModelError(f"graph {graph!r}: node {node.name!r} ({node.op}), which makes {output!r}: {message}")


def show(shape: Sizes) -> str:
    return "(" + ", ".join("?" if isinstance(s, Sym) and not s.named else str(s) for s in shape) + ")"


Rule: TypeAlias = Callable[[Call], "list[Fact]"]
