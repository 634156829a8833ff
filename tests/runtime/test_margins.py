"""The expected agreement against its definition, and against what counting gives on many samples."""

import numpy as np
import pytest

from optc.runtime.margins import Margins


def expected(teacher: np.ndarray, student: np.ndarray) -> float:
    margins = Margins()
    for t, s in zip(np.array_split(teacher, 3), np.array_split(student, 3), strict=True):
        margins.add(t, s)
    totals = margins.expected()
    assert totals is not None
    return totals


def test_by_definition() -> None:
    rng = np.random.default_rng(0)
    t = rng.normal(size=(40, 5))
    s = t + 0.5 * rng.normal(size=t.shape)
    top = t.argmax(1)
    lead = np.array([t[i, top[i]] - max(np.delete(t[i], top[i])) for i in range(40)])
    left = np.array([s[i, top[i]] - max(np.delete(s[i], top[i])) for i in range(40)])
    kept = 0
    for part in np.argsort(lead).reshape(4, 10):
        kept += sum(lead[i] + left[j] - lead[j] >= 0 for i in part for j in part)
    assert expected(t, s) == pytest.approx(kept / 400)


def test_few_samples_tell_what_many_show() -> None:
    """Counted on fifty samples, agreement scatters about the truth; what is expected scatters less."""
    rng = np.random.default_rng(1)
    t = rng.normal(size=(20000, 4))
    s = t + 0.15 * rng.normal(size=t.shape)
    truth = (t.argmax(1) == s.argmax(1)).mean()
    draws = rng.integers(0, len(t), (200, 50))
    counted = np.array([(t[d].argmax(1) == s[d].argmax(1)).mean() for d in draws])
    estimates = np.array([expected(t[d], s[d]) for d in draws])
    assert estimates.mean() == pytest.approx(truth, abs=0.01)
    assert estimates.std() < counted.std()


def test_equal_answers_and_none() -> None:
    t = np.random.default_rng(2).normal(size=(9, 3))
    assert expected(t, t) == 1
    assert expected(np.zeros((4, 2)), np.zeros((4, 2))) == 1  # ties are no changes
    assert Margins().expected() is None
