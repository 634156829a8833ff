"""What is run within bounds: more memory or time than it may take ends it, and not the machine.

Only Linux counts the memory of a process so that the next allocation fails; elsewhere only the time is bounded.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_STEP = 0.05


@contextmanager
def bounded_memory(most: int) -> Iterator[None]:
    """Let this process hold at most `most` bytes more than it does now: what asks for more gets none."""
    here = _data()
    if here is None or sys.platform == "win32":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([here + most, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data() -> int | None:
    """Bytes that count for the limit of this process; `None` where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:")), None)


@contextmanager
def bounded_time(seconds: float, end: Callable[[], None]) -> Iterator[None]:
    """Call `end` once this process has worked for so many seconds; one that sleeps, or is stopped, does not work."""
    over = threading.Event()
    clocks = (time.perf_counter, time.process_time)
    start = [clock() for clock in clocks]

    def watch() -> None:
        while not over.wait(_STEP):
            if min(clock() - begin for clock, begin in zip(clocks, start, strict=True)) > seconds:
                end()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
