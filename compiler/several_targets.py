"""One model for several targets, one after the other; passes run once for all targets of the same facts.

What passes make is known by the facts of the target, not by its name (`passes.cached`): the second target of the same
facts finds all of it in the cache, or without one in a folder that lasts as long as the command.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ..errors import EmissionError, OutputError, SpecError, TargetError
from ..report.build import TargetRow
from ..storage.workspace import Workspace
from ..targets import table
from ..targets.base import Target
from .constant_inputs import freeze
from .data import draw, is_stream
from .locked import Locked
from .model import name_of, read, stem_of
from .order import Order
from .place import check_place
from .result import Build, Interrupted
from .stages import build, read_order


def build_all(order: Order, targets: Sequence[Target]) -> Build:
    """Build what is ordered for all `targets`, into a folder at the order's path, made where it is missing.

    The lock of the options holds a record each by the text of the target. Every place is looked at before the first
    build, and every target at the inputs of the model. Where one target fails later, those built before it stay: each
    artifact is whole. Raises what `build` raises; a `TargetError` says which target it is of.
    """
    options, lock = order.options, order.options.lock
    if is_stream(order.data):
        shown = read(order.model)
        if options.freeze:
            freeze(shown)
        options.fixed.apply(shown)
        order = replace(order, data=draw(order.model, order.data, shown, options.seed))
    if isinstance(lock, Locked):
        raise SpecError("several targets are held against a record each: lock={'onnx': …, 'arm64': …}")
    records: Mapping[str, Locked] = lock or {}
    done: list[Build] = []
    with _folder(order.path) as folder, _cache(order.cache) as store:
        names = table.file_names(stem_of(name_of(order.model)), targets)
        paths = [os.path.join(folder, name) if folder else None for name in names]
        for target, path in zip(targets, paths, strict=True):
            if path is not None:
                check_place(path, target=target)
        model, _ = read_order(order)
        for target in targets:
            try:
                target.check_inputs(model)
            except TargetError as error:
                raise TargetError(f"{table.spec(target)}: {error}") from error
        for target, path in zip(targets, paths, strict=True):
            text = table.spec(target)
            try:
                one = replace(order, target=target, path=path, cache=store, lock=records.get(text))
                done.append(build(one, target.emit))
            except (EmissionError, TargetError) as error:
                raise type(error)(f"{text}: {error}{_left(done)}") from error
            except Interrupted as stop:
                stop.build = _joined([*done, stop.build])
                raise
            except KeyboardInterrupt:
                if left := _left(done):
                    raise KeyboardInterrupt(f"interrupted{left}") from None
                raise
    return _joined(done)


def _joined(builds: Sequence[Build]) -> Build:
    """The first of several builds, which holds the others; every report compares all of them."""
    rows = [TargetRow.of(one.report) for one in builds]
    for one in builds:
        one.report.targets = rows
    return replace(builds[0], others=tuple(builds[1:]))


def _left(done: Sequence[Build]) -> str:
    files = [one.artifact.path for one in done if one.artifact is not None]
    return f" (written before: {', '.join(files)})" if files else ""


@contextlib.contextmanager
def _folder(path: str | None) -> Iterator[str]:
    """The folder for several artifacts; one that was made and stays empty goes again."""
    if path is None:
        yield ""
        return
    if os.path.lexists(path) and not os.path.isdir(path):
        raise OutputError(f"{path} is a file, and several targets need a folder; name one with -o")
    is_new = not os.path.isdir(path)
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}; choose another with -o") from error
    try:
        yield path
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                os.rmdir(path)


@contextlib.contextmanager
def _cache(cache: str | None) -> Iterator[str]:
    if cache is not None:
        yield cache
        return
    with Workspace() as folder:
        yield folder
