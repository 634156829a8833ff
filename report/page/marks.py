"""What an output marks in a picture, as a person sees it: a map of classes or probabilities, or boxes.

Maps are answers at every point of a grid of at least 8 x 8. Boxes are taken from the two common forms: rows of left,
top, right, bottom, score, class, as behind NonMaxSuppression; and YOLO's columns of middle, size and a score a class,
of which the best are drawn. Both are in pixels of the input, or in shares of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...runtime.columns import Array
from ...runtime.kinds import Kind
from .png import EDGE

_LEAST = 8
_MOST = 10
"""Boxes of a sample that are drawn."""
_SCORE = 0.25
_PALETTE = np.array(
    [
        (40, 44, 52), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
        (204, 121, 167), (150, 150, 150), (140, 86, 75), (148, 103, 189), (23, 190, 207),
    ],
    np.uint8,
)  # fmt: skip
"""Okabe and Ito's colours (2008), which the colour-blind tell apart, and a few more; the first is of class 0."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box in shares of the picture's width and height."""

    left: float
    top: float
    width: float
    height: float
    score: float


def map_of(output: Array, kind: Kind, axis: int) -> Array | None:
    """One sample's map as a picture `[H, W, 1 or 3]`, or `None` where the output is none."""
    values = np.asarray(output)
    if values.ndim == 4 and values.shape[0] == 1:
        if kind in (Kind.LOGITS, Kind.PROBABILITIES) and axis % 4 in (1, 3):
            return _coloured(values.argmax(axis)[0])
        if kind is Kind.DECISIONS and 1 in (values.shape[1], values.shape[3]):
            grey = values[0, 0] if values.shape[1] == 1 else values[0, :, :, 0]
            return None if min(grey.shape) < _LEAST else _small(np.clip(255 * grey, 0, 255).astype(np.uint8))[..., None]
    if kind is Kind.DISCRETE and values.dtype.kind in "iub" and values.ndim in (3, 4) and values.size:
        grid = values.reshape(values.shape[-2:]) if values.size == np.prod(values.shape[-2:]) else None
        return None if grid is None else _coloured(grid.astype(np.int64))
    return None


def boxes_of(output: Array, size: tuple[int, int]) -> tuple[Box, ...]:
    """The best boxes of one sample in a picture of `size` (height, width); none where the output holds none."""
    values = np.asarray(output, np.float64) if np.asarray(output).dtype.kind == "f" else np.zeros((0, 0))
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or not np.isfinite(values).all():
        return ()
    rows, columns = values.shape
    if columns == 6 and rows:
        corners, scores = values[:, :4], values[:, 4]
        left, top, right, bottom = corners.T
        spans = np.stack([left, top, right - left, bottom - top], 1)
    elif 5 <= rows < columns and rows <= 4 + 1024 and columns >= 64:
        middle_x, middle_y, width, height = values[:4]
        spans = np.stack([middle_x - width / 2, middle_y - height / 2, width, height], 1)
        scores = values[4:].max(0)
    else:
        return ()
    if scores.min() < -1e-3 or scores.max() > 1 + 1e-3:
        return ()
    unit = np.array([1.0, 1.0]) if np.abs(spans).max() <= 2 else np.array([size[1], size[0]], np.float64)
    best = [int(at) for at in np.argsort(-scores, kind="stable") if scores[at] >= _SCORE]
    taken: list[int] = []
    for at in best:
        if len(taken) < _MOST and all(_overlap(spans[at], spans[other]) < 0.5 for other in taken):
            taken.append(at)
    shares = spans / np.concatenate([unit, unit])
    return tuple(
        Box(float(x), float(y), float(width), float(height), float(scores[at]))
        for at in taken
        for x, y, width, height in (shares[at],)
        if min(width, height) > 0
    )


def _overlap(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Intersection over union."""
    low = np.maximum(one[:2], other[:2])
    high = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    both = float(np.prod(np.maximum(high - low, 0)))
    return both / max(float(np.prod(one[2:]) + np.prod(other[2:])) - both, 1e-12)


def _coloured(grid: Array) -> Array | None:
    return None if min(grid.shape) < _LEAST else _PALETTE[_small(grid) % len(_PALETTE)]


def _small(grid: Array) -> Array:
    step = -(-max(grid.shape) // EDGE)
    return grid[::step, ::step]
