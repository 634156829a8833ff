"""Made-up signals with the second-order statistics of natural ones, and some of their edges.

`power_law` draws Gaussian noise whose amplitude falls as 1/f, as that of images and of many signals does. `dead_leaves`
covers the plane with discs and bars of power-law size, one over the other, which adds edges, flat regions and occlusion
(Lee, Mumford and Huang, "Occlusion models for natural images", 2001).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SHARED = 0.69
"""The covariance between two channels of dead leaves (measured)."""
_DEVIATION = 1.265
"""The standard deviation of the leaves before they are scaled to one (measured)."""


def power_law(rng: np.random.Generator, shape: tuple[int, ...], axes: tuple[int, ...], exponent: float = 1.0) -> Floats:
    """Noise of amplitude f^-exponent over `axes` and independent over the others; zero mean, unit variance overall."""
    white = np.fft.rfftn(rng.standard_normal(shape), axes=axes)
    square = np.zeros(())
    for place, axis in enumerate(axes):
        length = shape[axis]
        frequency = np.fft.rfftfreq(length) if place == len(axes) - 1 else np.fft.fftfreq(length)
        column = [1] * len(shape)
        column[axis] = len(frequency)
        square = square + frequency.reshape(column) ** 2
    # The mean is left free at the weight of the lowest frequency: whole samples are brighter or darker, too.
    lowest = 1 / max(shape[axis] for axis in axes)
    white *= np.maximum(square, lowest**2) ** (-exponent / 2)
    signal = np.fft.irfftn(white, s=[shape[a] for a in axes], axes=axes)
    return np.asarray(signal / max(float(signal.std()), 1e-12), np.float32)


def dead_leaves(rng: np.random.Generator, channels: int, height: int, width: int) -> Floats:
    """One picture (channels, height, width) of leaves: each of one colour with a smooth shade, some striped or grainy.

    Pictures differ in how many leaves they have, in their sizes and in contrast. Over many, channels have zero
    mean, unit variance and the covariance `SHARED`.
    """
    size = min(height, width)
    picture = power_law(rng, (channels, height, width), (1, 2))
    leaves = int(rng.integers(12, 96))
    radius = np.clip(0.6 * size * (1 + 30 * rng.random(leaves)) ** -rng.uniform(0.3, 1), 1, size)
    colour = rng.standard_normal((leaves, 1)) + rng.uniform(0.1, 0.8) * rng.standard_normal((leaves, channels))
    for i in range(leaves):
        stretch = np.exp(rng.uniform(-1, 1))
        reach = radius[i] * max(stretch, 1 / stretch)
        y, x = rng.random(2) * (height, width)
        rows = np.arange(max(0, int(y - reach)), min(height, int(y + reach) + 1), dtype=np.float32)[:, None] - y
        columns = np.arange(max(0, int(x - reach)), min(width, int(x + reach) + 1), dtype=np.float32)[None] - x
        slant = rng.uniform(0, np.pi)
        along = (np.cos(slant) * columns + np.sin(slant) * rows) / stretch
        across = (np.cos(slant) * rows - np.sin(slant) * columns) * stretch
        inside = along**2 + across**2 < radius[i] ** 2 if i % 2 else np.maximum(abs(along), abs(across)) < radius[i] / 2
        texture: np.float64 | np.ndarray[tuple[int, ...], np.dtype[np.floating]] = np.float64(0)
        kind = rng.random()
        if kind < 0.3:
            pitch = rng.uniform(0.3, 3) * stretch
            texture = rng.uniform(0.2, 1) * np.sin(pitch * along)[inside]
        elif kind < 0.5:
            texture = rng.uniform(0.1, 0.6) * rng.standard_normal(int(inside.sum()))
        top, left = round(rows[0, 0] + y), round(columns[0, 0] + x)
        patch = picture[:, top : top + inside.shape[0], left : left + inside.shape[1]]
        patch[:, inside] = 0.25 * patch[:, inside] + colour[i][:, None] + texture
    contrast = np.exp(0.3 * rng.standard_normal()) / _DEVIATION
    return np.asarray(contrast * picture, np.float32)
