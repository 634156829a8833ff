"""Structured optimal brain surgeon: in what order the channels of a layer's input can go, and what each removal costs.

Channel k is the block S of `width` columns of every consumer of the tensor. Removing it and letting the other columns
make up for it costs, for one consumer,  tr(W_S [H^-1]_SS^-1 W_S^T);  with several consumers the costs relative to each
consumer's own energy add up. After each removal

    W -= W_S [H^-1]_SS^-1 H^-1_S,:        H^-1 -= H^-1_:,S [H^-1]_SS^-1 H^-1_S,:

so the next score already knows what was compensated (ZipLM, Kurtic et al. 2023, eq. 3 and 4; ALGORITHMS 1a.2). The
order and the error after each step are recorded once: every number of kept channels is then free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Consumer:
    """A layer that reads the channels: `weight` (n, channels * width) in the metric `hessian`, and its `energy`."""

    weight: Array
    hessian: Array
    energy: float


@dataclass(frozen=True, slots=True)
class Removal:
    """`order` (channels,) first to go first; `errors` (channels + 1,): relative error summed over consumers after k."""

    order: NDArray[np.intp]
    errors: Array

    def kept(self, count: int) -> NDArray[np.intp]:
        """The `count` channels that stay, in their old order."""
        return np.sort(self.order[len(self.order) - count :])


def removal_order(consumers: list[Consumer], channels: int, *, stop: int = 1) -> Removal:
    """Greedy removal order of `channels` channels; the last `stop` are not ranked among themselves (kept by index).

    The hessians must be positive definite (a ridge sees to that).
    """
    weights = [c.weight.copy() for c in consumers]
    inverses: list[Array] = [np.asarray(np.linalg.inv(c.hessian), dtype=np.float64) for c in consumers]
    scales = [1.0 / max(c.energy, 1e-30) for c in consumers]
    alive = np.ones(channels, dtype=bool)
    order = np.zeros(channels, dtype=np.intp)
    errors = np.zeros(channels + 1)
    for step in range(max(channels - stop, 0)):
        index = np.flatnonzero(alive)
        score = np.zeros(len(index))
        for w, inverse, scale in zip(weights, inverses, scales, strict=True):
            score += scale * _scores(w, inverse, index, channels)
        least = int(np.argmin(score))
        k = int(index[least])
        order[step] = k
        errors[step + 1] = errors[step] + max(float(score[least]), 0.0)
        alive[k] = False
        for i, w in enumerate(weights):
            _remove(w, inverses[i], k, channels)
    rest = np.flatnonzero(alive)
    order[channels - len(rest) :] = rest
    errors[channels - len(rest) + 1 :] = np.inf
    return Removal(order, errors)


def _scores(w: Array, inverse: Array, index: NDArray[np.intp], channels: int) -> Array:
    """tr(W_S [H^-1]_SS^-1 W_S^T) for every channel in `index`."""
    n, width = len(w), w.shape[1] // channels
    blocks = inverse.reshape(channels, width, channels, width)[index, :, index, :]
    columns = w.reshape(n, channels, width)[:, index, :].transpose(1, 2, 0)
    return np.asarray(np.sum(columns * np.linalg.solve(blocks, columns), axis=(1, 2)))


def _remove(w: Array, inverse: Array, k: int, channels: int) -> None:
    """Take channel k out of `w` and `inverse`, in place (its columns become zero)."""
    width = w.shape[1] // channels
    s = slice(k * width, (k + 1) * width)
    push = np.linalg.solve(inverse[s, s], inverse[s, :])
    w -= w[:, s] @ push
    inverse -= inverse[:, s] @ push
    w[:, s] = 0.0
    inverse[s, :] = 0.0
    inverse[:, s] = 0.0
    inverse[s, s] = np.eye(width)
