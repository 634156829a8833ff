"""Writing a text file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile

from ..errors import OutputError


def write_text(path: str, text: str) -> None:
    """Write `text` to `path` by writing aside and renaming. Raises `OutputError` where that is not possible."""
    folder = os.path.dirname(os.path.abspath(path))
    aside = ""
    try:
        descriptor, aside = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(aside, 0o666 & ~umask)
        os.replace(aside, path)
    except BaseException as error:
        if aside:
            with contextlib.suppress(OSError):
                os.unlink(aside)
        if isinstance(error, OSError):
            raise OutputError(f"cannot write {path}: {error.strerror}; choose another place") from error
        raise
