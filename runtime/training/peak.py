"""How much memory a piece of work takes at its peak, above what the process had before."""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType

_STATM = "/proc/self/statm"
_INTERVAL = 0.0005
"""Seconds between two looks."""


class Peak:
    """A context that measures; `bytes` is the rise of the resident memory. Where a system does not tell the memory of
    the moment, the rise of the highest memory so far stands for it, which is too little for a second piece of work;
    where it tells nothing, 0."""

    def __init__(self) -> None:
        self.bytes = 0
        self._before = 0
        self._done = threading.Event()
        self._watch: threading.Thread | None = None

    def __enter__(self) -> Peak:
        self._before = _resident()
        if os.path.exists(_STATM):
            self._watch = threading.Thread(target=self._look, name="optc-peak", daemon=True)
            self._watch.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(_INTERVAL):
            self.bytes = max(self.bytes, _resident() - self._before)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        if self._watch is not None:
            self._watch.join()
        self.bytes = max(self.bytes, _resident() - self._before)


def _resident() -> int:
    if sys.platform == "win32":
        return 0
    if os.path.exists(_STATM):
        with open(_STATM, encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024
