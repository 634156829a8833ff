"""Work that copies of this process do beside it: what two threads must not do at once, two processes may.

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
from contextlib import ExitStack, suppress
from io import FileIO

from ....runtime import cpu
from ....runtime.interrupt import ENDS

_PATIENCE = 30.0
"""Seconds that copies may take longer than ten times what their maker took."""


def each(work: Callable[[int], None], count: int) -> None:
    """Do `work` for every number below `count`, at most 256: here, and in a copy of this process for each other core.

    Whoever is free takes the next number, so what takes long should come first. It must show only in files.
    """
    copies = min(cpu.cores(), count) - 1
    if sys.platform != "win32" and copies > 0 and may_copy():
        _each(work, count, copies)
        return
    for number in range(count):
        work(number)


def may_copy() -> bool:
    """Whether a copy of this process may work beside it."""
    alone = all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    return (
        sys.platform == "linux" and alone and threading.current_thread() is threading.main_thread() and cpu.cores() > 1
    )


if sys.platform != "win32":

    def _each(work: Callable[[int], None], count: int, copies: int) -> None:
        with ExitStack() as stack:
            (numbers, offer), (finished, finish) = _pipe(stack), _pipe(stack)
            offer.write(bytes(range(count)))
            offer.close()

            def share() -> None:
                while number := numbers.read(1):
                    work(number[0])
                    finish.write(number)

            start, processes = time.monotonic(), list[int]()
            try:
                with suppress(OSError):  # no more processes, or no memory for one
                    while len(processes) < copies:
                        processes.append(copy(share))
                share()
                deadline = time.monotonic() + 10 * (time.monotonic() - start) + _PATIENCE
                while processes and _ended(processes[-1], deadline):
                    processes.pop()
            finally:
                for process in processes:
                    _end(process)
            finish.close()
            left = set(range(count)).difference(finished.read())
        for number in sorted(left):
            work(number)

    def _pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
        """The two ends of a pipe: what one writes the other reads."""
        out, into = os.pipe()
        return stack.enter_context(FileIO(out, "rb")), stack.enter_context(FileIO(into, "wb"))

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

    def _ended(process: int, deadline: float) -> bool:
        """Whether a copy ends by then."""
        while time.monotonic() < deadline:
            if os.waitpid(process, os.WNOHANG)[0]:
                return True
            time.sleep(0.002)
        return False

    def _end(process: int) -> None:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
