"""Building every entry of a configuration on the workers of a cluster.

What a worker has built comes back in its cache, out of which it is placed here as if it had been built here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from ..compiler.locked import Locked
from ..errors import OptcError
from ..storage.store import Store
from ..storage.workspace import Workspace
from .cluster import Cluster, Died, Errand, Lost, Parcel
from .lock import Lock
from .matrix import Job, Result, build_one, worst

_SENT = ("data", "student", "latency_table")
"""Options that name what has to be there, too."""


def build_there(
    jobs: Sequence[Job],
    lock: Lock,
    cluster: Cluster,
    *,
    cache: str | None,
    strict: bool = False,
    tell: Callable[[Result], None],
) -> int:
    """Build all `jobs` on the workers of `cluster`; all else is as in `matrix.build`."""
    statuses: list[int] = []

    def report(result: Result) -> None:
        statuses.append(result.status)
        if result.locked is not None and not strict:
            lock.builds[result.job.name] = result.locked
        tell(result)

    try:
        with ExitStack() as stack:
            folder = cache or stack.enter_context(Workspace())
            begun: list[tuple[Job, Locked | None, Errand]] = []
            for job in jobs:
                try:
                    locked = lock.of(job.name, strict=strict)
                    begun.append((job, locked, _begin(job, locked, cluster)))
                except OptcError as error:
                    report(Result(job, error.exit_status, str(error).splitlines()[0]))
            for job, locked, errand in begun:
                report(_received(job, locked, errand, folder))
    finally:
        if not strict and any(status in (0, 3) for status in statuses):
            lock.write()
    return worst(statuses)


def _begin(job: Job, locked: Locked | None, cluster: Cluster) -> Errand:
    entry, options = job.entry, job.entry.options
    fields = [name for name in _SENT if isinstance(getattr(options, name), str | os.PathLike)]
    parcels = [_parcel(entry.path, model=True)]
    parcels += [_parcel(os.fspath(getattr(options, name)), model=name == "student") for name in fields]
    name = os.path.basename(entry.artifact(job.target))
    return cluster.submit(_built_there, parcels, fields, job, locked, name)


def _parcel(path: str, *, model: bool) -> Parcel | str:
    return path if path.startswith("zoo:") else Parcel.of(path, model=model)


def _received(job: Job, locked: Locked | None, errand: Errand, cache: str) -> Result:
    """What a worker built, placed here; where it could not, why."""
    try:
        result = errand.result(Store(cache))
    except Died as error:
        return Result(job, 1, f"it ended the worker, or its process there: {error}")
    except Lost as error:
        return Result(job, 2, f"{error}; build it without --scheduler")
    assert isinstance(result, Result)
    return build_one(job, locked, cache) if result.status in (0, 3) else replace(result, job=job)


def _built_there(
    paths: Sequence[str], cache: str, fields: Sequence[str], job: Job, locked: Locked | None, name: str
) -> Result:
    """On a worker: build a job for its cache; the files themselves are not kept."""
    model, *others = paths
    places: dict[str, Any] = dict(zip(fields, others, strict=True))
    there = replace(job, entry=replace(job.entry, path=model, options=replace(job.entry.options, **places)))
    with Workspace() as folder:
        result = build_one(there, locked, cache, os.path.join(folder, name))
    return replace(result, report=None, locked=None)
