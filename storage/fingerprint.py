"""The digest by which content is known: 160 bits of BLAKE2b."""

from __future__ import annotations

import hashlib
import io
import os
from typing import BinaryIO, cast

_CHUNK = 1 << 20


class Fingerprint(io.RawIOBase):
    """A file that keeps nothing but the digest of what is written to it."""

    def __init__(self, *parts: str) -> None:
        """Begins with `parts`, each of which counts by itself: ("ab", "c") is not ("a", "bc")."""
        self._hash = hashlib.blake2b(digest_size=20)
        for part in parts:
            data = part.encode(errors="surrogateescape")
            self._hash.update(len(data).to_bytes(8, "little") + data)

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        view = memoryview(data).cast("B")
        self._hash.update(view)
        return len(view)

    @property
    def sink(self) -> BinaryIO:
        """This, for who wants a file."""
        return cast(BinaryIO, self)

    @property
    def text(self) -> str:
        """The digest so far, 40 hexadecimal digits."""
        return self._hash.hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """The digest of a file's content. Raises `OSError`."""
    digest = Fingerprint()
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            digest.write(piece)
    return digest.text
