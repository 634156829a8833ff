"""Files that appear whole or not at all: written under another name in the same folder, then renamed into place."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from types import TracebackType
from typing import BinaryIO

from ..errors import OutputError

try:
    import fcntl
except ImportError:  # there is none on Windows, where nothing abandoned is looked for
    fcntl = None  # type: ignore[assignment]

ABANDONED = ".optc-"
"""What names of files and folders begin with that are nobody's once their process has gone."""

_YOUNG = 2.0
"""Seconds in which a process that has just made a file gets hold of it."""


def hold(descriptor: int) -> None:
    """Mark an open file or folder as in use, until it is closed or the process ends."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # some file systems know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def discard_abandoned(folder: str) -> None:
    """Remove what killed processes left in `folder`: whatever is named so and held by nobody."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        for name in [name for name in os.listdir(folder) if name.startswith(ABANDONED)]:
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if time.time() - os.fstat(descriptor).st_mtime < _YOUNG:
                        continue
                    if os.path.isdir(path):
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        os.unlink(path)
                finally:
                    os.close(descriptor)


class Replacement:
    """Writes `path`, and files beside it whose names begin with its own, as a context manager.

    Leaving the context renames all files into place, the one opened first last, so that it never names what is not
    there yet; an exception, Ctrl-C included, removes them and leaves what was there before. An `OSError` inside
    becomes an `OutputError`. A symbolic link at `path` is replaced, what it points to is not touched.
    """

    __slots__ = ("path", "_files")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._files: list[tuple[BinaryIO, str, str]] = []

    def open(self, suffix: str = "") -> BinaryIO:
        """A new file that will be `path + suffix`."""
        place = self.path + suffix
        folder = os.path.dirname(place) or "."
        if not os.path.isdir(folder):
            raise OutputError(f"{place}: cannot be written: there is no folder {folder!r}")
        if os.path.isdir(place):
            raise OutputError(f"{place}: cannot be written: it is a folder; give the name of a file")
        if os.path.exists(place) and not os.path.isfile(place):
            raise OutputError(f"{place}: cannot be written: it is not a plain file")
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        number = 0
        while True:
            aside = os.path.join(folder, f"{ABANDONED}{os.getpid()}-{number}.tmp")
            try:
                file = os.fdopen(os.open(aside, flags, 0o666), "wb")
            except FileExistsError:
                number += 1
            except OSError as error:
                raise OutputError(f"{place}: cannot be written: {error.strerror}") from error
            else:
                break
        hold(file.fileno())
        self._files.append((file, aside, place))
        return file

    def name(self, file: BinaryIO, suffix: str) -> str:
        """Let `file` be `path + suffix` rather than what it was opened as; returns that."""
        self._files = [(one, aside, self.path + suffix if one is file else to) for one, aside, to in self._files]
        return self.path + suffix

    def __enter__(self) -> Replacement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                for file, _, _ in self._files:
                    file.close()
                for _, aside, place in reversed(self._files):
                    os.replace(aside, place)
                self._files.clear()
        except OSError as failure:
            error = failure
        finally:
            for file, aside, _ in self._files:
                _discard(file, aside)
        if isinstance(error, OSError):
            raise OutputError(f"{self.path}: cannot be written: {error.strerror or error}") from error


def _discard(file: BinaryIO, aside: str) -> None:
    with contextlib.suppress(OSError):  # what it could not write is not wanted any more
        file.close()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(aside)
