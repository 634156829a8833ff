"""Files that appear whole or not at all: written in a folder beside them, then renamed into place."""

from __future__ import annotations

import contextlib
import os
from types import TracebackType
from typing import BinaryIO

from ..errors import OutputError
from .workspace import Workspace


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file of text, whole or not at all; what is no Unicode, as in the name of a file, is spelled by escapes.

    Raises `OutputError`.
    """
    with Replacement(path) as files:
        files.open().write(text.encode(errors="backslashreplace"))


class Replacement:
    """Writes `path`, and files beside it whose names begin with its own, as a context manager.

    Leaving the context renames all files into place, the one opened first last, so that it never names what is not
    there yet; an exception, Ctrl-C included, removes them and leaves what was there before. An `OSError` inside
    becomes an `OutputError`. A symbolic link at `path` is replaced, what it points to is not touched.
    """

    __slots__ = ("path", "_files", "_aside")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._files: list[tuple[BinaryIO, str, str]] = []
        self._aside: Workspace | None = None

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
        try:
            if self._aside is None:
                self._aside = Workspace(folder)
            aside = os.path.join(self._aside.name, str(len(self._files)))
            file = open(aside, "xb")  # noqa: SIM115 - closed with the context
        except OSError as error:
            raise OutputError(f"{place}: cannot be written: {error.strerror}") from error
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
            for file, _, _ in self._files:
                with contextlib.suppress(OSError):  # what it could not write is not wanted any more
                    file.close()
            if self._aside is not None:
                self._aside.cleanup()
        if isinstance(error, OSError):
            raise OutputError(f"{self.path}: cannot be written: {error.strerror or error}") from error
