"""`python -m optc`, and the `optc` command."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    # A job that is told to end cleans up as one that is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from .cli.app import run
    except KeyboardInterrupt:  # while the modules load
        print("optc: interrupted; no output was written", file=sys.stderr)
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
