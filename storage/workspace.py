"""Folders for what is not finished: gone with the process, or, where it was killed, removed by the next one.

A workspace holds a file that says the workspace's own name, part of which is random, and is locked by the process that
works in it. Only a folder that says so, belongs to the user and is locked by nobody is an abandoned one; nothing else
is ever touched, whatever it is called. Of an abandoned one the files go, and then the folder, if it is empty.

Folders in it are not entered, but for those that its maker recorded: of these, the plain files that it recorded go, by
their names, and then the folders, if they are empty. What else is there stays, and the workspace with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterable

if sys.platform != "win32":
    import fcntl

_PREFIX = ".optc-"
NAME = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8,}")
OWNER = ".owner"
"""The file in a workspace that says the name of the workspace, and in each line behind it a file in a folder of it."""
DEEPEST = 3
"""Folders of a workspace that lead to a recorded file."""
_OPEN: weakref.WeakSet[Workspace] = weakref.WeakSet()
"""Those of this process, as the system lists its open files: they go with it, however it ends."""


class Workspace(tempfile.TemporaryDirectory[str]):
    """A new folder in `folder`, or in the system's for temporary files; `name` is its path. Raises `OSError`.

    `cleanup` removes it with all that it holds, and so do leaving the context and the end of the process.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(prefix=_PREFIX, dir=None if folder is None else os.path.abspath(folder))
        self._lock = -1
        _OPEN.add(self)
        self._recorded: dict[str, set[str]] = {}
        try:
            if sys.platform != "win32":
                self._lock = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY)
                with contextlib.suppress(OSError):  # some file systems know no locks
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Only now, so that nobody takes for abandoned what is not locked yet.
            with open(os.path.join(self.name, OWNER), "w", encoding="utf-8") as file:
                file.write(os.path.basename(self.name))
        except OSError:
            self.cleanup()
            raise

    def record(self, folder: str, names: Iterable[str]) -> None:
        """Let `cleanup`, and whoever finds this workspace abandoned, remove of its `folder` the files `names` alone.

        Recorded before they are made. What else comes to be in that folder stays, and the workspace with it. Raises
        `OSError`.
        """
        recorded = self._recorded.setdefault(folder, set())
        recorded |= (fresh := set(names) - recorded)
        record(self.name, folder, sorted(fresh))

    def cleanup(self) -> None:
        try:
            for name in files(self.name):  # what tells whose they are goes last
                inside = os.path.join(self.name, name)
                if name in self._recorded:
                    _remove_files(inside, self._recorded[name])
                elif os.path.isdir(inside) and not os.path.islink(inside):
                    shutil.rmtree(inside)
                else:
                    os.unlink(inside)
            super().cleanup()
        except OSError:  # what cannot be removed is for the next process, and not for the end of this one
            self._finalizer.detach()  # type: ignore[attr-defined]
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def __del__(self) -> None:
        if getattr(self, "_lock", -1) >= 0:
            os.close(self._lock)


def remove_all() -> None:
    """Remove every workspace of this process, which is about to end without leaving their contexts."""
    for workspace in list(_OPEN):
        workspace.cleanup()


def record(workspace: str, folder: str, names: Iterable[str]) -> None:
    """Let whoever finds `workspace` abandoned remove the files `names` of its `folder`, and that; nothing is recorded
    where `workspace` is a folder of another kind. Raises `OSError`."""
    if not NAME.fullmatch(os.path.basename(workspace)):
        return
    with contextlib.suppress(FileNotFoundError):
        flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with open(os.open(os.path.join(workspace, OWNER), flags), "rb+", buffering=0) as file:
            if file.readline().rstrip(b"\n").decode(errors="replace") == os.path.basename(workspace):
                file.write("".join(f"\n{folder}/{name}" for name in names).encode())


def _remove_files(folder: str, names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    os.rmdir(folder)


def files(folder: str) -> list[str]:
    """The names of what was put into a workspace, in order."""
    return sorted(name for name in os.listdir(folder) if name != OWNER)
