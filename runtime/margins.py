"""The agreement to expect of other samples, from how near to a change of mind a few samples were.

Of fifty samples on which a student agrees, one answer that changes is two percent: counting tells little. How far the
teacher's class leads, and by how much the student moves that lead, is known for every sample. With m_i the teacher's
lead of its class over the runner-up (in logits), and d_i what the student adds to it, sample i keeps its class where
m_i + d_i >= 0. Any sample of about the same lead might have been moved by what another was: the expected agreement is
the share of pairs (i, j), both of the same quarter of the samples by lead, with m_i + d_j >= 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_PARTS = 4
"""Into how many parts samples are sorted by lead: those far ahead are moved more, and it does not matter there."""


class Margins:
    """Leads of the teacher's class, and what becomes of them, row by row."""

    __slots__ = ("_lead", "_moved")

    def __init__(self) -> None:
        self._lead: list[Floats] = []
        self._moved: list[Floats] = []

    def add(self, teacher: Floats, student: Floats) -> None:
        """Add rows of logits (rows, classes), two classes at least."""
        rows = np.arange(len(teacher))
        best = teacher.argmax(axis=1)
        lead, left = (_lead(logits, rows, best) for logits in (teacher, student))
        self._lead.append(lead)
        self._moved.append(left - lead)

    def expected(self) -> float | None:
        """The expected agreement, a share of 1; `None` without rows."""
        lead, moved = (np.concatenate([np.zeros(0), *parts]) for parts in (self._lead, self._moved))
        if not len(lead):
            return None
        kept = 0.0
        for part in np.array_split(np.argsort(lead, kind="stable"), _PARTS):
            against = np.sort(moved[part])
            lost = np.searchsorted(against, -lead[part], side="left")  # the moves that each lead would not survive
            kept += float(np.sum(len(part) - lost)) / max(len(part), 1)
        return kept / len(lead)


def _lead(logits: Floats, rows: npt.NDArray[np.intp], best: npt.NDArray[np.intp]) -> Floats:
    others = logits.copy()
    others[rows, best] = -np.inf
    return np.asarray(logits[rows, best] - others.max(axis=1))
