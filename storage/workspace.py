"""Folders for what is not finished: gone with the process, or, where it was killed, removed by the next one.

A workspace holds a file that says the workspace's own name, part of which is random, and is locked by the process that
works in it. Only a folder that says so, belongs to the user and is locked by nobody is an abandoned one; nothing else
is ever touched, whatever it is called. Of an abandoned one the files go, and then the folder, if it is empty. While it
is made, and while it goes, it cannot say so itself: a link beside it does, and proves an empty folder alone.

Folders in it are not entered, but for those that its maker recorded: of these, the plain files that it recorded go, by
their names, and then the folders, if they are empty. What else is there stays, and the workspace with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
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
CLAIM = ".claim"
"""What the name of a workspace ends in that is also a link to it: it is about to be one, or not to be one any more."""
DEEPEST = 3
"""Folders of a workspace that lead to a recorded file."""
_TRIES = 8
_OPEN: weakref.WeakSet[Workspace] = weakref.WeakSet()
"""Those of this process, as the system lists its open files: they go with it, however it ends."""


class Workspace:
    """A new folder in `folder`, or in the system's for temporary files; `name` is its path. Raises `OSError`.

    `cleanup` removes it with all that it holds, and so do leaving the context and the end of the process.
    """

    def __init__(self, folder: str | None = None) -> None:
        place = tempfile.gettempdir() if folder is None else os.path.abspath(folder)
        self._recorded: dict[str, set[str]] = {}
        self._locks: list[int] = []
        for tries in range(_TRIES):
            self.name = os.path.join(place, _PREFIX + secrets.token_hex(6))
            try:
                self._create()
                return
            except (FileExistsError, FileNotFoundError, BlockingIOError):  # somebody took it for abandoned just now
                if tries == _TRIES - 1:
                    raise

    def _create(self) -> None:
        """Make the folder; the claim stands from before it is there until it says itself whose it is."""
        claim(self.name)
        try:
            os.mkdir(self.name, 0o700)
        except OSError:
            disclaim(self.name)
            raise
        self._finalizer = weakref.finalize(self, _remove, self.name, self._recorded, self._locks)
        _OPEN.add(self)
        try:
            if sys.platform != "win32":
                self._locks.append(os.open(self.name, os.O_RDONLY | os.O_DIRECTORY))
                _lock(self._locks[0])
            # Only now, so that nobody takes for abandoned what is not locked yet.
            with open(os.path.join(self.name, OWNER), "x", encoding="utf-8") as file:
                file.write(os.path.basename(self.name))
        except OSError:
            self.cleanup()
            raise
        disclaim(self.name)

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    def record(self, folder: str, names: Iterable[str]) -> None:
        """Let `cleanup`, and whoever finds this workspace abandoned, remove of its `folder` the files `names` alone.

        Recorded before they are made. What else comes to be in that folder stays, and the workspace with it. Raises
        `OSError`.
        """
        recorded = self._recorded.setdefault(folder, set())
        recorded |= (fresh := set(names) - recorded)
        record(self.name, folder, sorted(fresh))

    def cleanup(self) -> None:
        _remove(self.name, self._recorded, self._locks)
        self._finalizer.detach()  # what cannot be removed is for the next process, and not for the end of this one


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


def _remove(workspace: str, recorded: dict[str, set[str]], locks: list[int]) -> None:
    try:
        for name in files(workspace):
            inside = os.path.join(workspace, name)
            if name in recorded:
                _remove_files(inside, recorded[name])
            elif os.path.isdir(inside) and not os.path.islink(inside):
                shutil.rmtree(inside)
            else:
                os.unlink(inside)
        claim(workspace)  # what tells whose it is goes last
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(workspace, OWNER))
        os.rmdir(workspace)
        disclaim(workspace)
    except OSError:
        pass
    finally:
        while locks:
            os.close(locks.pop())


def claim(workspace: str) -> None:
    """Say beside a workspace that it is one, while it does not say so itself: a link is there whole or not at all."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # some file systems know no links
            os.symlink(os.path.basename(workspace), workspace + CLAIM)


def disclaim(workspace: str) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.unlink(workspace + CLAIM)


if sys.platform != "win32":

    def _lock(folder: int) -> None:
        """Raises `BlockingIOError` where somebody else has locked it."""
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # some file systems know no locks


def _remove_files(folder: str, names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    os.rmdir(folder)


def files(folder: str) -> list[str]:
    """The names of what was put into a workspace, in order."""
    return sorted(name for name in os.listdir(folder) if name != OWNER)
