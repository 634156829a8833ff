"""Sizes that a model leaves open, fixed before anything else is done to it: `input=1x3x224x224`, or `T=48` by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from ..errors import ModelError, SpecError, nearest

if TYPE_CHECKING:
    from ..ir.graph import Graph

Shapes: TypeAlias = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Fixed:
    """The sizes of some inputs, and those that some names stand for."""

    shapes: Shapes = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.shapes or self.dims)

    def apply(self, graph: Graph, *, strict: bool = True) -> None:
        """Fix the sizes in `graph`; where not `strict`, only those that it has. Raises `SpecError` and `ModelError`."""
        if not self:
            return
        from ..ir.shapes.infer import size_names

        inputs, names = {value.name for value in graph.inputs}, size_names(graph)
        shapes = {name: shape for name, shape in self.shapes.items() if strict or name in inputs}
        fix_shapes(graph, shapes, {name: size for name, size in self.dims.items() if strict or name in names})


def parse_dims(texts: Sequence[str]) -> dict[str, int]:
    """Sizes by name, of texts such as `T=48`. Raises `SpecError`."""
    sizes: dict[str, int] = {}
    for text in texts:
        name, _, size = text.rpartition("=")
        if not name or not size.isdecimal() or not int(size):
            raise SpecError(f"--dim takes NAME=SIZE, such as T=48, not '{text}'")
        if sizes.setdefault(name, int(size)) != int(size):
            raise SpecError(f"the size of '{name}' is given twice")
    return sizes


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Sizes by input, of texts such as `input=1x3x224x224`. Raises `SpecError`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        parts = sizes.lower().split("x") if sizes else []
        if not equals or not name or not all(part.isdecimal() and int(part) for part in parts):
            raise SpecError(f"a shape is written INPUT=1x3x224x224, not '{text}'")
        if name in shapes:
            raise SpecError(f"the shape of '{name}' is given twice")
        shapes[name] = tuple(map(int, parts))
    return shapes


def fix_shapes(graph: Graph, shapes: Shapes, named: Mapping[str, int] | None = None) -> None:
    """Give the inputs of `graph` the sizes of `shapes`, and the names in `named` theirs. What an open size has in
    common with other values it keeps.

    Raises `SpecError` for an input or a name that there is not, and `ModelError` for sizes that contradict the model's
    or each other.
    """
    from ..ir.shapes.infer import bind, infer, size_names
    from ..ir.text.literal import type_text
    from ..ir.types import TensorType

    names = size_names(graph)
    for name in named or {}:
        if name not in names:
            raise SpecError(f"no input of the model has a size called '{name}'.{nearest(name, names)}")
    inputs = {value.name: value for value in graph.inputs}
    dims: dict[str, int] = dict(named or {})
    whole: dict[str, TensorType] = {}
    for name, sizes in shapes.items():
        if name not in inputs:
            raise SpecError(f"the model has no input '{name}', whose shape is given.{nearest(name, inputs)}")
        value = inputs[name]
        kind = value.type
        if not isinstance(kind, TensorType):
            raise ModelError(f"input '{name}' is no tensor, and has no shape to fix")
        declared = kind.shape if kind.shape is not None else (None,) * len(sizes)
        mistake = f"input '{name}' is {type_text(kind)}, and cannot be {'x'.join(map(str, sizes))}"
        if len(declared) != len(sizes):
            raise ModelError(f"{mistake}: it has {len(declared)} axes")
        for axis, (dim, size) in enumerate(zip(declared, sizes, strict=True)):
            if isinstance(dim, str) and dims.setdefault(dim, size) != size:
                raise ModelError(f"{mistake}: '{dim}' would be {dims[dim]} and {size}")
            if isinstance(dim, int) and dim != size:
                raise ModelError(f"{mistake}: axis {axis} is {dim}")
        whole[name] = replace(kind, shape=tuple(sizes))
    bind(graph, dims)
    for name, kind in whole.items():  # sizes that have no name
        inputs[name].type = kind
    infer(graph)


def narrowed(graph: Graph, others: Sequence[Graph]) -> Graph:
    """`graph`, or a copy whose inputs have the sizes that those of the same name have in `others`, where it leaves them
    open: what one of them was built for with --shape, all are fed."""
    from ..ir.types import TensorType

    own = graph.clone() if others else graph
    for other in others:
        shapes = {value.name: value.shape for value in other.inputs}
        for value in own.inputs:
            sizes, kind = shapes.get(value.name), value.type
            if sizes is None or not isinstance(kind, TensorType):
                continue
            mine = kind.shape if kind.shape is not None else (None,) * len(sizes)
            if len(mine) == len(sizes):
                both = zip(mine, sizes, strict=True)
                value.type = replace(
                    kind, shape=tuple(s if isinstance(s, int) and not isinstance(m, int) else m for m, s in both)
                )
    return own
