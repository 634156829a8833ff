"""Answers that the clock gave, taken again from a lock file or the cache: text, and read as what was asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from ..storage.plain import restored

_T = TypeVar("_T")


class Recall(Protocol):
    def __call__(self, question: str, decide: Callable[[], str], read: Callable[[str], _T]) -> _T:
        """What `read` makes of the answer known to `question`, or of what `decide` says. Raises `LockError` where a
        lock file answers with what `read` refuses with `ValueError`."""


def decided(question: str, decide: Callable[[], str], read: Callable[[str], _T]) -> _T:
    """The answer where nothing is known."""
    return read(decide())


def ratio(text: str) -> float:
    """How many times as long, or as much, something takes. Raises `ValueError`."""
    number = float(text)
    if not number >= 0 or math.isinf(number):
        raise ValueError(f"{text} is no ratio")
    return number


def count(text: str) -> int:
    """How many; none is an answer, too. Raises `ValueError`."""
    number = int(text)
    if not 0 <= number < 1 << 62:
        raise ValueError(f"{text} is no count")
    return number


def positive(text: str) -> int:
    """How many, and at least one. Raises `ValueError`."""
    return 1 + count(str(int(text) - 1))


def ratios(number: int) -> Callable[[str], Sequence[float]]:
    """A reader of the JSON list of so many ratios."""

    def read(text: str) -> Sequence[float]:
        numbers: list[float] = _json(list[float], text)
        if len(numbers) != number:
            raise ValueError(f"{len(numbers)} ratios, not {number}")
        return [ratio(str(one)) for one in numbers]

    return read


def texts(text: str) -> dict[str, str]:
    """A JSON object of texts. Raises `ValueError`."""
    pairs: dict[str, str] = _json(dict[str, str], text)
    return pairs


def _json(hint: object, text: str) -> Any:
    try:
        return restored(hint, json.loads(text))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
