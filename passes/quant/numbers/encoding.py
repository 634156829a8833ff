"""A layer's target weights as codes: their grid, the box that codes must keep to, and the codes.

Widths: 8 bits are [-127, 127]; b < 8 bits are the whole [-2^(b-1), 2^(b-1) - 1], and two bits {-1, 0, 1}, so that zero
is in the middle. Narrow codes are held as int4 and widened to int8 by a Cast of a constant, which the runtime folds
(docs/algorithms.md, 6.4): half the file, the same kernels.

With a codebook (`codebook.py`) codes are 16 of the 8-bit ones.

**Saturation** (see `weights.py`) bounds pairs of 8-bit codes. As a box: what a pair has to spare, of either sign, is
shared between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ....ir.types import DType
from ...base import TargetFacts
from ...walk.refit import refit_masked
from ...walk.target import LayerTarget
from .codebook import LEAST as BOOK_LEAST
from .codebook import fit_book
from .multipliers import BLOCKS, round_multipliers
from .multipliers import LEAST as BLOCKS_LEAST
from .params import TINY, QuantParams, limits, storable
from .rounding import Elimination, gptq, is_small, losses, round_to_grid
from .search import search
from .weights import PAIR_LIMIT, quantize_paired, quantize_rows

Array = NDArray[np.float64]
Codes = NDArray[np.generic]

FACTORS = (0.8, 0.88, 0.94, 1.0, 1.06, 1.14)
"""Changes to the best scale of plain rounding that are tried with the rounding that will be used."""
NEGLIGIBLE = 0.05
"""Share of what even the target leaves unexplained, below which a loss by rounding is not worth more work: with 8 bits
GPTQ leaves a hundredth or two, and moving single codes would take a twentieth off that."""
SHRINKS = np.linspace(0.3, 1.0, 29)
"""Shares of the full range tried for fewer than 8 bits."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """`weight` (groups, n, d) is what the `codes` (groups, n, d) stand for, `grid` theirs; `book` holds the levels that
    they are of, if not all; `multipliers` (groups, n, blocks) what the codes of each block are to be multiplied by, the
    blocks in the kernel's order."""

    weight: Array
    codes: Codes
    params: QuantParams
    book: Array | None = None
    multipliers: Codes | None = None

    @property
    def packed(self) -> Encoded:
        """Without the float weight, for who keeps those of many layers."""
        return replace(self, weight=np.zeros(0))


def encode_target(
    now: Array,
    target: LayerTarget,
    facts: TargetFacts,
    least: Array,
    *,
    positions: int = 1,
    depthwise: bool = False,
    axis: int = 0,
    bits: int = 8,
    per_channel: bool = True,
    codebook: bool = False,
) -> Encoded:
    """Round `target` for a layer whose weights are `now` (groups, n, d), d being (channel, kernel `positions`); scales
    are at least `least` (channels,), and along `axis` of the weight where there is one a channel.

    A `codebook` of 16 levels is for 4 bits, a scale a channel, and layers that are not small or depthwise; others take
    a uniform grid.
    """
    shape = now.shape
    order = kernel_order(shape[2], positions)
    mask = now != 0.0
    goal = target.weight
    if not mask.all():
        goal = np.stack([refit_masked(w, h, m) for w, h, m in zip(goal, target.hessian, mask)])
    goal, mask = goal[:, :, order], mask[:, :, order]
    metric = target.hessian[:, order][:, :, order]
    low, high = code_range(bits)
    box = _where(mask, float(low)), _where(mask, float(high))
    dtype, zero = DType.INT8, 0
    enough = NEGLIGIBLE * target.floor
    if bits == 4 and not codebook and per_channel and (block := _block(goal, positions)):
        own = [Elimination.of(h) for h in metric]
        weigh = column_costs(metric, own)
        rounded, scale, multipliers = round_multipliers(goal, metric, weigh, own, box, least.reshape(shape[:2]), block)
        params = QuantParams(np.asarray(scale.reshape(-1), np.float32), zero, dtype, axis, *limits(dtype))
        weight, whole = np.empty_like(rounded), np.empty_like(rounded)
        weight[:, :, order] = rounded * np.repeat(multipliers, block, axis=2) * scale[..., None]
        whole[:, :, order] = rounded
        return Encoded(weight, whole.astype(np.int8), params, None, multipliers.astype(np.uint8))
    book: Array | None = None
    eliminations: list[Elimination] | None = None
    if codebook and bits == 4 and per_channel and goal.size >= BOOK_LEAST and not depthwise:
        box = _where(mask, -64.0), _where(mask, 64.0)
        diagonal = np.diagonal(metric, axis1=1, axis2=2)
        book, scale = fit_book(goal, diagonal, mask, least.reshape(shape[:2]))
    elif bits == 8:
        saturating = facts.saturating_int8 and facts.activation_dtype is DType.UINT8 and not depthwise
        scale, box, zero = _wide_scale(goal, metric, box, least, saturating, not per_channel)
        dtype = DType.UINT8 if zero else DType.INT8
    else:
        bound = least.reshape(shape[:2])
        if not is_small(goal):
            eliminations = [Elimination.of(h) for h in metric]
        scale = _narrow_scale(goal, metric, eliminations, box, bound, not per_channel)
        if per_channel and eliminations is not None:
            scale = _refined(scale, goal, metric, eliminations, box, bound)
    rounded = round_to_grid(goal, metric, scale, *box, book=book, eliminations=eliminations, enough=enough)
    codes = np.empty_like(rounded)
    codes[:, :, order] = rounded
    params = QuantParams(
        np.asarray(scale.reshape(-1) if per_channel else scale.reshape(-1)[0], np.float32),
        zero, dtype, axis if per_channel else None, *limits(dtype),
    )  # fmt: skip
    return Encoded(codes * scale[..., None], (codes + zero).astype(dtype.numpy), params, book)


def _where(mask: NDArray[np.bool_], bound: float) -> Array:
    """`bound` where weights may be other than zero; of a layer with none that must be, not as large as the weights."""
    return np.broadcast_to(np.float64(bound), mask.shape) if mask.all() else np.where(mask, bound, 0.0)


def code_range(bits: int) -> tuple[int, int]:
    """The least and the greatest code of a weight of so many bits."""
    top = (1 << (bits - 1)) - 1
    return (-top, top) if bits in (2, 8) else (-top - 1, top)


def kernel_order(d: int, positions: int) -> NDArray[np.intp]:
    """Where the kernels read a row (channel, kernel position): position by position, channels together."""
    return np.arange(d).reshape(-1, positions).T.reshape(-1)


def _block(goal: Array, positions: int) -> int:
    """How many neighbours along the reduction, in the layer's own layout too, share a multiple; 0 for none."""
    if goal.size < BLOCKS_LEAST:
        return 0
    channels = goal.shape[2] // positions
    return next((block for block in BLOCKS if channels % block == 0 and goal.shape[2] > block), 0)


def _wide_scale(
    goal: Array, metric: Array, box: tuple[Array, Array], least: Array, saturating: bool, shared: bool
) -> tuple[Array, tuple[Array, Array], int]:
    """Scales (groups, n) for 8 bits, the box, and the zero point of the codes: not 0 where they are stored unsigned."""
    groups, n, d = goal.shape
    rows = goal.reshape(groups * n, d).astype(np.float32)
    diagonal = np.diagonal(metric, axis1=1, axis2=2)
    weigh = diagonal[0] if groups == 1 else np.repeat(diagonal, n, axis=0)
    if not saturating:
        scale = quantize_rows(rows, DType.INT8, importance=weigh, shared=shared, least_scale=least)[1]
        return scale.astype(np.float64).reshape(groups, n), box, 0
    codes, scale, zero = quantize_paired(rows, importance=weigh, shared=shared, least_scale=least)
    if not zero:
        low, high = (bound.reshape(goal.shape) for bound in _pair_box(codes.astype(np.float64)))
        box = np.maximum(box[0], low, out=low), np.minimum(box[1], high, out=high)
    return scale.astype(np.float64).reshape(groups, n), box, zero


def _pair_box(codes: Array) -> tuple[Array, Array]:
    """The box (rows, d) around codes that are within the pair bound, such that all codes in it are."""
    low, high = np.full_like(codes, -127.0), np.full_like(codes, 127.0)
    even = codes.shape[1] // 2 * 2
    for side, bound in ((1.0, high), (-1.0, low)):
        part = np.maximum(side * codes, 0.0)
        u, v = part[:, 0:even:2], part[:, 1:even:2]
        spare = PAIR_LIMIT - u - v
        bound[:, 0:even:2] = side * np.minimum(u + np.floor(spare / 2), 127.0)
        bound[:, 1:even:2] = side * np.minimum(v + np.ceil(spare / 2), 127.0)
    return low, high


def _narrow_scale(
    goal: Array,
    metric: Array,
    eliminations: Sequence[Elimination] | None,
    box: tuple[Array, Array],
    least: Array,
    shared: bool,
) -> Array:
    """Scales (groups, n) with the least loss of plain rounding: in the full metric where codes are searched
    exhaustively, and otherwise with what an error costs before and after the others make up for it, in the mean."""
    weigh = None if eliminations is None else column_costs(metric, eliminations)
    reach = np.where(goal > 0, np.maximum(box[1], 1.0), np.maximum(-box[0], 1.0))
    peak = np.maximum(np.abs(goal) / reach, 0.0).max(axis=2)
    if shared:
        peak = np.full_like(peak, peak.max())

    def candidate(shrink: float) -> Array:
        scale = np.where(peak * shrink > TINY, peak * shrink, 1.0)
        scale = np.maximum(scale, least).astype(np.float32)
        return (scale if shared else storable(scale, goal.shape[2])).astype(np.float64)

    def loss(scale: Array) -> Array:
        codes = np.clip(np.rint(goal / scale[..., None]), *box)
        if weigh is None:
            lost = losses(codes, goal, metric, scale)
        else:
            lost = np.einsum("gnd,gd->gn", np.square(codes * scale[..., None] - goal), weigh)
        return np.full_like(lost, lost.sum()) if shared else lost

    return search(np.ones_like(peak), map(candidate, SHRINKS[::-1]), loss)


def column_costs(metric: Array, eliminations: Sequence[Elimination]) -> Array:
    """What an error in each column costs, (groups, d): the geometric mean of H_jj, where nothing makes up for it, and
    1 / R_jj^2, where all columns do that are fixed after it."""
    return np.stack([np.sqrt(np.diagonal(h) * e.costs()) for h, e in zip(metric, eliminations, strict=True)])


def _refined(
    scale: Array,
    goal: Array,
    metric: Array,
    eliminations: Sequence[Elimination],
    box: tuple[Array, Array],
    least: Array,
) -> Array:
    """Scales near `scale` with the least loss after columns have taken up each other's errors."""

    def loss(tried: Array) -> Array:
        parts = zip(goal, metric, tried, *box, eliminations, strict=True)
        codes = np.stack([gptq(*arrays, elimination=elimination) for *arrays, elimination in parts])
        return losses(codes, goal, metric, tried)

    near = (storable(np.maximum(scale * f, least), goal.shape[2]).astype(np.float64) for f in FACTORS)
    return search(scale, near, loss)
