"""Commands over hostile files, in a forked child."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 10


@dataclass
class Case:
    """One command over the files in `folder`; `files` are those that it may leave."""

    folder: Path
    words: list[str]
    kind: str
    files: set[str] = field(default_factory=lambda: {"out.onnx"})


@dataclass(frozen=True)
class Outcome:
    status: int
    said: str
    memory: int
    seconds: float


def attempt(words: list[str], folder: Path) -> Outcome:
    """Run one command in a child, within limits that only keep the machine alive."""
    said = folder.parent / f"{folder.name}.said"
    child = os.fork()
    if child == 0:
        status = 70
        try:
            _limit(3 * SECONDS)
            _say_to(said)
            os.chdir(folder)
            status = _command(words)
        finally:
            os._exit(status)
    return _waited(child, said)


def attempts(
    command: Callable[[list[str]], int],
    folder: Path,
    numbers: Iterable[int],
    case: Callable[[int], Case],
    judge: Callable[[Case, int, Outcome], bool],
) -> tuple[int, Outcome]:
    """Run `command` on the words of many cases in one child, each in `folder`, which `case` fills for a number.

    `judge` gets each with its number and outcome in the child, and says whether the child can go on. Returns the number
    of the last that was tried, and how the child ended: with a status where a case ended it.
    """
    said, at = folder.parent / f"{folder.name}.said", folder.parent / f"{folder.name}.at"
    child = os.fork()
    if child == 0:
        status = 70
        try:
            _limit(resource.RLIM_INFINITY)
            _say_to(said)
            os.chdir(folder)
            for number in numbers:
                at.write_text(str(number))
                os.ftruncate(1, 0)
                one = case(number)
                signal.alarm(20 * SECONDS)
                before = _seconds()
                ended = command(one.words)
                sys.stdout.flush()
                sys.stderr.flush()
                outcome = Outcome(ended, said.read_text(errors="replace"), _memory(), _seconds() - before)
                if not judge(one, number, outcome):
                    break
            status = 0
        finally:
            os._exit(status)
    outcome = _waited(child, said)
    number = int(at.read_text())
    at.unlink()
    return number, outcome


def _limit(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(20 * SECONDS)


def _say_to(file: Path) -> None:
    output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115


def _command(words: list[str]) -> int:
    from optc.cli.app import run

    status = run(words)
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _waited(child: int, said: Path) -> Outcome:
    _, code, used = os.wait4(child, 0)
    text = said.read_text(errors="replace")
    said.unlink()
    return Outcome(os.waitstatus_to_exitcode(code), text, used.ru_maxrss << 10, used.ru_utime + used.ru_stime)
