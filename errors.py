"""The errors a user can meet.

One root, so that a caller catches everything `optc` raises on purpose with one `except`. A message says what is wrong,
where (graph, node, value), and what to do about it. Anything that is not an `OptcError` is a fault of ours.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

LISTED = 60
"""Known names that one line lists."""


_NO_MEMORY = (
    *("bad_alloc", "bad allocation", "Cannot allocate memory", "failed to map segment"),
    "can't start new thread",
)
"""What libraries of C and C++ say where there is no memory."""


def lacks_memory(error: BaseException) -> bool:
    """Whether there was no memory to give: for an array, a library, a thread."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return any(words in str(error) for words in _NO_MEMORY)


class OptcError(Exception):
    """Root of every error that `optc` raises on purpose; `exit_status` is what the command line exits with."""

    exit_status: int = 2


class ModelError(OptcError):
    """The model is broken, or holds something that cannot be handled."""


class DataError(OptcError):
    """The calibration samples do not fit the model."""


class TargetError(OptcError):
    """The target is unknown, not installed, or cannot take this model."""


class EmissionError(OptcError):
    """A target failed on a graph that it takes, or what it wrote answers otherwise than the graph: a fault of ours."""

    exit_status = 1


class OutputError(OptcError):
    """The result cannot be written where it was asked for."""


class SpecError(OptcError):
    """Text that a user wrote (a pipeline, an option) does not parse.

    `text` and `position` (a character offset) put a caret under the place when both are known.
    """

    def __init__(self, message: str, *, text: str = "", position: int | None = None) -> None:
        if position is not None:
            message = f"{message}\n  {text}\n  {' ' * position}^"
        super().__init__(message)
        self.text = text
        self.position = position


class LockError(OptcError):
    """What is built, or what comes out, is not what the lock file says."""


class PassError(OptcError):
    """A pass crashed or left the graph invalid: a fault of ours, or of the author of the pass."""

    exit_status = 1

    def __init__(self, message: str, *, pass_name: str, position: int) -> None:
        super().__init__(f"pass {position} ({pass_name}): {message}")
        self.pass_name = pass_name
        self.position = position


class BudgetMissed(OptcError):
    """The budget was not met; the best result was written all the same."""

    exit_status = 3


def nearest(word: str, words: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known word nearest to `word`; the list of all when none is near, as far as one reads
    it: a model has thousands of layers."""
    names = sorted(words)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f" Did you mean '{close[0]}'?"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f" Known: {', '.join(names[:LISTED])}{more}." if names else ""


def expect(value: object, kinds: type | tuple[type, ...], what: str, error: type[OptcError]) -> None:
    """Raise `error` where a caller of the library gave a value that is none of `kinds`. `what` says what it is to be.

    A bool is no number here.
    """
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        kind = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise error(f"{what}, not {'None' if value is None else kind}")
