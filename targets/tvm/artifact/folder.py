"""An artifact as a folder, or as one .tar of it; opened so that it can be run."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from ....errors import OutputError, TargetError
from ....storage.exchange import exchange
from ....storage.workspace import Workspace, files
from . import manifest

_HOLES = 1 << 26


def pack(folder: str, path: str) -> None:
    """Write every file of `folder` into the .tar `path`; the same files give the same bytes."""
    try:
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name in files(folder):
                entry = tarfile.TarInfo(name)
                entry.size = os.path.getsize(os.path.join(folder, name))
                entry.mode = 0o755 if name.endswith(".so") else 0o644
                with open(os.path.join(folder, name), "rb") as file:
                    tar.addfile(entry, file)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def unpack(path: str, folder: str) -> None:
    """Put the files of the .tar `path` into `folder`. Raises `TargetError` where it is none of ours."""
    try:
        _check_dense(path)
        with tarfile.open(path, "r:") as tar:
            for entry in tar.getmembers():
                if not entry.isfile() or entry.issparse() or os.path.basename(entry.name) != entry.name:
                    raise TargetError(f"{path} holds '{entry.name}', which no artifact does")
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise TargetError(f"{path} is no artifact of a library target: {error}") from error


def _check_dense(path: str) -> None:
    """Raises `TargetError` where a file is mostly holes: what it holds would fill the disk when it is copied."""
    about = os.stat(path)
    if about.st_size > _HOLES + 4 * 512 * getattr(about, "st_blocks", about.st_size):
        raise TargetError(f"{path} is mostly a hole, and no artifact")


@contextmanager
def opened(path: str) -> Iterator[str]:
    """The folder of an artifact: itself, or a temporary one with what the .tar holds."""
    if os.path.isdir(path):
        yield path
        return
    with Workspace() as folder:
        unpack(path, folder)
        yield folder


def place_folder(staged: str, path: str) -> None:
    """Put what the .tar `staged` holds into the folder `path`, whole or not at all; an earlier artifact goes.

    Raises `OutputError` where `path` is a folder of something else.
    """
    try:
        aside = Workspace(os.path.dirname(os.path.abspath(path)))
        with aside, tarfile.open(staged, "r:") as tar:
            fresh, old = os.path.join(aside.name, "new"), os.path.join(aside.name, "old")
            aside.record("new", tar.getnames())
            os.mkdir(fresh)
            unpack(staged, fresh)
            check_folder(path)
            earlier = manifest.listed(path)
            aside.record("new", earlier)
            if not os.path.isdir(path):
                os.replace(fresh, path)
            elif not exchange(fresh, path):
                os.replace(path, old)  # which nobody removes before there is another in its place
                os.replace(fresh, path)
                aside.record("old", earlier)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another place with -o") from error


def check_folder(path: str) -> None:
    """Raises `OutputError` where `path` is there and is neither an empty folder nor an earlier artifact with nothing
    beside its files, for a folder that is replaced is gone with all that it holds."""
    if not os.path.lexists(path):
        return
    if not os.path.isdir(path):
        raise OutputError(f"{path} is a file, and the artifact is a folder; name another with -o, or NAME.tar")
    listed = manifest.listed(path)
    if others := [name for name in sorted(os.listdir(path)) if name not in listed or not _is_plain(path, name)]:
        raise OutputError(f"{path} holds what is no part of an artifact ({others[0]}); name a new folder, or NAME.tar")


def _is_plain(folder: str, name: str) -> bool:
    return stat.S_ISREG(os.lstat(os.path.join(folder, name)).st_mode)


def target_of(path: str) -> str:
    """The text of the target that the artifact at `path` was built for, or none where it is no folder and no .tar."""
    if not os.path.isdir(path) and not path.endswith(".tar"):
        return ""
    with opened(path) as folder:
        return str(manifest.read(folder, path)["target"])
