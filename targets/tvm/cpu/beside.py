"""Work that a copy of this process does beside it: what two threads must not do at once, two processes may.

A copy (fork) has the thread alone that made it. There is none where another thread might hold a lock, which nobody
would give back in the copy: where other threads than such as end with the process run, or where the caller is one of
them. Nor where there is one core, nor outside Linux, whose libraries alone stand it. What a copy does not finish is
done here.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from ....runtime import cpu
from ....runtime.interrupt import ENDS

_PATIENCE = 30.0
"""Seconds that a copy may take longer than ten times what its maker took."""


def both(here: Callable[[], None], there: Callable[[], None]) -> None:
    """Do both, the second in a copy of this process where there may be one. It must show only in files."""
    if sys.platform != "win32" and may_copy():
        _both(here, there)
        return
    here()
    there()


def may_copy() -> bool:
    """Whether a copy of this process may work beside it."""
    alone = all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    return (
        sys.platform == "linux" and alone and threading.current_thread() is threading.main_thread() and cpu.cores() > 1
    )


if sys.platform != "win32":

    def _both(here: Callable[[], None], there: Callable[[], None]) -> None:
        start = time.monotonic()
        try:
            process = copy(there)
        except OSError:  # no more processes, or no memory for one
            here()
            there()
            return
        try:
            here()
        except BaseException:
            _end(process)
            raise
        if not _finished(process, 10 * (time.monotonic() - start) + _PATIENCE):
            there()

    def copy(work: Callable[[], None]) -> int:
        """The number of a process that does the work and ends, with 0 where it could. Raises `OSError` where there can
        be no more."""
        process = os.fork()
        if process:
            return process
        status = 1
        try:
            # Whoever ends it need not wait until it is back in Python; it has nothing to tidy up.
            signal.set_wakeup_fd(-1)
            for one in (signal.SIGINT, *ENDS):
                if signal.getsignal(one) is not signal.SIG_IGN:
                    signal.signal(one, signal.SIG_DFL)
            work()
            status = 0
        finally:
            os._exit(status)  # and what the caller would tidy up stays the caller's

    def _finished(process: int, seconds: float) -> bool:
        """Whether a copy ends in so many seconds, and well; it is ended otherwise."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return status == 0
            time.sleep(0.002)
        _end(process)
        return False

    def _end(process: int) -> None:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
