"""AdamW over flat buffers: a few lines on all parameters at once, in place.

Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class AdamW:
    """Moves parameters against their gradients. `scale`, a buffer like the parameters, multiplies the rate of each."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.0
    scale: Floats | None = None

    @staticmethod
    def state(size: int) -> list[Floats]:
        """The moments, each a buffer like the parameters."""
        return [np.zeros(size, np.float32) for _ in range(2)]

    def move(self, parameters: Floats, gradient: Floats, state: list[Floats], step: int, rate: float) -> None:
        """One step, the first being 1. `gradient` is overwritten."""
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


def clip_by_norm(gradient: Floats, most: float) -> float:
    """Scale `gradient` in place to a Euclidean norm of at most `most`; returns the norm that it had."""
    norm = float(np.sqrt(np.dot(gradient, gradient)))
    if norm > most:
        gradient *= np.float32(most / norm)
    return norm
