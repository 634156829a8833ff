"""A command in a process of its own, with the memory and the time that it took."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """`memory` is the highest number of bytes resident, `seconds` are those of the processor."""

    status: int
    said: str
    memory: int
    seconds: float


def measured(words: Sequence[str], folder: Path, *, most: int = 16 << 30, seconds: int = 120) -> Measured:
    """Run `optc` with `words`; the limits only keep the machine alive."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    place = {**os.environ, "OPTC_CACHE": "off", "OMP_NUM_THREADS": "2", "TMPDIR": str(folder)}
    with open(folder / "said", "w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "optc", *words], cwd=folder, env=place, preexec_fn=limit, stdout=said, stderr=said
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    return Measured(process.returncode, text, used.ru_maxrss << 10, used.ru_utime + used.ru_stime)
