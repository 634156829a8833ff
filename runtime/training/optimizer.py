"""Optimizers over flat buffers: a few lines on all parameters at once, in place.

AdamW: Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019. SGD: with momentum, Nesterov's or plain.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Optimizer(ABC):
    """Moves parameters against their gradients. `state` holds its moments, each a buffer like the parameters."""

    buffers: int
    """How many buffers of the size of the parameters `state` has."""

    def state(self, size: int) -> list[Floats]:
        return [np.zeros(size, np.float32) for _ in range(self.buffers)]

    @abstractmethod
    def move(self, parameters: Floats, gradient: Floats, state: list[Floats], step: int, rate: float) -> None:
        """One step, the first being 1. `gradient` may be overwritten."""


@dataclass(frozen=True, slots=True, eq=False)
class AdamW(Optimizer):
    """`scale`, a buffer like the parameters, multiplies the rate of each."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.0
    scale: Floats | None = None
    buffers = 2

    def move(self, parameters: Floats, gradient: Floats, state: list[Floats], step: int, rate: float) -> None:
        first, second = state
        if self.decay:
            parameters *= np.float32(1 - rate * self.decay)
        first *= np.float32(self.beta1)
        first += np.float32(1 - self.beta1) * gradient
        np.multiply(gradient, gradient, out=gradient)
        second *= np.float32(self.beta2)
        gradient *= np.float32(1 - self.beta2)
        second += gradient
        # rate * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
        np.sqrt(second, out=gradient)
        gradient *= np.float32(1 / np.sqrt(1 - self.beta2**step))
        gradient += np.float32(self.epsilon)
        np.divide(first, gradient, out=gradient)
        gradient *= np.float32(rate / (1 - self.beta1**step))
        if self.scale is not None:
            gradient *= self.scale
        parameters -= gradient


@dataclass(frozen=True, slots=True)
class SGD(Optimizer):
    momentum: float = 0.9
    nesterov: bool = False
    decay: float = 0.0
    buffers = 1

    def move(self, parameters: Floats, gradient: Floats, state: list[Floats], step: int, rate: float) -> None:
        (velocity,) = state
        if self.decay:
            gradient += np.float32(self.decay) * parameters
        velocity *= np.float32(self.momentum)
        velocity += gradient
        if self.nesterov:
            gradient += np.float32(self.momentum) * velocity
        else:
            gradient[...] = velocity
        gradient *= np.float32(rate)
        parameters -= gradient


def clip_by_norm(gradient: Floats, most: float) -> float:
    """Scale `gradient` in place to a Euclidean norm of at most `most`; returns the norm that it had."""
    norm = float(np.sqrt(np.dot(gradient, gradient)))
    if norm > most:
        gradient *= np.float32(most / norm)
    return norm
