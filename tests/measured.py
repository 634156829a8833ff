"""A command in a process of its own, with the memory and the time that it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import optc


@dataclass(frozen=True)
class Measured:
    """`memory` is the highest number of bytes resident, `seconds` are those of the processor."""

    status: int
    said: str
    memory: int
    seconds: float


def measured(
    words: Sequence[str], folder: Path, *, most: int = 16 << 30, seconds: int = 120, modules: Sequence[str] = ()
) -> Measured:
    """Run `optc` with `words`; the limits only keep the machine alive."""
    place = {"OPTC_CACHE": "off", "TMPDIR": str(folder)}
    limits = {"RLIMIT_DATA": most, "RLIMIT_CPU": seconds}
    done = optc(*words, cwd=folder, environment=place, limits=limits, modules=modules)
    return Measured(done.returncode, done.stdout + done.stderr, done.memory, done.seconds)
