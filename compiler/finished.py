"""Not building again what has been built: the files and the record of a whole build, kept under what went into it.

The key holds the digests of the model, the samples, the options with the code of every pass, and the versions; so the
figures of the check, measured once, are those of the build that measured them, and the record says `cached`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..errors import ModelError
from ..ir.graph import Graph
from ..ir.text import snapshot
from ..passes.cached import Ruling
from ..report.build import BuildReport
from ..storage.plain import plain, restored
from ..storage.store import Store
from ..targets.base import Artifact


@dataclass(frozen=True, slots=True)
class Finished:
    """A whole build. `graph` is the digest of its result, `files` are the names of the artifact's files with their
    digests, `main` the one that a user loads; `dims` are the sizes of symbolic dimensions in the samples."""

    report: BuildReport
    graph: str
    files: tuple[tuple[str, str], ...]
    main: str
    dims: dict[str, int]
    rulings: dict[str, Ruling]

    @staticmethod
    def of(report: BuildReport, main: str, dims: dict[str, int]) -> Finished:
        return Finished(report, "", tuple(report.outputs.items()), main, dims, report.rulings)


def keep(store: Store, key: str, done: Finished, folder: str, graph: Graph) -> None:
    """Keep a build whose files lie in `folder`."""
    for name, _ in done.files:
        with open(os.path.join(folder, name), "rb") as file:
            store.add(lambda copy, file=file: shutil.copyfileobj(file, copy))  # type: ignore[misc]
    digest = store.add(lambda file: snapshot.write(graph, file))
    record = replace(done, graph=digest, report=replace(done.report, budget=None))
    store.put(key, json.dumps(plain(record)).encode())


def find(store: Store, key: str, main: str, rulings: Mapping[str, Ruling]) -> tuple[Finished, Graph] | None:
    """The build of the file `main` under `key`, with all of its files there and whole, in which the guard ruled as is
    `rulings` already; `None` where there is none."""
    document = store.get(key)
    if document is None:
        return None
    try:
        done: Finished = restored(Finished, json.loads(document))
        if not all(_is_of(name, main) for name in (done.main, *dict(done.files))):
            raise ValueError("a file of it lies elsewhere")
        path = store.object(done.graph)
        if path is None or any(store.object(digest) is None for _, digest in done.files):
            return None
        graph = snapshot.read(path)
    except OSError:  # another process has just made room, or it is not ours to read
        return None
    except (ValueError, RecursionError, ModelError):
        store.forget(key)
        return None
    if any(rulings.get(name, ruling) != ruling for name, ruling in done.rulings.items()):
        return None
    done.report.cached = True
    for step in done.report.steps:
        step.report.cached = True
    return done, graph


def _is_of(name: str, main: str) -> bool:
    """Whether `name` is the artifact's main file or one that is named after it, in the same folder: what a record says
    is checked, for whoever could write it chooses where files go."""
    return name.isprintable() and os.path.basename(name) == name and (name == main or name.startswith(f"{main}."))


def place(store: Store, done: Finished, folder: str) -> Artifact | None:
    """Copy the files of a build to `folder`; `None` where another process has just removed one."""
    try:
        for name, digest in done.files:
            shutil.copyfile(store.place("objects", digest), os.path.join(folder, name))
    except OSError:
        return None
    files = [os.path.join(folder, name) for name, _ in done.files]
    return Artifact(os.path.join(folder, done.main), tuple(files), sum(os.path.getsize(file) for file in files))
