"""What fits of weights are tried on: a target for them, and how its inputs are correlated."""

from __future__ import annotations

import numpy as np


def problem(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Target weights (n, d) and the second moments (d, d) of inputs that depend on each other."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4 * d, d)) @ rng.normal(size=(d, d))
    return rng.normal(size=(n, d)), x.T @ x / len(x) + 0.01 * np.eye(d)


def loss(w: np.ndarray, target: np.ndarray, h: np.ndarray) -> float:
    """The error of the layer's output, by the second moments `h` of its inputs."""
    return float(np.sum(((w - target) @ h) * (w - target)))
