"""Two files or folders that change places at once, so that nobody, killed or not, sees one of them missing."""

from __future__ import annotations

import ctypes
import os
import sys

_HERE = -100
_EXCHANGE = 2
"""RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS."""


def exchange(one: str, other: str) -> bool:
    """Let what is at `one` be at `other` and the other way round; false, and nothing is done, where the system or the
    file system cannot. Both are on one file system."""
    names = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None)
        if sys.platform == "darwin":
            return bool(library.renamex_np(*names, _EXCHANGE) == 0)
        return bool(library.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0)
    except (AttributeError, OSError, TypeError):
        return False
