"""Folders for what is not finished: gone with the process, or, where it was killed, removed by the next one.

A workspace holds a file that says the workspace's own name, part of which is random, and is locked by the process that
works in it. Only a folder that says so, belongs to the user and is locked by nobody is an abandoned one; nothing else
is ever touched, whatever it is called. Of an abandoned one the files go, and then the folder, if it is empty.

Folders in it are not entered, but for those that its maker recorded: of these, the plain files that it recorded go, by
their names, and then the folder, if it is empty. What else is there stays, and the workspace with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence

try:
    import fcntl
except ImportError:  # there is none on Windows, where nothing abandoned is looked for
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".optc-"
_NAME = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8,}")
_OWNER = ".owner"
"""The file in a workspace that says the name of the workspace, and in each line behind it a file in a folder of it."""
_LONGEST = 1 << 20


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

    def record(self, folder: str, names: Iterable[str]) -> None:
        """Let whoever finds this workspace abandoned remove the files `names` of its `folder`, and that.

        Recorded before they are made. Raises `OSError`.
        """
        with open(os.path.join(self.name, _OWNER), "a", encoding="utf-8") as file:
            file.writelines(f"\n{folder}/{name}" for name in names)

    def cleanup(self) -> None:
        with contextlib.suppress(OSError):  # what cannot be removed is for the next process
            for name in files(self.name):  # what tells whose they are goes last
                inside = os.path.join(self.name, name)
                if os.path.isdir(inside) and not os.path.islink(inside):
                    shutil.rmtree(inside)
                else:
                    os.unlink(inside)
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
                said, *recorded = _says(descriptor)
                if os.fstat(descriptor).st_uid == os.geteuid() and said == name:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove_recorded(descriptor, recorded)
                    _empty(descriptor)
                    os.rmdir(path)


@contextlib.contextmanager
def _opened(path: str, parent: int | None = None) -> Iterator[int]:
    """A folder that is one itself, not a link to one: opening a pipe would wait for its writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _says(folder: int) -> list[str]:
    """The name that the workspace gives itself, and what it recorded."""
    descriptor = os.open(_OWNER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return [""]
        return os.read(descriptor, _LONGEST).decode(errors="replace").split("\n")
    finally:
        os.close(descriptor)


def _remove_recorded(workspace: int, recorded: Sequence[str]) -> None:
    """Remove the files that a workspace recorded, each in a folder right in it, and these folders where that is all."""
    inside: dict[str, list[str]] = {}
    for line in recorded:
        folder, _, name = line.partition("/")
        if _is_single(folder) and _is_single(name):
            inside.setdefault(folder, []).append(name)
    for folder, names in inside.items():
        with contextlib.suppress(FileNotFoundError):
            with _opened(folder, workspace) as descriptor:
                if os.fstat(descriptor).st_dev != os.fstat(workspace).st_dev:
                    raise OSError  # somebody has mounted it
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        if stat.S_ISREG(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                            os.unlink(name, dir_fd=descriptor)
            os.rmdir(folder, dir_fd=workspace)


def _is_single(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _empty(folder: int) -> None:
    """Remove the files of a workspace, the one that tells that it is one last."""
    names = sorted(os.listdir(folder), key=lambda name: name == _OWNER)
    for name in names:
        inside = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(inside.st_mode):
            raise OSError  # it is not ours, or holds what is not
        os.unlink(name, dir_fd=folder)
