"""What several options are written as, and the values they stand for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from ..errors import OutputError, SpecError


def check_apart(path: str, flag: str, others: Mapping[str, str | None]) -> None:
    """Raises `OutputError` where `path` is a file that the same command reads or writes otherwise."""
    for other, name in others.items():
        if name and os.path.realpath(path) == os.path.realpath(name):
            raise OutputError(f"{flag} would overwrite {other}, which is {path} too; name another file")


def reports(paths: Sequence[str], others: Mapping[str, str | None]) -> list[str]:
    """The files that receive a report, each of a known form, in a place that takes it, and none that is named twice.

    Raises `OutputError` and `SpecError`.
    """
    from ..compiler import check_place
    from ..report.files import extension

    for i, path in enumerate(paths):
        check_apart(path, "--report", {**others, **{f"--report {other}": other for other in paths[:i]}})
        extension(path)
        check_place(path, "--report")
    return list(paths)


def numbers(text: str, flag: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(map(math.isfinite, found)) or (flag == "--std" and min(found) <= 0):
        kind = "positive numbers" if flag == "--std" else "numbers"
        raise SpecError(f"{flag} takes {kind} parted by commas, not '{text}'")
    return found


def thread_counts(text: str) -> tuple[int, ...]:
    """Numbers of threads, each once. Raises `SpecError`."""
    found = dict.fromkeys(text.split(","))
    if not all(one.strip().isdecimal() and int(one) <= 1024 for one in found):
        raise SpecError(f"--threads takes numbers parted by commas, such as 1,4, not '{text}'")
    return tuple(int(one) for one in found)


def dims(texts: Sequence[str]) -> dict[str, int]:
    try:
        pairs = [text.rsplit("=", 1) for text in texts]
        return {name: int(size) for name, size in pairs}
    except ValueError:
        raise SpecError(f"--dim takes NAME=SIZE, such as T=48, not '{' '.join(texts)}'") from None


def image_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and (width or height).isdecimal() and int(height) and int(width or height)):
        raise SpecError(f"--resize takes HEIGHTxWIDTH, such as 224x224, not '{text}'")
    return int(height), int(width or height)
