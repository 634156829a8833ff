"""Learning rates over the steps of a training: warm-up, then a cosine or steps down."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule(ABC):
    """A rate that rises evenly over the first `warmup` steps to `peak`, then falls."""

    peak: float
    steps: int
    warmup: int = 0

    def rate(self, step: int) -> float:
        """The rate of a step, the first being 1."""
        if step <= self.warmup:
            return self.peak * step / self.warmup
        done = (step - self.warmup - 1) / max(self.steps - self.warmup - 1, 1)
        return self.peak * self.share(min(max(done, 0.0), 1.0))

    @abstractmethod
    def share(self, done: float) -> float:
        """The share of the peak when a part of what follows the warm-up is done."""


@dataclass(frozen=True, slots=True)
class Cosine(Schedule):
    """Half a cosine down to `floor` of the peak."""

    floor: float = 0.0

    def share(self, done: float) -> float:
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True, slots=True)
class Constant(Schedule):
    def share(self, done: float) -> float:
        return 1.0
