"""Which channels live and die together: labels that flow through the graph.

Every axis of every value that can lose elements carries an array of labels, one an element. A weight that makes
channels gives out fresh labels; elementwise operators pass them on and unify those that meet; a weight that reads
channels is labelled by what it reads. Two elements of equal label, or of labels unified anywhere, can only be removed
together, so removing a whole class of labels, everywhere, leaves a graph that fits. An axis without labels cannot
change; a class that somebody depends on (a graph output, an operator that is not understood) is pinned, with the
reason.

One pass over the nodes, whose rules (`channel_rules`) each say one small thing. What an operator stores about sizes
(the shape of a Reshape, the parts of a Split, the group of a convolution) is mended by a `fix` recorded by its rule.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..graph import Graph, Node, Value
from ..shapes.infer import Inference, analyse
from ..shapes.symbols import Size

Labels: TypeAlias = npt.NDArray[np.int64]
Axes: TypeAlias = "list[Labels | None]"
Mask: TypeAlias = Callable[[Labels], npt.NDArray[np.bool_]]
"""Which elements of a labelled axis stay."""
Fix: TypeAlias = Callable[[Mask], None]
Rule: TypeAlias = "Callable[[Flow, Node], None]"

FIXED = 0
"""The label of an element that can never go."""


class Role(enum.Enum):
    """How a constant takes part: its axis makes the channels, is summed over, or goes along with them."""

    PRODUCER = "producer"
    CONSUMER = "consumer"
    PASSIVE = "passive"


class CannotRemove(Exception):
    """Raised by a rule: this node holds on to every channel it reads, for this reason."""


class Flow:
    """The labels of a graph. `rules` maps operators of the ONNX domain to functions of a flow and a node."""

    def __init__(self, graph: Graph, rules: Mapping[str, Rule]) -> None:
        self.graph = graph
        self.inference: Inference = analyse(graph)
        self.arrays: dict[Value, Axes] = {}
        self.ties: dict[tuple[Value, int], dict[tuple[Node, int], Role]] = {}
        self.edges: list[tuple[Labels, Labels]] = []
        self.pins: list[tuple[Labels, str]] = [(np.zeros(1, np.int64), "tied to channels that cannot go")]
        self.fixes: list[Fix] = []
        self.count = 1
        for node in graph:
            self._visit(node, rules)
        for output in graph.outputs:
            self.pin_all(output.value, f"graph output '{output.name}'")
        self._pin_stray_uses()

    # -- what rules ask

    def shape(self, value: Value) -> tuple[Size, ...]:
        """Raises `CannotRemove` where not even the rank is known."""
        inferred = self.inference.shape(value)
        if inferred is None:
            raise CannotRemove(f"the rank of '{value.name}' is not known")
        return inferred

    def labels(self, value: Value) -> Axes:
        """The labels of every axis. Raises `CannotRemove` where the rank is not known."""
        labels = self.arrays.get(value)
        return [None] * len(self.shape(value)) if labels is None else list(labels)

    def ints(self, value: Value | None) -> list[int] | None:
        """The elements of an integer tensor that is known beforehand."""
        if value is None:
            return None
        if value.constant is not None:
            return [int(i) for i in np.asarray(value.numpy()).reshape(-1)]
        elements = self.inference.elements.get(value) if value.producer is not None else None
        if elements is None:
            return None
        whole = [e for e in elements if isinstance(e, int)]
        return whole if len(whole) == len(elements) else None

    # -- what rules say

    def give(self, value: Value, labels: Sequence[Labels | None]) -> None:
        if any(array is not None for array in labels):
            self.arrays[value] = list(labels)

    def fresh(self, count: int) -> Labels:
        self.count += count
        return np.arange(self.count - count, self.count, dtype=np.int64)

    def unify(self, a: Labels, b: Labels) -> None:
        """Tie `a` and `b` element by element."""
        if a is not b:
            self.edges.append((a, b))

    def pin(self, labels: Labels | None, reason: str) -> None:
        if labels is not None and labels.size:
            self.pins.append((labels, reason))

    def pin_all(self, value: Value, reason: str) -> None:
        for labels in self.arrays.get(value, ()):
            self.pin(labels, reason)

    def tie(self, node: Node, index: int, axis: int, labels: Labels, role: Role) -> None:
        """Input `index` of `node` has `labels` along `axis` (from the end, where negative)."""
        value = node.inputs[index]
        if value is None:
            return
        shape = self.shape(value)
        axis %= len(shape)
        if shape[axis] != len(labels):
            raise CannotRemove(f"input '{value.name}' has {shape[axis]} elements where {len(labels)} channels are")
        axes = self.arrays.setdefault(value, [None] * len(shape))
        present = axes[axis]
        if value.constant is not None:
            self.ties.setdefault((value, axis), {})[node, index] = role
            if present is None:
                axes[axis] = labels
                return
        if present is None:
            raise CannotRemove(f"'{value.name}', which it reads beside, cannot shrink")
        self.unify(present, labels)

    def hold(self, node: Node, labels: Iterable[Labels | None]) -> None:
        """Pin axes along which `node` works."""
        for array in labels:
            self.pin(array, f"{node.op} '{node.label}': it works across channels")

    # -- running

    def _visit(self, node: Node, rules: Mapping[str, Rule]) -> None:
        rule = rules.get(node.op) if not node.domain and not node.bodies else None
        what = f"{node.op} '{node.label}'"
        try:
            if rule is None:
                raise CannotRemove("what it does with channels is not known")
            rule(self, node)
        except CannotRemove as reason:
            for value in (*(v for v in node.inputs if v is not None), *node.captures):
                self.pin_all(value, f"{what}: {reason}")
            for value in node.outputs:
                self.arrays.pop(value, None)

    def _pin_stray_uses(self) -> None:
        """Every reader of a labelled constant must have labelled that axis itself."""
        for (value, axis), readers in self.ties.items():
            for use in value.uses:
                if use not in readers and isinstance(use[0], Node):
                    reason = f"weight '{value.name}' is also read by {use[0].op} '{use[0].name}'"
                    self.pin(self.arrays[value][axis], reason)

    # -- results

    def classes(self) -> tuple[Labels, dict[int, str]]:
        """The class of every label, and why a pinned class is."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        empty = [np.zeros(0, np.int64)]
        left = np.concatenate([a.reshape(-1) for a, _ in self.edges] or empty)
        right = np.concatenate([b.reshape(-1) for _, b in self.edges] or empty)
        edges = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(self.count, self.count))
        classes = np.asarray(connected_components(edges, directed=False)[1], np.int64)
        reasons: dict[int, str] = {}
        for labels, reason in reversed(self.pins):
            for one in np.unique(classes[labels]):
                reasons[int(one)] = reason
        return classes, reasons


def operand(node: Node, index: int = 0) -> Value:
    """Input `index`. Raises `CannotRemove` where it is absent."""
    value = node.input(index)
    if value is None:
        raise CannotRemove(f"input {index} is absent")
    return value


def number(size: Size) -> int:
    """A size that is a number. Raises `CannotRemove` where it is symbolic."""
    if not isinstance(size, int):
        raise CannotRemove("its sizes are not known well enough")
    return size


def unchanged(mask: Mask, labels: Axes) -> bool:
    """Whether every element of these axes stays."""
    return all(bool(mask(array).all()) for array in labels if array is not None)


def write(node: Node, index: int, elements: object, like: Value | None = None) -> None:
    """Give `node` other constant integers as input `index`, unless they are the same."""
    old = node.input(index)
    like = old if like is None else like
    dtype = np.int64 if like is None or like.dtype is None else like.dtype.numpy
    array = np.asarray(elements, dtype)
    if old is not None and old.constant is not None and np.array_equal(np.asarray(old.numpy()), array):
        return
    assert node.graph is not None
    node.set_input(index, node.graph.constant(array, "" if old is None else old.name))


def positions(axes: Iterable[int], rank: int) -> list[int]:
    """Axes counted from the front."""
    return [axis % rank if rank else 0 for axis in axes]
