"""What a saturating activation forgives: targets for a layer whose answer is read by a Relu or Clip alone.

With the teacher's answer a and the student's y, both before an activation that is constant below `low` and above
`high`, what matters is  E (act(a) - act(y))^2.  It is bounded from above, tightly wherever a lies between, by the
convex

    (a - y)^2  where low < a < high,     max(y - low, 0)^2  where a <= low,     max(high - y, 0)^2  where a >= high

and this is lowered by majorisation: given y, the target z = a inside, min(y, low) below, max(y, high) above makes a
plain least-squares problem that touches the bound at y, so no round can raise it. H does not change from round to
round, only the cross-covariance does, by E[(z - a)(x - mu)^T]. (After Zhang et al. 2015, "Accelerating very deep
convolutional networks", section 3.2, which relaxes the same problem with a penalty.)

The change of the cross-covariance is estimated from some of the walk's rows, kept for it on disk and read a batch at a
time. From few rows it can be learnt wrong, so every fifth batch is only looked at: easing goes on as long as the error
behind the activation falls there. Not kept, and the target then stays as it was: for grouped layers, where the answer
is read by anything else, and where fewer rows fit than four an input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Value
from ...ir.ops import clamp_bounds
from .target import Array, LayerTarget

Rows = NDArray[np.float32]
Made = TypeVar("Made")

ROWS = 32768
"""Rows that are enough for the change of the cross-covariance. With 8192 a ResNet-20 for CIFAR-10 that lost half of its
inner channels is right on 84.4 %, with 32768 on 85.0 %."""
SPACE = 512 << 20
"""Bytes of disk that the rows of layers which read the same input may take."""
ROUNDS = 2
"""Rounds of easing: the first brings most of the gain, and is enough where no more than a small share is lost."""
GAIN = 0.01
"""By how much of the error a round must gain to count."""
FIFTH = 5
"""Of so many batches one is held out."""


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
    bounds = clamp_bounds(node)
    return None if bounds is None else Range(*bounds)


Part = tuple[Rows, Rows, Rows | None]
"""Rows of one layer: its inputs (rows, d), the teacher's answers before the activation (rows, n), and what the student
adds to the layer's own output before it (rows, n), `None` where nothing is."""


@dataclass(frozen=True, slots=True)
class Saturation:
    """The range of the activation after one layer, and rows to see what it forgives there.

    `read` gives one of `count` batches; on a walk, only as long as the layer is the current one.
    """

    range: Range
    count: int
    read: Callable[[int], Part]

    def ease(self, target: LayerTarget, weight: Array, start: LayerTarget) -> LayerTarget:
        """The target that touches the bound at `weight` (1, n, d), which was fitted to `target`; `start` is the
        target before any easing."""
        mean = start.mean[0].astype(np.float32)
        cross, shift, count = np.zeros(start.weight.shape[1:]), np.zeros(start.weight.shape[1]), 0
        for x, a, y in self._answers(target, weight, held_out=False):
            change = self._nearest(a, y) - a
            cross += change.T @ (x - mean)
            shift += change.sum(axis=0, dtype=np.float64)
            count += len(x)
        eased = start.weight + start.repair(cross[None] / count)
        return replace(start, weight=eased, target_mean=start.target_mean + shift / count)

    def error(self, target: LayerTarget, weight: Array) -> float:
        """E (act(a) - act(y))^2 over the batches that easing does not learn from, for `weight` (1, n, d) with the bias
        that `target` gives it."""
        low, high = self.range.low, self.range.high
        total, count = 0.0, 0
        for _, a, y in self._answers(target, weight, held_out=True):
            total += float(np.sum(np.square(np.clip(a, low, high) - np.clip(y, low, high)), dtype=np.float64))
            count += a.size
        return total / max(count, 1)

    def _answers(self, target: LayerTarget, weight: Array, *, held_out: bool) -> Iterator[tuple[Rows, Rows, Rows]]:
        """Inputs, the teacher's answers and the student's, of the batches that are held out or of the others; of all
        where there are too few to hold any out."""
        w, bias = weight.reshape(target.weight.shape)[0].T.astype(np.float32), target.bias(weight).astype(np.float32)
        for number in range(self.count):
            if self.count < FIFTH or (number % FIFTH == FIFTH - 1) is held_out:
                x, a, other = self.read(number)
                yield x, a, x @ w + (bias if other is None else bias + other)

    def _nearest(self, a: Rows, y: Rows) -> Rows:
        """What the activation does not tell from the teacher's answers `a`, as near to the student's `y` as can be."""
        low, high = np.float32(self.range.low), np.float32(self.range.high)
        return np.where(a <= low, np.minimum(y, low), np.where(a >= high, np.maximum(y, high), a))


def eased(
    saturation: Saturation | None,
    start: LayerTarget,
    form: Made,
    dense: Callable[[Made], Array],
    refit: Callable[[LayerTarget, Made], Made],
    *,
    once: bool = False,
) -> tuple[Made, LayerTarget]:
    """`form`, fitted to `start`, refitted to what the activation asks for, with the target it was fitted to last.

    `dense` gives the weights (n, d) that a form stands for, `refit` fits the form anew, starting from what it is.
    `once` is enough where little is lost.
    """
    target = start
    if saturation is None:
        return form, target
    least = saturation.error(target, dense(form))
    for _ in range(1 if once else ROUNDS):
        eased = saturation.ease(target, dense(form), start)
        again = refit(eased, form)
        error = saturation.error(eased, dense(again))
        if error >= (1.0 - GAIN) * least:
            break
        form, target, least = again, eased, error
    return form, target


def rows_to_keep(width: int, answers: int) -> int:
    """How many rows of a group of layers, with `width` inputs and `answers` outputs in all, are worth keeping; 0 where
    too few would fit."""
    rows = min(ROWS, SPACE // (4 * (width + 2 * answers)))
    return rows if rows >= 4 * width else 0
