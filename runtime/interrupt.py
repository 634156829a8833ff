"""Ends a process that is told to while native code runs.

A signal becomes a `KeyboardInterrupt` once the main thread is back in Python, and what a code generator or a runtime
computes in one call may take minutes. So a thread hears of every signal as it comes; where the main thread does not
within a second, that thread ends the process, with its tools and its workspaces. There is no such thread under Windows.

What comes at a moment at which it would be lost is sent again: an object that is freed may not end anything, and
extensions that Cython wrote swallow every exception while they are imported.
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
_AGAIN = 128
"""Added to the number of a signal that is to be sent again."""
_IMPORTS = frozenset({"<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>"})
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
    since: list[float] = []
    usual = sys.unraisablehook
    coming, woken = os.pipe()

    def again(number: int) -> None:
        with contextlib.suppress(BlockingIOError):  # so many are waiting there already
            os.write(woken, bytes((number | _AGAIN,)))

    def hear(number: int, frame: FrameType | None) -> None:
        heard[0] = time.monotonic()
        since.append(heard[0])
        # What a user's module does while it is imported may have no end.
        if _importing(frame) and heard[0] - since[0] < _PATIENCE:
            again(number)
        else:
            since.clear()
            handler(number, frame)

    def lost(what: sys.UnraisableHookArgs) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            again(signals[0])
        else:
            usual(what)

    sys.unraisablehook = lost
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


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename in _IMPORTS:
            return True
        frame = frame.f_back
    return False


def _watch(coming: int, signals: frozenset[int], heard: Sequence[float], errors: int | None) -> None:
    while numbers := os.read(coming, 64):
        if lost := {number - _AGAIN for number in numbers if number >= _AGAIN}:
            time.sleep(_STEP)
            for one in lost:
                os.kill(os.getpid(), one)
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
