"""The classes that a teacher and a student give.

Where the teacher holds two classes for about the same, the student gives either and has decided nothing otherwise. Rows
that have no class at all, as the numbers of a reconstruction, would else be decided by noise of a hundredth of theirs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

TIE = 0.02
"""The share by which the probabilities of two classes differ that are a tie."""


def classes(
    teacher: NDArray[np.float64], student: NDArray[np.float64], logits: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The class of every row of numbers, (..., classes), of both: probabilities, or `logits`. Where the student's is a
    tie with the teacher's to the teacher, it counts as the teacher's."""
    best, other = teacher.argmax(-1), student.argmax(-1)
    first, second = (np.take_along_axis(teacher, pick[..., None], -1)[..., 0] for pick in (best, other))
    tied = first - second <= TIE if logits else second >= first * math.exp(-TIE)
    return best, np.where(tied, best, other)
