"""Sizes that the model leaves open: whether others follow from them, and so are known when it runs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...ir.graph import Graph
from ...ir.node import Value
from ...ir.shapes.infer import Size, Sym, analyse
from ...ir.shapes.symbols import symbol


def leaves_open(graph: Graph | None) -> bool:
    """Whether an input of the model has a size that is no number."""
    return graph is not None and any(value.static_shape is None for value in graph.root.inputs)


def follows(value: Value) -> bool:
    """Whether the sizes of a value, whose type is inferred, follow from those of the model's inputs."""
    graph = value.graph
    if graph is None or value.shape is None:
        return False
    symbols = [symbol(s) for one in graph.root.inputs for s in one.shape or () if isinstance(s, str)]
    named = [symbol(size) if isinstance(size, str) else size for size in value.shape if size is not None]
    if len(named) == len(value.shape) and _made_of(named, symbols):
        return True
    # What has no name is told apart by a walk over the whole graph alone; an output may be declared with a name.
    inference = analyse(graph.root, fresh=True, declared=False)
    sizes = inference.shape(value)
    return sizes is not None and _made_of(sizes, [s for one in graph.root.inputs for s in inference.shape(one) or ()])


def _made_of(sizes: Iterable[Size], open_sizes: Iterable[Size]) -> bool:
    atoms = {atom for size in open_sizes if isinstance(size, Sym) for atom in size.atoms}
    names = "|".join(re.escape(atom) for atom in sorted(atoms, key=len, reverse=True))
    # A derived atom is the text of an expression, such as `floor((T - 1)/2)`.
    text = re.compile(rf"(?:(?<!\w)(?:{names}|\d+)(?!\w)|(?:floor|min|max)(?=\()|[\s()+\-*/,])+") if names else None
    return all(isinstance(size, int) or (text is not None and bool(text.fullmatch(str(size)))) for size in sizes)
