"""Where files go: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from ..errors import OutputError
from ..ir.printable import has_control
from ..storage.workspace import Workspace
from ..targets.base import Artifact, Target

if sys.platform != "win32":
    from ..storage.abandoned import remove_abandoned


def check_place(path: str, flag: str = "-o", target: Target | None = None) -> None:
    """Fail before the work rather than after it where no file can be put at `path`. Raises `OutputError`."""
    if has_control(path):
        raise OutputError(f"{path!r} holds a control character; choose another place with {flag}")
    path = os.path.abspath(path)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise OutputError(f"there is no folder {folder}; make it, or choose another place with {flag}")
    if target is not None:
        target.check_place(path)
    if os.path.isdir(path) and (target is None or not target.folder):
        raise OutputError(f"{path} is a folder; name a file with {flag}")
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        # A device or a pipe would be replaced by a file.
        raise OutputError(f"{path} is not a plain file; name one with {flag}")
    with staging(path, flag):  # the only sure way to know is to try
        pass


@contextlib.contextmanager
def staging(path: str | None, flag: str = "-o") -> Iterator[str]:
    """A folder to emit into, beside the output so that moving the files there is a rename; gone afterwards."""
    beside = tempfile.gettempdir() if path is None else os.path.dirname(os.path.abspath(path))
    for folder in {beside, tempfile.gettempdir()}:
        if sys.platform != "win32":
            remove_abandoned(folder)
    try:
        workspace = Workspace(beside)
    except OSError as error:
        raise OutputError(f"cannot write in {beside}: {error.strerror}; choose another place with {flag}") from error
    with workspace as staged:
        yield staged


def move(staged: Artifact, path: str, target: Target) -> Artifact:
    """Put the checked files in their place."""
    try:
        return target.place(staged, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another place with -o") from error
