"""What several options are written as, and the values they stand for."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable, Mapping, Sequence

from ..errors import OutputError, SpecError
from .console import Voice


def check_apart(path: str, flag: str, others: Mapping[str, str | None]) -> None:
    """Raises `OutputError` where `path` is a file that the same command reads or writes otherwise."""
    for other, name in others.items():
        if name and os.path.realpath(path) == os.path.realpath(name):
            raise OutputError(f"{flag} would overwrite {other}, which is {path} too; name another file")


def reports(paths: Sequence[str], others: Mapping[str, str | None], *, whole: Sequence[str] = ()) -> list[str]:
    """The files that receive a report, each of a known form, in a place that takes it, and none that is named twice.

    The forms `whole`, made of a whole build, are among them. Raises `OutputError` and `SpecError`.
    """
    from ..compiler import check_place
    from ..report.files import PAGE, extension

    for i, path in enumerate(paths):
        check_apart(path, "--report", {**others, **{f"--report {other}": other for other in paths[:i]}})
        if extension(path, whole) == PAGE:
            from ..report.page import require

            require()
        check_place(path, "--report")
    return list(paths)


def command_text(command: Callable[..., object], values: Mapping[str, object]) -> str:
    """The command line that calls `command` with `values`, by parameter; what is as by default is left out,
    and how it speaks."""
    words = ["optc"]
    for name, parameter in inspect.signature(command).parameters.items():
        value = values.get(name, parameter.default)
        option = name.rstrip("_").replace("_", "-")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            words.append(str(value))
        elif value == parameter.default or isinstance(value, Voice):
            continue
        elif isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            for one in value if isinstance(value, list | tuple) else (value,):
                words += [f"--{option}", str(one)]
    return shlex.join(words)


def cache_place(cache: str | None, no_cache: bool) -> str | None:
    """The folder of the cache, or `None` where none is to be used. Raises `SpecError`."""
    from ..storage.store import cache_folder

    if cache is not None and no_cache:
        raise SpecError("--cache and --no-cache cannot both be given")
    return None if no_cache else cache if cache is not None else cache_folder()


def thread_counts(text: str) -> tuple[int, ...]:
    """Numbers of threads, each once. Raises `SpecError`."""
    counts = dict.fromkeys(text.split(","))
    if not all(one.strip().isdecimal() and int(one) <= 1024 for one in counts):
        raise SpecError(f"--threads takes numbers parted by commas, such as 1,4, not '{text}'")
    return tuple(int(one) for one in counts)
