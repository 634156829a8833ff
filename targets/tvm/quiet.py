"""TVM's warnings, kept from the terminal: they name files of its own and nothing of the user's model."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_WARNING = re.compile(rb"^\[\d\d:\d\d:\d\d\] \S+:\d+: Warning: .*\n?", re.MULTILINE)
_STDERR = 2


@contextmanager
def quiet() -> Iterator[None]:
    """What is written to the standard error within, by TVM's C++ too, comes when it is left, without TVM's warnings."""
    try:
        kept = os.dup(_STDERR)
    except OSError:  # a process without one
        yield
        return
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        os.dup2(file.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, _STDERR)
            os.close(kept)
            file.seek(0)
            if text := _WARNING.sub(b"", file.read()):
                os.write(_STDERR, text)
