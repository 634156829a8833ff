"""Rows of a linear layer's input, taken at sampled output positions (im2col without the full unfolding).

A convolution is `Y[:, p] = W @ patch(X, p)`: one row per output position p, ordered (channel, kernel...), the order of
ONNX's `W.reshape(n, -1)`. Neighbouring positions are strongly correlated, so a few positions per sample carry nearly
all the statistics; the positions are drawn once per batch and used for the teacher and for the student alike.

A transposed convolution of stride s adds W[:, u] x[p] to the output at p s - pad + u dilation, for every tap u. Seen
from its output at q it is linear in a patch too: tap u reads the input at (q + pad - u dilation) / s, and zero where
that is no whole number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...storage.spill import Data

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class PatchWindow:
    """What a convolution reads for an output: along each spatial axis taps, strides, the pads before the beginning
    (what lies beyond the end is zero all the same), and dilations."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


def sample_positions(total: int, count: int, rng: np.random.Generator) -> Indices:
    """`count` distinct flat positions out of `total`, sorted; all of them when `count >= total`."""
    if count >= total:
        return np.arange(total)
    return np.sort(rng.choice(total, size=count, replace=False))


def take_patches(x: Floats, positions: Indices, output: Sequence[int], window: PatchWindow) -> NDArray[np.float32]:
    """Patches of `x` (N, C, *spatial) at flat `positions` of the `output`, whose spatial shape is given, as rows
    (N * len(positions), C * prod(kernel)): over samples first, positions second."""
    return _take(x, _read(positions, output, window))


def take_transposed(x: Floats, positions: Indices, output: Sequence[int], window: PatchWindow) -> NDArray[np.float32]:
    """What each tap of a transposed convolution reads of `x` for its outputs at `positions`; see `take_patches`."""
    read = []
    for where, tap, stride, pad, dilation in _axes(positions, output, window):
        at, rest = np.divmod(where + pad - tap * dilation, stride)
        read.append(np.where(rest == 0, at, -1))
    return _take(x, read)


def _read(positions: Indices, output: Sequence[int], window: PatchWindow) -> list[Indices]:
    """Where patches read along each spatial axis (positions, taps)."""
    return [
        where * stride - pad + tap * dilation for where, tap, stride, pad, dilation in _axes(positions, output, window)
    ]


def _axes(
    positions: Indices, output: Sequence[int], window: PatchWindow
) -> Iterator[tuple[Indices, Indices, int, int, int]]:
    """Along each spatial axis where outputs are (positions, 1), where taps are (1, taps), stride, pad, dilation."""
    where = np.unravel_index(positions, tuple(output))
    taps = np.unravel_index(np.arange(math.prod(window.kernel)), window.kernel)
    for axis, (stride, pad, dilation) in enumerate(zip(window.strides, window.pads, window.dilations, strict=True)):
        yield where[axis][:, None], taps[axis][None, :], stride, pad, dilation


def patch_places(
    sizes: Sequence[int], positions: Indices, output: Sequence[int], window: PatchWindow
) -> tuple[Indices, NDArray[np.bool_]]:
    """Where patches of an input of the spatial `sizes` read, as flat positions (positions, taps), and which of these
    are inside of it; see `take_patches`."""
    return _places(_read(positions, output, window), sizes)


def rows_at_places(taken: Data, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The rows of patches of which `taken` (N, positions * taps, C) was read; zero where that is not `inside`."""
    n, c = taken.shape[0], taken.shape[2]
    read = np.asarray(taken, np.float32).reshape(n, *inside.shape, c)
    if not inside.all():
        read = read * inside[:, :, None]
    return np.ascontiguousarray(read.transpose(0, 1, 3, 2)).reshape(n * len(inside), c * inside.shape[1])


def _places(read: Sequence[Indices], sizes: Sequence[int]) -> tuple[Indices, NDArray[np.bool_]]:
    flat = np.zeros(read[0].shape, dtype=np.intp)
    inside = np.ones(flat.shape, dtype=bool)
    for at, size in zip(read, sizes, strict=True):
        inside &= (at >= 0) & (at < size)
        flat = flat * size + np.clip(at, 0, size - 1)
    return flat, inside


def _take(x: Floats, read: Sequence[Indices]) -> NDArray[np.float32]:
    """Rows of `x` (N, C, *spatial) at `read`, an array (positions, taps) for each spatial axis; zero outside."""
    flat, inside = _places(read, x.shape[2:])
    n, c = x.shape[:2]
    sites = math.prod(x.shape[2:])
    pixels = np.asarray(x, np.float32).reshape(n, c * sites)
    padded = flat.size > sites and not inside.all()  # every pixel is read about once and more: a zero waits behind them
    if padded:
        pixels = np.zeros((n, c, sites + 1), dtype=np.float32)
        pixels[:, :, :sites] = x.reshape(n, c, sites)
        flat = np.where(inside, flat, sites)
    at = np.arange(c)[:, None] * (sites + padded) + flat[:, None]  # (positions, channels, taps): the order of the rows
    rows = np.take(pixels.reshape(n, -1), at.reshape(-1), axis=1).reshape(n, *at.shape)
    if not (padded or inside.all()):
        rows *= inside[:, None]
    return rows.reshape(n * len(flat), c * flat.shape[1])


def take_outputs(y: Floats, positions: Indices) -> NDArray[np.float32]:
    """Values of a convolution's output `y` (N, n, *spatial) at flat `positions`, as rows (N * len(positions), n)."""
    n, channels = y.shape[:2]
    sites = np.take(y.reshape(n, channels, math.prod(y.shape[2:])), positions, axis=2)
    return np.ascontiguousarray(sites.transpose(0, 2, 1), dtype=np.float32).reshape(-1, channels)
