"""Four-bit weights with a scale a block, in kernels that know one scale a channel.

    w = s_c (m_b q),        q in [-8, 7] of four bits,        m_b in 1 .. 8 for every 32 or 16 weights of the reduction

The product m q is at most 64 in size: an int8 weight on the channel's scale, and small enough that no pair of them
saturates (`weights.py`). The file has q and m, four bits each, and the runtime multiplies them when it loads the model
(`packing.py`). Scales of blocks that are multiples of an eighth of the largest are as good as free ones: the error of
rounding is flat around its best scale.

For layers of `LEAST` weights whose reduction is made of blocks; the operators that multiply take some hundred bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .params import TINY, storable
from .rounding import Elimination, round_to_grid
from .search import search

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Box = tuple[Array, Array]

BLOCKS = (32, 16)
"""Weights in a block: the first of these that divides the channels."""
LEAST = 8192
"""Weights of a layer from which on the multipliers and the operators are worth their bytes."""
MOST = 8
SHRINKS = np.linspace(0.5, 1.1, 25)
"""Shares of the full range of a block that are tried."""
FACTORS = (0.8, 0.87, 0.94, 1.0, 1.07, 1.15)
"""Changes to the scale of a channel that makes its widest block the largest multiple."""


def round_multipliers(
    goal: Array, metric: Array, weigh: Array, eliminations: Sequence[Elimination], box: Box, least: Array, block: int
) -> tuple[Array, Array, Array]:
    """Codes (groups, n, d) of `goal`, scales (groups, n) of at least `least`, and multipliers (groups, n, d / block).

    `metric` (groups, d, d) is what errors cost together, `weigh` (groups, d) what one in each column costs alone."""
    scale, multipliers = _channel_scales(goal, weigh, box, least, block)
    spread = scale[..., None] * multipliers
    codes = round_to_grid(goal, metric, spread, *box, sweeps=2, eliminations=eliminations)
    return codes, scale, multipliers


def _channel_scales(goal: Array, weigh: Array, box: Box, least: Array, block: int) -> tuple[Array, Array]:
    groups, n, d = goal.shape
    wanted = block_scales(goal, weigh, box, block)
    parted = (groups, n, d // block, block)
    w, low, high = (a.astype(np.float32).reshape(parted) for a in (goal, *box))
    h = weigh.astype(np.float32).reshape(groups, 1, d // block, block)
    zeros = ~w.any(axis=3)
    top = np.where(zeros, 0.0, wanted).max(axis=2) / MOST
    top = np.where(top > TINY, top, 1.0)

    def multipliers(scale: Array) -> Array:
        return np.clip(np.rint(wanted / scale[..., None]), 1, MOST)

    def loss(scale: Array) -> Array:
        step = (scale[..., None] * multipliers(scale))[..., None].astype(np.float32)
        off = np.clip(np.rint(w / step), low, high) * step - w
        return np.asarray((h * off**2).sum(axis=(2, 3)))

    near = (storable(np.maximum(top * factor, least), d).astype(np.float64) for factor in FACTORS)
    best = search(np.ones_like(top), near, loss)
    return best, multipliers(best)


def block_scales(goal: Array, weigh: Array, box: Box, block: int) -> Array:
    """Scales (groups, n, d / block) with the least error of plain rounding, weighed by column; 1 for zeros."""
    groups, n, d = goal.shape
    parted = (groups, n, d // block, block)
    w, low, high = (a.astype(np.float32).reshape(parted) for a in (goal, *box))
    h = weigh.astype(np.float32).reshape(groups, 1, d // block, block)
    peak = (np.abs(w) / np.where(w > 0, np.maximum(high, 1), np.maximum(-low, 1))).max(axis=3)
    peak = np.where(peak > TINY, peak, 1.0)

    def loss(scale: Floats) -> Floats:
        off = np.clip(np.rint(w / scale[..., None]), low, high) * scale[..., None] - w
        return np.asarray((h * off**2).sum(axis=3))

    return search(peak, (peak * shrink for shrink in SHRINKS[::-1]), loss).astype(np.float64)
