"""`python -m optc`, and the `optc` command."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import warnings
from types import FrameType

_INTERRUPTED = 130
_YOUNG = 200_000
"""Objects after which Python's collector looks at them. After 700, as it does unless told, it looks for cycles in what
is being imported, and in each copy of a large graph, again and again: a tenth of the time of a command."""
_WARNING = r"(PIL|matplotlib|ml_dtypes|numpy|onnx\w*|optc|scipy|tvm)\b"
"""Modules whose warnings are of how they are used, which is no business of who runs the command."""


def main() -> None:
    gc.set_threshold(_YOUNG)
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=_WARNING)
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        signal.default_int_handler(number, frame)

    try:
        from .runtime.interrupt import ENDS, listen

        # A job that is told to end, or whose terminal goes, cleans up as one that is interrupted.
        ends = [one for one in (signal.SIGINT, *ENDS) if signal.getsignal(one) is not signal.SIG_IGN]  # as below nohup
        if ends:
            listen(ends, stop)
        from .cli.app import run

        status = run(sys.argv[1:], interrupted=lambda: bool(signals))
    except (Exception, KeyboardInterrupt) as error:  # while the modules load, which may make another error of it
        if not signals and not isinstance(error, KeyboardInterrupt):
            raise
        print("optc: interrupted; no output was written", file=sys.stderr)
        status = _INTERRUPTED
    if status == _INTERRUPTED:
        # An interrupt that came while Python made a class is remembered, and would end the process as by the signal.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    # Of what is left when a process ends, nothing need be looked over once more.
    gc.freeze()
    sys.exit(status)


if __name__ == "__main__":
    main()
