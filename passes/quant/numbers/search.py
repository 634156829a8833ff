"""The one search for scales: each element takes, of some candidates, the one that loses least."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scale = TypeVar("Scale", NDArray[np.float64], NDArray[np.float32])
Candidate = TypeVar("Candidate", NDArray[np.float64], NDArray[np.float32])


def search(start: Scale, candidates: Iterable[Candidate], loss: Callable[[Candidate], NDArray[np.floating]]) -> Scale:
    """Element by element, the first of the `candidates`, each of the shape of `start`, with the least `loss`, which has
    one number for each element; `start` where no loss is a number."""
    best, least = start, np.full(start.shape, np.inf)
    for scale in candidates:
        lost = loss(scale)
        better = lost < least
        best, least = np.where(better, scale, best), np.where(better, lost, least)
    return best
