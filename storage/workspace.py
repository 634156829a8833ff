"""Folders for what is not finished: gone with the process, or, where it was killed, removed by the next one.

A workspace holds a file that says the workspace's own name, part of which is random, and is locked by the process that
works in it. Only a folder that says so, belongs to the user and is locked by nobody is an abandoned one; nothing else
is ever touched, whatever it is called. Of an abandoned one the files go, and then the folder, if it is empty: folders
in it are not entered.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # there is none on Windows, where nothing abandoned is looked for
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".optc-"
_NAME = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8,}")
_OWNER = ".owner"
"""The file in a workspace that says the name of the workspace."""


class Workspace(tempfile.TemporaryDirectory[str]):
    """A new folder in `folder`, or in the system's for temporary files; `name` is its path. Raises `OSError`.

    `cleanup` removes it with all that it holds, and so do leaving the context and the end of the process.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(prefix=_PREFIX, dir=None if folder is None else os.path.abspath(folder))
        self._lock = -1
        try:
            if fcntl is not None:
                self._lock = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY)
                with contextlib.suppress(OSError):  # some file systems know no locks
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Only now, so that nobody takes for abandoned what is not locked yet.
            with open(os.path.join(self.name, _OWNER), "w", encoding="utf-8") as file:
                file.write(os.path.basename(self.name))
        except OSError:
            self.cleanup()
            raise

    def cleanup(self) -> None:
        with contextlib.suppress(OSError):  # what cannot be removed is for the next process
            super().cleanup()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def __del__(self) -> None:
        if getattr(self, "_lock", -1) >= 0:
            os.close(self._lock)


def files(folder: str) -> list[str]:
    """The names of what was put into a workspace, in order."""
    return sorted(name for name in os.listdir(folder) if name != _OWNER)


def remove_abandoned(folder: str) -> None:
    """Remove the workspaces in `folder` whose processes were killed."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        for name in [name for name in os.listdir(folder) if _NAME.fullmatch(name)]:
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError), _opened(path) as descriptor:
                if os.fstat(descriptor).st_uid == os.geteuid() and _says(descriptor) == name:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _empty(descriptor)
                    os.rmdir(path)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    """A folder that is one itself, not a link to one: opening a pipe would wait for its writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _says(folder: int) -> str:
    """The name that the workspace gives itself."""
    descriptor = os.open(_OWNER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.read(descriptor, 256).decode(errors="replace")
    finally:
        os.close(descriptor)


def _empty(folder: int) -> None:
    """Remove the files of a workspace, the one that tells that it is one last."""
    names = sorted(os.listdir(folder), key=lambda name: name == _OWNER)
    for name in names:
        inside = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(inside.st_mode):
            raise OSError  # nothing here makes one that outlives it
        os.unlink(name, dir_fd=folder)
