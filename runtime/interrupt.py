"""Ends a process that is told to while native code runs.

A signal becomes a `KeyboardInterrupt` once the main thread is back in Python, and what a code generator or a runtime
computes in one call may take minutes. So a thread hears of every signal as it comes; where the main thread does not
within a second, that thread ends the process, with its tools and its workspaces. There is no such thread under Windows.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from ..storage.workspace import remove_all

STATUS = 130
"""The exit status of a process that was interrupted."""
ENDS = (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
"""What tells a process to end, beside Ctrl-C."""
_PATIENCE = 1.0
"""Seconds that the main thread has to be back in Python."""
_STEP = 0.02
_SHOW_CURSOR = "\x1b[?25h"
_Handler = Callable[[int, FrameType | None], None]


def listen(signals: Sequence[int], handler: _Handler) -> None:
    """Handle `signals` by `handler`, in the main thread as ever, and end the process where that does not hear of one.

    For the main thread of a process that is ours; `signals` holds one or more that are not ignored.
    """
    if sys.platform == "win32":
        for one in signals:
            signal.signal(one, handler)
        return
    heard = [time.monotonic()]
    usual = sys.unraisablehook

    def hear(number: int, frame: FrameType | None) -> None:
        heard[0] = time.monotonic()
        handler(number, frame)

    def again(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):  # it came while an object was freed, which nothing may end
            threading.Timer(_STEP, os.kill, (os.getpid(), signals[0])).start()
        else:
            usual(lost)

    sys.unraisablehook = again
    coming, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for one in signals:
        signal.signal(one, hear)
    errors = _copy(sys.stderr.fileno() if sys.stderr is not None else 2)
    threading.Thread(target=_watch, args=(coming, frozenset(signals), heard, errors), daemon=True).start()


def _copy(stream: int) -> int | None:
    """Another number for what is the standard error now: native code may be kept from it for a while."""
    try:
        return os.dup(stream)
    except OSError:
        return None


def _watch(coming: int, signals: frozenset[int], heard: Sequence[float], errors: int | None) -> None:
    while numbers := os.read(coming, 64):
        since = time.monotonic() - _PATIENCE  # it may have been heard before this thread ran
        deadline = time.monotonic() + _PATIENCE
        while signals.intersection(numbers) and heard[0] < since:
            if time.monotonic() > deadline:
                _end(errors)
            time.sleep(_STEP)


def _end(errors: int | None) -> None:
    """End the process here and now, its tools first: they write into what goes next."""
    for process in _children():
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    while any(map(_runs, _children())) and time.monotonic() < deadline:
        time.sleep(_STEP)
    remove_all()
    if errors is not None:
        with contextlib.suppress(OSError):
            line = "optc: interrupted; nothing unfinished is left\n"
            os.write(errors, (f"{_SHOW_CURSOR}\n{line}" if os.isatty(errors) else line).encode())
    os._exit(STATUS)


def _children() -> list[int]:
    """The processes that this one has started; none where the system has no list of them."""
    lists = Path("/proc/self/task").glob("*/children")
    numbers: list[int] = []
    for one in lists:
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            numbers += map(int, one.read_text().split())
    return numbers


def _runs(process: int) -> bool:
    """Whether a child has not ended; one that has waits for the main thread to ask how."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
