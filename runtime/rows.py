"""Outputs whose order or length depends on the data: rows of teacher and student matched, not compared by place.

NonMaxSuppression, TopK, Compress, Unique and NonZero pick rows and order them by what they hold; one score that moves
by a thousandth changes the place of all after it, and the boxes are the same. So the outputs that such an operator
decides are taken together as rows, sample by sample, and every row of the teacher is given the row of the student that
is nearest:

- where one of the outputs holds boxes (rows of four), the row of equal integers (the class) whose box overlaps most, by
  intersection over union of at least `OVERLAP`, with corners or centre and size read by what fits the boxes;
- where there are integers alone, or integers beside numbers, a row of equal integers;
- else the nearest row, if it is nearer than `NEAR` of the rows' own spread.

The share is 2 matched / (rows of teacher + rows of student).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..ir.graph import Graph, Node
from ..ir.ops import ARITHMETIC, MOVES, SIZES

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

SELECTING = frozenset({"NonMaxSuppression", "TopK", "Compress", "Unique", "NonZero"})
OVERLAP = 0.5
NEAR = 0.5


_CARRYING = (MOVES | ARITHMETIC - {"Pow"}) | {
    "Cast", "Clip", "Exp", "Expand", "GatherElements", "GatherND", "Max", "Min", "Mod", "Pad", "Round", "Sigmoid",
    "Where",
}  # fmt: skip
"""What leaves rows as they were picked. After a layer, a reduction or a scatter their order tells no more."""


def selected(graph: Graph) -> tuple[int, ...]:
    """The outputs, by number, whose rows an operator in `SELECTING` picks or orders by what the model computes."""
    _, picked = picking(graph)
    ends = [output.value.producer for output in graph.outputs]
    return tuple(number for number, maker in enumerate(ends) if maker is not None and picked.get(maker, False))


def standing(graph: Graph) -> frozenset[int]:
    """The outputs, by number, whose rows stand upright: NonZero gives what it finds as the columns of a matrix."""
    return frozenset(number for number, maker in _makers(graph) if maker.op == "NonZero")


def ranked(graph: Graph) -> frozenset[int]:
    """The outputs, by number, whose last axis a TopK ranks: four of them are no box."""
    numbers = set()
    for number, maker in _makers(graph):
        shape = maker.outputs[0].shape or ()
        if maker.op == "TopK" and maker.get_int("axis", -1) in (-1, len(shape) - 1):
            numbers.add(number)
    return frozenset(numbers)


def _makers(graph: Graph) -> Iterator[tuple[int, Node]]:
    """The nodes that make the outputs, but for those that hand on what they read."""
    for number, output in enumerate(graph.outputs):
        maker = output.value.producer
        while maker is not None and maker.op in ("Identity", "Cast") and maker.inputs[0] is not None:
            maker = maker.inputs[0].producer
        if maker is not None:
            yield number, maker


def picking(graph: Graph) -> tuple[dict[Node, bool], dict[Node, bool]]:
    """Of each node, whether what it makes depends on more than the sizes of inputs, and whether it picks rows or
    carries such as were picked."""
    data: dict[Node, bool] = {}
    picked: dict[Node, bool] = {}
    for node in graph:
        values = [value for value in node.inputs if value is not None]
        makers = [value.producer for value in values if value.producer is not None]
        data[node] = node.op not in SIZES and (
            any(value.is_input for value in values) or any(data.get(maker, False) for maker in makers)
        )
        selects = node.op in SELECTING and not node.domain and data[node]
        picked[node] = selects or (node.op in _CARRYING and any(picked.get(maker, False) for maker in makers))
    return data, picked


@dataclass(slots=True)
class Rows:
    """Rows counted over samples: of the teacher, of the student, and matched, of outputs that are taken together; those
    numbered in `upright` have them as columns, and those in `flat` as single numbers."""

    upright: frozenset[int] = frozenset()
    flat: frozenset[int] = frozenset()
    teacher: int = 0
    student: int = 0
    matched: int = 0
    boxes: bool = field(default=False)

    def add(self, teacher: Sequence[Array], student: Sequence[Array]) -> None:
        """One sample's outputs from both. Those with other numbers of rows than most are matched by themselves."""
        teacher, student = ([self._rows(i, a) for i, a in enumerate(arrays)] for arrays in (teacher, student))
        for which in _together(teacher):
            t, s = ([arrays[i] for i in which] for arrays in (teacher, student))
            if any(a.shape[1:] != b.shape[1:] for a, b in zip(t, s, strict=True)) or len({len(b) for b in s}) > 1:
                s = [b[:0].reshape(0, *a.shape[1:]) for a, b in zip(t, s, strict=True)]
            t, s = _unpadded(t), _unpadded(s)
            self.teacher += len(t[0])
            self.student += len(s[0])
            if len(t[0]) and len(s[0]):
                self.matched += self._match(t, s)

    def _rows(self, number: int, array: Array) -> Array:
        """Rows first: the axis of a single sample before them is dropped."""
        array = np.asarray(array)
        if number in self.upright and array.ndim == 2:
            return array.T
        while array.ndim > 1 and array.shape[0] == 1 and (number in self.flat or array.shape[1:] != (4,)):
            array = array[0]
        return array.reshape(1) if array.ndim == 0 else array

    @property
    def share(self) -> float | None:
        """`None` where neither found anything."""
        rows = self.teacher + self.student
        return 2 * self.matched / rows if rows else None

    def _match(self, t: Sequence[Array], s: Sequence[Array]) -> int:
        integers = [i for i, a in enumerate(t) if a.dtype.kind in "iub"]
        floats = [i for i, a in enumerate(t) if a.dtype.kind == "f"]
        equal = np.ones((len(t[0]), len(s[0])), bool)
        for i in integers:
            equal &= (t[i].reshape(len(t[i]), 1, -1) == s[i].reshape(1, len(s[i]), -1)).all(2)
        box = next((i for i in floats if t[i].shape[1:] == (4,)), None)
        if box is not None:
            self.boxes = True
            corners = bool((t[box][:, 2:] >= t[box][:, :2]).all())  # type: ignore[operator]
            near = _overlaps(*(_corners(np.asarray(a[box], np.float64), corners) for a in (t, s)))
            near[(t[box][:, None] == s[box][None]).all(2)] = 1.0  # one without an area does not overlap even itself
            return _pairs(np.where(equal, near, 0.0), OVERLAP)
        if integers or not floats:
            return _pairs(equal.astype(np.float64), 1.0)
        first, second = (np.concatenate([np.asarray(a[i], np.float64).reshape(len(a[i]), -1) for i in floats], 1)
                         for a in (t, s))  # fmt: skip
        spread = np.sqrt(np.square(first - first.mean(0)).sum(1).mean()) or float(np.abs(first).max()) or 1.0
        apart = np.sqrt(np.square(first[:, None] - second[None]).sum(2))
        return _pairs(1.0 - apart / spread, 1.0 - NEAR)


def _together(arrays: Sequence[Array]) -> Iterator[list[int]]:
    """The numbers of the arrays that have as many rows as each other."""
    for count in dict.fromkeys(len(a) for a in arrays):
        yield [i for i, a in enumerate(arrays) if len(a) == count]


def _unpadded(arrays: list[Array]) -> list[Array]:
    """Without the rows that are zero in every array of numbers, with which outputs of a fixed size are filled."""
    numbers = [a.reshape(len(a), -1) for a in arrays if a.dtype.kind == "f" and a.size]
    if not numbers:
        return arrays
    used = np.concatenate(numbers, axis=1).any(axis=1)
    return [a[used] for a in arrays]


def _corners(boxes: Floats, corners: bool) -> Floats:
    if corners:
        return boxes
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def _overlaps(one: Floats, other: Floats) -> Floats:
    """Intersection over union of every two boxes."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = np.maximum(high - low, 0.0).prod(2)
    first, second = (np.maximum(b[:, 2:] - b[:, :2], 0.0).prod(1) for b in (one, other))
    return np.asarray(both / np.maximum(first[:, None] + second[None] - both, 1e-12))


def _pairs(near: Floats, least: float) -> int:
    """How many rows find a partner of their own at least so near, the nearest pairs first."""
    first, second = np.nonzero(near >= least)
    free = [np.ones(n, bool) for n in near.shape]
    count = 0
    for at in np.argsort(-near[first, second], kind="stable"):
        i, j = first[at], second[at]
        if free[0][i] and free[1][j]:
            free[0][i] = free[1][j] = False
            count += 1
    return count
