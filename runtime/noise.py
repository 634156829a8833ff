"""Made-up signals with the second-order statistics of natural ones, and some of their edges.

`power_law` draws Gaussian noise whose amplitude falls as 1/f, as that of images and of many signals does. `dead_leaves`
covers the plane with discs and bars of power-law size, one over the other, which adds edges, flat regions and occlusion
(Lee, Mumford and Huang, "Occlusion models for natural images", 2001).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_LEAVES = 48


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
    """One picture (channels, height, width) of leaves, each of one colour with a smooth shade; about zero mean and unit
    variance."""
    size = min(height, width)
    picture = power_law(rng, (channels, height, width), (1, 2))
    radius = np.clip(size * 0.6 * (1 + 30 * rng.random(_LEAVES)) ** -0.7, 1, size)
    centre = rng.random((_LEAVES, 2)) * (height, width)
    slant = rng.random(_LEAVES) * np.pi
    stretch = np.exp(rng.uniform(-1, 1, _LEAVES))
    shared = rng.standard_normal((_LEAVES, 1))
    colour = 0.8 * shared + 0.6 * rng.standard_normal((_LEAVES, channels))
    for i in range(_LEAVES):
        reach = radius[i] * max(stretch[i], 1 / stretch[i])
        top, bottom = int(max(0, centre[i, 0] - reach)), int(min(height, centre[i, 0] + reach + 1))
        left, right = int(max(0, centre[i, 1] - reach)), int(min(width, centre[i, 1] + reach + 1))
        if top >= bottom or left >= right:
            continue
        dy = np.arange(top, bottom)[:, None] - centre[i, 0]
        dx = np.arange(left, right)[None, :] - centre[i, 1]
        along = (np.cos(slant[i]) * dx + np.sin(slant[i]) * dy) / stretch[i]
        across = (np.cos(slant[i]) * dy - np.sin(slant[i]) * dx) * stretch[i]
        inside = along**2 + across**2 < radius[i] ** 2 if i % 2 else np.maximum(abs(along), abs(across)) < radius[i] / 2
        patch = picture[:, top:bottom, left:right]
        patch[:, inside] = 0.25 * patch[:, inside] + colour[i][:, None].astype(np.float32)
    return picture
