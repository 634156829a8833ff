"""Nodes in the place of one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ....ir.attributes import Attribute, AttributeValue
from ....ir.node import Node, Value
from ....ir.origin import Origin


class Writer:
    """Adds nodes in front of one that they stand for; they are made of it, and `by` a pass where one is named.

    `dtype` is that of its constants that are no whole numbers.
    """

    def __init__(self, node: Node, by: str = "", dtype: npt.DTypeLike = np.float32) -> None:
        assert node.graph is not None
        self.node, self.graph = node, node.graph
        self.dtype = np.dtype(dtype)
        self.origin = Origin.merge([node.origin], by=by) if by else node.origin

    def add(
        self, op: str, *inputs: Value | None, name: str = "", **attributes: AttributeValue | list[int] | Attribute
    ) -> Value:
        return self.graph.add(op, inputs, attributes, name=name, origin=self.origin, before=self.node).output

    def constant(self, array: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> Value:
        return self.graph.constant(np.array(array, dtype, order="C"))

    def floats(self, array: npt.ArrayLike) -> Value:
        return self.constant(array, self.dtype)

    def ints(self, *numbers: int) -> Value:
        """A vector of whole numbers: sizes, axes, bounds."""
        return self.constant(numbers)

    def reshape(self, value: Value, *sizes: int) -> Value:
        return self.add("Reshape", value, self.ints(*sizes))

    def put(self, *results: Value) -> bool:
        """Put `results` in the place of the node's outputs, and the node away; true, for rules that end so."""
        for old, new in zip(self.node.outputs, results):
            new.type = new.type or old.type
            old.replace_uses(new)
        self.graph.remove(self.node)
        return True
