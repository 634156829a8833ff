"""Whether two evaluations of one graph differ by more than rounding explains.

Numbers are first held against a few roundings of the output's scale (`close`). Where that does not hold, against how
far evaluations with errors put in (`perturbed`) lie from the reference: an element may be off by `SLACK` times what it,
or a usual one, is off there, and so may the root mean square of all. Where something decides (codes, comparisons,
sorting) single elements jump; twice as many may as jump in one of these evaluations by the measure of the others.

NaN equals NaN and an infinity itself. Whole numbers, booleans and strings are equal or not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .columns import Array

SLACK = 3.0
"""What an evaluation may be off, in errors that were put in, which are many roundings each. Right artifacts of trained
networks were off by .04 of this at most in floats, and by .22 between codes."""
_UNITS = 2.0
_SPREAD = 2.0**20
"""How far above the small numbers of an output its scale is looked for: a mask of -1e9 beside them is no scale."""
_FEW = 1e-4
"""The share of elements that may jump where some do at all."""

Gaps = npt.NDArray[np.float64]


def flat(answers: Sequence[object]) -> Array:
    """Arrays, or sequences of them, as one array of one axis."""
    arrays = [flat(one) if isinstance(one, list) else np.asarray(one).reshape(-1) for one in answers]
    return np.concatenate(arrays) if arrays else np.empty(0, np.float32)


def close(reference: Array, answer: Array, error: float) -> bool:
    """Whether all elements (arrays of one axis) are within a few roundings of the scale of the output; `error` is the
    relative one that is put into numbers."""
    return bool((gaps(reference, answer) <= _UNITS * error * _scale(reference)).all())


def unexplained(reference: Array, answer: Array, others: Sequence[Array], error: float, step: float = 0.0) -> str:
    """How `answer` differs from `reference` by more than rounding explains; empty where it does not.

    Arrays of one axis and one length. `others` are evaluations with the relative `error` put in; `step` is the distance
    of neighbouring codes of an output that is made of codes, which may differ by one.
    """
    bulk, floor = _bulk(reference), _UNITS * error * _scale(reference)
    gap = gaps(reference, answer, codes=step > 0)
    noise = [gaps(reference, other, codes=step > 0) for other in others]
    bound = np.maximum(SLACK * _most(noise, bulk) + floor, 1.01 * step)
    jumps = int(np.count_nonzero(gap > bound))
    usual = 0
    for index, one in enumerate(noise):
        rest = np.maximum(SLACK * _most([*noise[:index], *noise[index + 1 :]], bulk) + floor, 1.01 * step)
        usual = max(usual, int(np.count_nonzero(one > rest)))
    decides = usual > 0 or any(np.isinf(one).any() for one in noise)
    if jumps > 2 * usual + (int(_FEW * gap.size) if decides else 0):
        return _told(reference, answer, gap, bound, jumps)
    mean, most = _rms(gap, bulk), SLACK * max((_rms(one, bulk) for one in noise), default=0.0) + _rms(floor, bulk)
    return f"off by {mean:.3g} in the mean, of which rounding explains {most:.3g}" if mean > most else ""


def _told(reference: Array, answer: Array, gap: Gaps, bound: Gaps, jumps: int) -> str:
    at = int(np.argmax(np.where(np.isinf(bound), 0.0, gap - bound)))
    explained = f", of which rounding explains {bound[at]:.3g}" if np.isfinite(gap[at]) and bound[at] else ""
    share = f"{jumps} of {gap.size} elements are wrong, one" if gap.size > 1 else "it"
    return f"{share} by {gap[at]:.3g} ({answer[at]} for {reference[at]}){explained}"


def gaps(reference: Array, answer: Array, *, codes: bool = False) -> Gaps:
    """The difference of each element; infinite where one of the two is no number, or where what is no number (nor, with
    `codes`, a code) is not equal."""
    if not codes and (reference.dtype.kind not in "fV" or answer.dtype.kind not in "fV"):
        return np.where(reference == answer, 0.0, np.inf)
    one, other = np.asarray(reference, np.float64), np.asarray(answer, np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.abs(one - other)
    gap[(one == other) | (np.isnan(one) & np.isnan(other))] = 0.0
    gap[np.isnan(gap)] = np.inf
    return gap


def _bulk(reference: Array) -> npt.NDArray[np.bool_]:
    """The elements that are of the usual magnitude."""
    if reference.dtype.kind not in "fV":
        return np.ones(reference.shape, np.bool_)
    size = np.abs(np.asarray(reference, np.float64))
    small = size[np.isfinite(size) & (size > 0)]
    return np.asarray(size <= _SPREAD * np.quantile(small, 0.1) if small.size else size == 0)


def _scale(reference: Array) -> Gaps:
    """What the error of each element is measured by: itself, or the largest of the usual ones."""
    if reference.dtype.kind not in "fV":
        return np.zeros(reference.shape)
    size = np.abs(np.asarray(reference, np.float64))
    usual = size[_bulk(reference)].max(initial=0.0)
    return np.asarray(np.where(np.isfinite(size), np.maximum(size, usual), usual))


def _most(noise: Sequence[Gaps], bulk: npt.NDArray[np.bool_]) -> Gaps:
    """The largest difference of each element, at least that of a usual one."""
    if not noise:
        return np.zeros(bulk.shape)
    most = np.max(noise, axis=0)
    return np.asarray(np.maximum(most, most[bulk & np.isfinite(most)].max(initial=0.0)))


def _rms(gap: Gaps, bulk: npt.NDArray[np.bool_]) -> float:
    usual = gap[bulk & np.isfinite(gap)]
    return float(np.sqrt(np.mean(usual**2))) if usual.size else 0.0
