"""Reading files that others named: plain ones alone, for a pipe may never say anything and a device never end."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader

MOST = 256 << 20
"""Bytes of a document that is read whole."""


def open_plain(path: str | os.PathLike[str]) -> BufferedReader:
    """A file to read bytes from. Raises `OSError` where there is none, or it is not a plain one; waits for nobody."""
    return open(path, "rb", opener=_opener)


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a document in UTF-8, its ends of lines as Python has them. Raises `OSError` as `open_plain` does and
    for one of more than `MOST` bytes, `UnicodeDecodeError` for what is no text."""
    with open_plain(path) as file:
        data = file.read(MOST + 1)
    if len(data) > MOST:
        raise OSError(errno.EFBIG, f"it is larger than {MOST >> 20} MiB", os.fspath(path))
    return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def _opener(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "it is not a plain file", path)
