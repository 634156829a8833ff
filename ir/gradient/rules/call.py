"""What a gradient rule sees: one node, and the gradients that arrived at its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ...graph import Node, Value
from ..builder import Builder, CannotDifferentiate


@dataclass(frozen=True, slots=True)
class GradientCall:
    node: Node
    gradients: tuple[Value | None, ...]
    """One an output; `None` where nothing that is differentiated depends on it."""
    wanted: frozenset[int]
    """The inputs whose gradients somebody asks for: others need not be built."""

    @property
    def gradient(self) -> Value:
        """That of the first output. Raises `CannotDifferentiate` where a gradient arrives only elsewhere."""
        if self.gradients[0] is None:
            raise CannotDifferentiate("has a gradient at a further output, which has none")
        return self.gradients[0]

    @property
    def output(self) -> Value:
        return self.node.output

    def input(self, index: int) -> Value:
        """Raises `CannotDifferentiate` where it is absent."""
        value = self.node.input(index)
        if value is None:
            raise CannotDifferentiate(f"lacks input {index}")
        return value

    def wants(self, index: int) -> bool:
        return index in self.wanted

    def axis(self, rank: int, default: int = 0, name: str = "axis") -> int:
        axis = self.node.get_int(name, default)
        if not -rank <= axis < max(rank, 1):
            raise CannotDifferentiate(f"has axis {axis}, which is none of {rank}")
        return axis % rank if rank else 0

    def ints(self, build: Builder, name: str, index: int) -> tuple[int, ...] | None:
        """Numbers given as attribute `name` or as input `index`; `None` where absent. Raises `CannotDifferentiate`
        where they are computed."""
        if name in self.node.attributes:
            return self.node.get_ints(name)
        value = self.node.input(index)
        if value is None:
            return None
        numbers = build.numbers(value)
        if numbers is None:
            raise CannotDifferentiate(f"reads '{name}' from '{value.name}', which is computed as the model runs")
        return numbers


Rule: TypeAlias = Callable[[GradientCall, Builder], Sequence[Value | None]]
"""The gradients of a node's inputs, in order; `None`, or nothing at the end, where none flows."""
