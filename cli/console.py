"""How commands speak: standard output, as wide as a table needs, and one line on a missed budget."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TextIO

from cyclopts import Group, Parameter

from ..ir.printable import has_control, shortened, spelled

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ..report.progress import TerminalProgress
    from ..report.verdict import Verdict

MISSED = 3
"""The exit status where a budget was missed, or models differ that should not."""

OUTPUT = Group("Output", sort_key=5)


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, slots=True)
class Voice:
    """How a command speaks, the same for all of them.

    Parameters
    ----------
    json
        Print JSON, and nothing else.
    verbose
        Show every layer and node rather than the first of them, and on standard error what the log tells.
    quiet
        Print only errors and what was missed.
    traceback
        Show the Python traceback of an error.
    """

    json: Annotated[bool, Parameter(name="--json", negative=(), show_default=False)] = False
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative=(), show_default=False)] = False
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=(), show_default=False)] = False
    traceback: Annotated[bool, Parameter(name="--traceback", negative=(), show_default=False)] = False

    @property
    def loud(self) -> bool:
        """Whether to speak to a person."""
        return not self.json and not self.quiet

    @contextlib.contextmanager
    def progress(self) -> Iterator[TerminalProgress | None]:
        """Bars on standard error where that is a terminal; `None` where nobody is to be told."""
        if not self.loud or not on_terminal(sys.stderr):
            yield None
            return
        from ..report.progress import TerminalProgress

        with TerminalProgress(console(stderr=True)) as progress:
            yield progress

    def say(self, document: object, drawn: RenderableType) -> None:
        """Print `document` for a program, or `drawn` for a person; text as it is."""
        if self.json:
            out(as_json(document, indent=2))
        elif not self.quiet:
            out(drawn) if isinstance(drawn, str) else console().print(drawn)


PLAINLY = Voice()


_PIPE = 1 << 12
"""Columns where no terminal shows them: what reads there wants a row in a line, and names whole."""
_FORCED = ("FORCE_COLOR", "TTY_COMPATIBLE")
"""Variables by which what is no terminal counts as one."""
_SENTENCE = 500
"""Characters in which numbers and paths are told from words by their colour."""


def out(text: str, *, error: bool = False) -> None:
    """Print lines, to standard output or as an `error`: all that commands say goes through here or through `console`,
    for names and messages come from files, and their control characters are not for the terminal."""
    text = spelled(shortened(text) if error else text, lines=True)
    print(text, file=sys.stderr if error else sys.stdout, flush=error)


def as_json(document: object, *, indent: int | None = None) -> str:
    """JSON as people read it, but for the control characters that JSON leaves as they are."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    return "".join(f"\\u{ord(one):04x}" if one != "\n" and has_control(one) else one for one in text)


def on_terminal(stream: TextIO) -> bool:
    """Whether what is written there is redrawn: on a terminal, and where the environment makes `rich` take it for one.
    Tells without loading `rich`."""
    if not stream.isatty() and not any(map(os.environ.get, _FORCED)):
        return False
    return console(stderr=stream is sys.stderr).is_terminal


def console(*, stderr: bool = False) -> Console:
    """Standard output or error, at least 80 columns wide: a table in less would show no figure whole."""
    from rich.console import Console, ConsoleOptions
    from rich.highlighter import ReprHighlighter
    from rich.segment import Segment
    from rich.text import Text

    class Brief(ReprHighlighter):
        """Its patterns take time with the square of a word's length."""

        def highlight(self, text: Text) -> None:
            if len(text) <= _SENTENCE:
                super().highlight(text)

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would exit here, with a status of its own

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else spelled(text, lines=True), style, control)

    # A name such as :smile: is one, and stays so.
    plain = Plain(stderr=stderr, emoji=False, highlighter=Brief())
    plain.width = max(80, plain.width) if plain.is_terminal else _PIPE
    return plain


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """What is printed meanwhile goes nowhere once its reader has gone, as that of `| head` does, or its disk is full:
    the command goes on, and its exit status is its own."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        silence()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        silence()
        out("optc: standard output cannot be written: its disk is full", error=True)


def silence() -> None:
    """Let what standard output still holds go nowhere, or Python would complain on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(verdict: Verdict | None) -> int:
    """Name the limits that were missed on standard error, the nearest first; the exit status that this means."""
    from ..report.verdict import sentence

    if verdict is None or verdict.met:
        return 0
    missed = verdict.misses
    out(f"optc: the budget was missed: {'; '.join(map(sentence, missed))}", error=True)
    return MISSED


class _Log(logging.StreamHandler[TextIO]):
    """Standard error as it is when something is told: while a bar is drawn, what writes above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return spelled(super().format(record), lines=True)


@contextlib.contextmanager
def listening(argv: Sequence[str]) -> Iterator[None]:
    """Show what the library logs where `--verbose` is given."""
    logger = logging.getLogger("optc")
    handler, level = _Log(), logger.level
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    wanted = "--verbose" in argv or "-v" in argv
    if wanted:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        if wanted:
            logger.removeHandler(handler)
            logger.setLevel(level)
