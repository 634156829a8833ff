"""What a saturating activation forgives: targets for a layer whose answer is read by a Relu or Clip alone.

With the teacher's answer a and the student's y, both before an activation that is constant below `low` and above
`high`, what matters is  E (act(a) - act(y))^2.  It is bounded from above, tightly wherever a lies between, by the
convex

    (a - y)^2  where low < a < high,     max(y - low, 0)^2  where a <= low,     max(high - y, 0)^2  where a >= high

and this is lowered by majorisation: given y, the target z = a inside, min(y, low) below, max(y, high) above makes a
plain least-squares problem that touches the bound at y, so no round can raise it. H does not change from round to
round, only the cross-covariance does, by E[(z - a)(x - mu)^T]. (After Zhang et al. 2015, "Accelerating very deep
convolutional networks", section 3.2, which relaxes the same problem with a penalty.)

The change of the cross-covariance is estimated from some of the walk's rows, kept for it. Not kept, and the target
then stays as it was: for grouped layers, where the answer is read by anything else, and where fewer rows fit into
memory than four an input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Node, Value
from .regression import Array, Target

Rows = NDArray[np.float32]
Made = TypeVar("Made")

ROWS = 8192
"""Rows that are enough for the change of the cross-covariance."""
MEMORY = 128 << 20
"""Bytes that the rows of layers which read the same input may take."""
ROUNDS = 2
"""Rounds of easing: the first brings most of the gain."""


@dataclass(frozen=True, slots=True)
class Range:
    """Where an activation is not constant: between `low` and `high`."""

    low: float
    high: float


def range_after(value: Value) -> Range | None:
    """The range of the activation that alone reads `value`; `None` where another node does, or none saturates."""
    if len(value.uses) != 1 or not value.users:
        return None
    node = value.users[0]
    if node.domain:
        return None
    if node.op == "Relu":
        return Range(0.0, np.inf)
    if node.op != "Clip":
        return None
    low, high = _bound(node, 1, "min", -np.inf), _bound(node, 2, "max", np.inf)
    return None if low is None or high is None else Range(low, high)


def _bound(node: Node, index: int, name: str, default: float) -> float | None:
    """A bound of a Clip, from its attribute (before opset 11) or its input; `None` where it is computed."""
    value = node.input(index)
    if value is None:
        return node.get_float(name, default)
    if value.constant is None or value.constant.size != 1:
        return None
    return float(np.asarray(value.numpy()).reshape(-1)[0])


@dataclass(frozen=True, slots=True)
class Saturation:
    """Rows of one layer, and what the activation after it forgives there.

    `inputs` (rows, d), `teacher` (rows, n) the teacher's answers before the activation, `other` (rows, n) what the
    student adds to the layer's own output before it (zero where nothing is).
    """

    range: Range
    inputs: Rows
    teacher: Rows
    other: Rows

    def ease(self, target: Target, weight: Array, start: Target) -> Target:
        """The target that touches the bound at `weight` (1, n, d), which was fitted to `target`; `start` is the
        target before any easing."""
        a, (low, high) = self.teacher, (self.range.low, self.range.high)
        y = self.inputs @ weight[0].T.astype(np.float32) + (target.bias(weight).astype(np.float32) + self.other)
        z = np.where(a <= low, np.minimum(y, np.float32(low)), np.where(a >= high, np.maximum(y, np.float32(high)), a))
        change = z - a
        cross = (change.T @ (self.inputs - start.mean[0].astype(np.float32))).astype(np.float64) / len(a)
        shift = change.mean(axis=0, dtype=np.float64)
        eased = start.weight + start.repair(cross[None])
        return replace(start, weight=eased, target_mean=start.target_mean + shift)


def eased(
    saturation: Saturation | None,
    start: Target,
    made: Made,
    dense: Callable[[Made], Array],
    refit: Callable[[Target, Made], Made],
) -> tuple[Made, Target]:
    """`made`, fitted to `start`, refitted to what the activation asks for, with the target it was fitted to last.

    `dense` gives the weights (n, d) that a form stands for, `refit` fits the form anew, starting from what it is.
    """
    target = start
    for _ in range(ROUNDS if saturation is not None else 0):
        assert saturation is not None
        target = saturation.ease(target, dense(made).reshape(start.weight.shape), start)
        made = refit(target, made)
    return made, target


def rows_to_keep(width: int, answers: int) -> int:
    """How many rows of a group of layers, with `width` inputs and `answers` outputs in all, are worth keeping; 0 where
    too few would fit."""
    rows = min(ROWS, MEMORY // (4 * (width + 2 * answers)))
    return rows if rows >= 4 * width else 0
