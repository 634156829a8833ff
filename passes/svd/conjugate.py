"""Conjugate gradient steps for a least-squares problem given by its two linear maps.

    minimise over v   tr((J(v) - W*) H (J(v) - W*)^T)

where J takes the unknown factor v to dense weights and `pull` is the gradient of the inner product with a difference of
dense weights, J^T(. H). Every step lowers the objective, so a few of them inside an alternating scheme are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", NDArray[np.float64], NDArray[np.float32])


def descend(
    v: Real, target: Real, push: Callable[[Real], Real], pull: Callable[[Real], Real], scale: Real, steps: int
) -> Real:
    """`v` after `steps` steps, in its precision; `push` is J, `scale` the diagonal (of the shape of `v`) that
    preconditions."""
    inverse = np.asarray(1.0 / np.maximum(scale, 1e-30), v.dtype)
    v = v.copy()
    r = pull(target - push(v))
    z = r * inverse
    direction = z.copy()
    rho = float(np.sum(r * z))
    for _ in range(steps):
        if rho <= 1e-300:
            break
        a = pull(push(direction))
        step = rho / max(float(np.sum(direction * a)), 1e-300)
        v += step * direction
        r -= step * a
        z = r * inverse
        fresh = float(np.sum(r * z))
        direction = z + (fresh / rho) * direction
        rho = fresh
    return v
