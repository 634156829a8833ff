"""A content-addressed folder: what is costly to make is kept under the digest of what it was made from.

`objects/` holds files by the digest of their content, `records/` small documents by a key of the caller's, each behind
the digest of its own text. Both are checked when they are read; what is damaged is removed, told in `faults`, and made
again. Files appear whole or not at all, so any number of processes may share one folder. `trim` removes what was not
used for longest where the folder takes more than `limit` bytes.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from .fingerprint import Fingerprint, file_digest
from .workspace import Workspace, record

if sys.platform != "win32":
    from .abandoned import remove_abandoned

DEFAULT_LIMIT = 4 << 30
"""Bytes that the user's cache may take."""
DOCUMENT = 64 << 20
"""Bytes of a record that is read."""

KINDS = ("objects", "records")
ROOT = 0
"""The user who can write anywhere."""

_T = TypeVar("_T")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_DIGEST = re.compile(r"[0-9a-f]{40}")
_FIRST = re.compile(r"[0-9a-f]{2}")
_HEAD = 41
"""Bytes of the digest of a record and the end of its line."""


class Store:
    """The folder `folder`, made for the user alone when first written to.

    Who can write in the folder decides what is built, so one that others can write in is left alone, and one of another
    user is only read; either is told in `faults`. Each entry stands alone: one that cannot be read, lies behind a link
    or can be written by others is made again, one that cannot be written is not kept. `limit` bounds the bytes; one
    object takes at most a quarter of that.
    """

    __slots__ = ("folder", "limit", "faults", "_refused", "_read_only", "_owners")

    def __init__(self, folder: str, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = os.path.abspath(folder)
        self.limit = limit
        self.faults: list[str] = []
        self._refused = self._read_only = False
        self._owners = {ROOT}
        if sys.platform != "win32":
            self._owners.add(os.geteuid())
        with contextlib.suppress(OSError):  # it is not there yet
            self._look(os.stat(self.folder))

    def _look(self, about: os.stat_result) -> None:
        if sys.platform == "win32":
            return
        self._owners.add(about.st_uid)
        if about.st_mode & _OTHERS_WRITE:
            self._refused = True
            self.fault(f"the cache {self.folder} is not used, for other users can write in it: chmod go-w it")
        elif about.st_uid not in (os.geteuid(), ROOT):
            self._read_only = True
            self.fault(f"the cache {self.folder} is another user's, and is only read")

    @property
    def keeps(self) -> bool:
        """Whether anything is written."""
        return not self._refused and not self._read_only

    def fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)

    def add(self, write: Callable[[BinaryIO], None]) -> str:
        """The digest of what `write` writes, which is kept unless it is too large."""
        with contextlib.closing(_Copy(self)) as copy:
            write(copy.sink)
            copy.keep("objects", copy.text)
            return copy.text

    def object(self, digest: str) -> str | None:
        """The path of the object with this digest, checked; `None` where there is none."""
        if not _DIGEST.fullmatch(digest):
            return None
        return self._checked(self.place("objects", digest), lambda path: path if file_digest(path) == digest else None)

    def put(self, key: str, document: bytes) -> None:
        """Keep `document` as the record `key`."""
        with contextlib.closing(_Copy(self)) as copy:
            copy.write(_digest(document, key) + b"\n" + document)
            copy.keep("records", key)

    def get(self, key: str, most: int = DOCUMENT) -> bytes | None:
        """The record `key` of at most so many bytes, checked; `None` where there is none."""
        return self._checked(self.place("records", key), lambda path: _document(path, key, most))

    def _checked(self, path: str, read: Callable[[str], _T | None]) -> _T | None:
        """What `read` makes of a file that is there and whole, `None` of any other."""
        if self._refused:
            return None
        try:
            self._look_at(path)
            if (content := read(path)) is not None:
                with contextlib.suppress(OSError):  # it is only older than it could be
                    os.utime(path)
                return content
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.fault(f"an entry of the cache cannot be read: {path}: {error.strerror}")
            return None
        self._damaged(path)
        return None

    def _look_at(self, path: str) -> None:
        """Raises `OSError` where an entry is no plain file, lies behind a link, or is one that others can write."""
        below = os.path.dirname(path)
        self._look_in(below)
        about = os.lstat(path)
        if not stat.S_ISREG(about.st_mode):
            raise PermissionError(0, "it is no plain file")
        self._refuse_of_others(about)

    def _look_in(self, folder: str) -> None:
        """The same of the folders that lead to an entry."""
        for one in (os.path.dirname(folder), folder):
            about = os.lstat(one)
            if not stat.S_ISDIR(about.st_mode):
                raise PermissionError(0, "a folder of the cache is a link, or none")
            self._refuse_of_others(about)

    def _refuse_of_others(self, about: os.stat_result) -> None:
        if sys.platform != "win32" and (about.st_mode & _OTHERS_WRITE or about.st_uid not in self._owners):
            raise PermissionError(0, "other users can write in it, or it is one of theirs")

    def forget(self, key: str) -> None:
        """Drop the record `key`, which says what its reader cannot use."""
        self._damaged(self.place("records", key))

    def trim(self) -> None:
        """Remove what killed processes left, and the files used least recently, down to nine tenths of the limit."""
        if not self.keeps:
            return
        if sys.platform != "win32":
            remove_abandoned(self.folder)
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        if total <= self.limit:
            return
        for _, size, path in files:
            if total <= 0.9 * self.limit:
                return
            total -= size
            with contextlib.suppress(OSError):  # another process may have been faster
                if self._is_ours(path):
                    os.unlink(path)

    def entries(self) -> Iterator[tuple[str, str]]:
        """(kind, name) of everything kept."""
        for _, _, path in self._files():
            kind = os.path.basename(os.path.dirname(os.path.dirname(path)))
            yield kind, os.path.basename(path)

    def content(self, kind: str, name: str) -> bytes:
        """An entry as another store takes it."""
        with open(self.place(kind, name), "rb") as file:
            return file.read()

    def take(self, kind: str, name: str, content: bytes) -> None:
        """Keep an entry of another store; one that is damaged is not kept."""
        if kind not in KINDS or not _DIGEST.fullmatch(name):
            return
        head, _, document = content.partition(b"\n")
        if name == _digest(content).decode() if kind == "objects" else head == _digest(document, name):
            with contextlib.closing(_Copy(self)) as copy:
                copy.write(content)
                copy.keep(kind, name)

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """(time of the last use, bytes, path) of what lies where entries do."""
        for kind in KINDS:
            top = os.path.join(self.folder, kind)
            for first in _names(top, _FIRST):
                for name in _names(os.path.join(top, first), _DIGEST):
                    with contextlib.suppress(OSError):
                        path = self.place(kind, name)
                        self._look_at(path)
                        status = os.stat(path)
                        yield status.st_mtime, status.st_size, path

    def _is_ours(self, path: str) -> bool:
        """Whether a file proves that it is an entry: the folder may hold files of the user's, whatever their names."""
        name = os.path.basename(path)
        if os.path.dirname(os.path.dirname(path)) == os.path.join(self.folder, "objects"):
            return file_digest(path) == name
        return _document(path, name, self.limit // 4) is not None

    def place(self, kind: str, digest: str) -> str:
        return os.path.join(self.folder, kind, digest[:2], digest)

    def _damaged(self, path: str) -> None:
        self.fault(f"an entry of the cache was damaged, and is made again: {path}")
        with contextlib.suppress(OSError):
            os.unlink(path)


class _Copy(Fingerprint):
    """A new file of a store, whole or not at all; where none can be written, only the digest of it."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._left = store.limit // 4
        self._file: BinaryIO | None = None
        self._aside: Workspace | None = None
        if store.keeps:
            with self._guarded():
                os.makedirs(store.folder, 0o700, exist_ok=True)
                self._aside = Workspace(store.folder)
                place = os.path.join(self._aside.name, "entry")
                self._file = open(place, "xb", opener=lambda path, flags: os.open(path, flags, 0o600))  # noqa: SIM115 - closed by `close`

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        size = super().write(data)
        self._left -= size
        if self._left < 0:
            self.close()
        elif self._file is not None:
            with self._guarded():
                self._file.write(data)
        return size

    def keep(self, kind: str, name: str) -> None:
        """Put the file in its place."""
        if self._file is not None:
            with self._guarded():
                self._file.flush()
                place = self._store.place(kind, name)
                record(self._store.folder, f"{kind}/{name[:2]}", [name])  # a temporary cache goes though it is killed
                folder = os.path.dirname(place)
                for one in (os.path.dirname(folder), folder):
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(one, 0o700)
                self._store._look_in(folder)
                os.replace(self._file.name, place)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
        if self._aside is not None:
            self._aside.cleanup()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """A folder that cannot be written must not stop a build."""
        try:
            yield
        except OSError as error:
            self._store.fault(f"the cache {self._store.folder} cannot be written: {error.strerror}")
            self.close()


def _document(path: str, key: str, most: int) -> bytes | None:
    """The document of the record `key`; `None` where it is damaged, of another key, or longer than `most`."""
    with open(path, "rb") as file:
        head = file.readline(_HEAD).rstrip(b"\n")
        document = file.read(most + 1)
    return document if len(document) <= most and _digest(document, key) == head else None


def _digest(document: bytes, *key: str) -> bytes:
    digest = Fingerprint(*key)
    digest.write(document)
    return digest.text.encode()


def _names(folder: str, form: re.Pattern[str]) -> list[str]:
    """The names in a folder of such a form; none where it cannot be read."""
    try:
        return [name for name in os.listdir(folder) if form.fullmatch(name)]
    except OSError:
        return []


def cache_folder() -> str | None:
    """The folder that OPTC_CACHE names, or one in the user's own cache; `None` where OPTC_CACHE is `off`."""
    named = os.environ.get("OPTC_CACHE", "")
    if named == "off":
        return None
    if named:
        return named
    from platformdirs import user_cache_dir

    return user_cache_dir("optc", appauthor=False)
