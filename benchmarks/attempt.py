"""One command over hostile files, in a forked child."""

from __future__ import annotations

import os
import resource
import signal
import sys
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
            resource.setrlimit(resource.RLIMIT_CPU, (3 * SECONDS, 3 * SECONDS))
            resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.alarm(20 * SECONDS)
            output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(output, stream)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            os.chdir(folder)
            from optc.cli.app import run

            status = run(words)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
    _, code, used = os.wait4(child, 0)
    text = said.read_text(errors="replace")
    said.unlink()
    return Outcome(os.waitstatus_to_exitcode(code), text, used.ru_maxrss << 10, used.ru_utime + used.ru_stime)
