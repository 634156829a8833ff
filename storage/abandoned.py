"""What killed processes left: workspaces that say that they are one, and that nobody has locked.

Windows has neither the locks nor the links that this would have to be careful of; nothing is looked for there.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence

from .workspace import CLAIM, DEEPEST, NAME, OWNER, disclaim

if sys.platform != "win32":
    import fcntl
assert sys.platform != "win32"

_LONGEST = 1 << 24


def remove_abandoned(folder: str) -> None:
    """Remove the workspaces in `folder` whose processes were killed."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            path = os.path.join(folder, name.removesuffix(CLAIM))
            if not NAME.fullmatch(os.path.basename(path)):
                continue
            with contextlib.suppress(OSError):
                _remove(path)
            if name.endswith(CLAIM) and _claimed(path) and not os.path.lexists(path):
                disclaim(path)


def _remove(path: str) -> None:
    with _opened(path) as descriptor:
        if os.fstat(descriptor).st_uid != os.geteuid():
            return
        said, *recorded = _says(descriptor)
        if said == os.path.basename(path):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_recorded(descriptor, recorded)
            _empty(descriptor)
            os.rmdir(path)
        elif _claimed(path):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.basename(path).startswith(_says(descriptor)[0]) and os.listdir(descriptor) == [OWNER]:
                os.unlink(OWNER, dir_fd=descriptor)  # it was about to say its name
            os.rmdir(path)


def _claimed(path: str) -> bool:
    """Whether a link of the user's beside a workspace says that it is one."""
    try:
        return os.lstat(path + CLAIM).st_uid == os.geteuid() and os.readlink(path + CLAIM) == os.path.basename(path)
    except OSError:
        return False


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
    try:
        descriptor = os.open(OWNER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return ["/"]
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ["/"]
        return os.read(descriptor, _LONGEST).decode(errors="replace").split("\n")
    finally:
        os.close(descriptor)


def _remove_recorded(workspace: int, recorded: Sequence[str]) -> None:
    """Remove the files that a workspace recorded, and the folders of it that led to them, where that is all."""
    paths = [line.split("/") for line in recorded]
    _remove_files(workspace, [path for path in paths if 2 <= len(path) <= DEEPEST + 1 and all(map(_is_single, path))])


def _remove_files(folder: int, paths: Sequence[Sequence[str]]) -> None:
    below: dict[str, list[Sequence[str]]] = {}
    for head, *rest in paths:
        if rest:
            below.setdefault(head, []).append(rest)
            continue
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISREG(os.stat(head, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(head, dir_fd=folder)
    for name, rests in below.items():
        with contextlib.suppress(OSError):  # what stays keeps the workspace
            with _opened(name, folder) as descriptor:
                if os.fstat(descriptor).st_dev != os.fstat(folder).st_dev:
                    raise OSError  # somebody has mounted it
                _remove_files(descriptor, rests)
            os.rmdir(name, dir_fd=folder)


def _is_single(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _empty(folder: int) -> None:
    """Remove the files of a workspace, the one that tells that it is one last."""
    names = sorted(os.listdir(folder), key=lambda name: name == OWNER)
    for name in names:
        inside = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(inside.st_mode):
            raise OSError  # it is not ours, or holds what is not
        os.unlink(name, dir_fd=folder)
