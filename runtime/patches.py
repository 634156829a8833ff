"""Rows of a linear layer's input, taken at sampled output positions (im2col without the full unfolding).

A convolution is `Y[:, p] = W @ patch(X, p)`: one row per output position p, ordered (channel, kernel...), the order of
ONNX's `W.reshape(n, -1)`. Neighbouring positions are strongly correlated, so a few positions per sample carry nearly
all the statistics; the positions are drawn once per batch and used for the teacher and for the student alike.

Does not handle transposed convolutions: their outputs are sums over a varying number of input positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]


def sample_positions(total: int, count: int, rng: np.random.Generator) -> Indices:
    """`count` distinct flat positions out of `total`, sorted; all of them when `count >= total`."""
    if count >= total:
        return np.arange(total)
    return np.sort(rng.choice(total, size=count, replace=False))


def take_patches(
    x: Floats,
    positions: Indices,
    output: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> NDArray[np.float32]:
    """Patches of `x` (N, C, *spatial) at flat output `positions`, as rows (N * len(positions), C * prod(kernel)).

    `pads` are the begin pads per spatial axis (what lies beyond the end is zero all the same); `output` is the output's
    spatial shape. Rows run over samples first, positions second.
    """
    spatial = x.shape[2:]
    where = np.unravel_index(positions, tuple(output))
    taps = np.unravel_index(np.arange(int(np.prod(kernel))), tuple(kernel))
    flat = np.zeros((len(positions), len(taps[0])), dtype=np.intp)
    inside = np.ones(flat.shape, dtype=bool)
    for axis, size in enumerate(spatial):
        at = where[axis][:, None] * strides[axis] - pads[axis] + taps[axis][None, :] * dilations[axis]
        inside &= (at >= 0) & (at < size)
        flat = flat * size + np.clip(at, 0, size - 1)
    n, c = x.shape[:2]
    taken = np.take(x.reshape(n, c, -1), flat.reshape(-1), axis=2).reshape(n, c, *flat.shape)
    if not inside.all():
        taken *= inside
    return np.ascontiguousarray(taken.transpose(0, 2, 1, 3), dtype=np.float32).reshape(n * len(positions), -1)


def take_outputs(y: Floats, positions: Indices) -> NDArray[np.float32]:
    """Values of a convolution's output `y` (N, n, *spatial) at flat `positions`, as rows (N * len(positions), n)."""
    n, channels = y.shape[:2]
    taken = np.take(y.reshape(n, channels, -1), positions, axis=2)
    return np.ascontiguousarray(taken.transpose(0, 2, 1), dtype=np.float32).reshape(-1, channels)
