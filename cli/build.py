"""`optc build`: everything that a configuration asks for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ..errors import SpecError
from .console import MISSED, PLAINLY, Voice, as_json, heard, out
from .values import cache_place, reports

if TYPE_CHECKING:
    from ..project.matrix import Result


def build(
    *names: str,
    config: str = "optc.toml",
    jobs: Annotated[int, Parameter(name=["--jobs", "-j"], validator=Number(gte=0, lte=1024))] = 0,
    memory: str | None = None,
    lock: str | None = None,
    locked: Annotated[bool, Parameter(negative=())] = False,
    cache: Annotated[str | None, Parameter(negative=())] = None,
    no_cache: Annotated[bool, Parameter(name="--no-cache", negative=())] = False,
    scheduler: str | None = None,
    report: Annotated[list[str] | None, Parameter(negative=())] = None,
    voice: Voice = PLAINLY,
) -> int:
    """Build what optc.toml asks for: every model for every target, what has not changed from the cache.

    The exit status is the worst of all builds: 0 done, 3 a missed budget, 2 the user's input, 1 a fault of ours.

    Parameters
    ----------
    names
        Only these: MODEL, or MODEL@TARGET.
    config
        The configuration (see `optc init`).
    jobs
        Builds that run side by side; 0 takes the number of cores. Builds that share a core measure latency less well.
    memory
        Bound on the memory of all builds together, such as 8GB; three quarters of what is free unless given.
    lock
        File that records what was built; beside the configuration as optc.lock unless given.
    locked
        Fail where anything differs from the lock file, and leave that file as it is.
    cache
        Folder of finished passes and builds; that of OPTC_CACHE, or one in the user's cache, unless given.
    no_cache
        Neither use nor fill the cache.
    scheduler
        Address of a Dask scheduler whose workers build, such as tcp://host:8786; needs optc[dask], and on every worker
        the same versions as here.
    report
        File that receives the report of all builds, in the form its extension names: .json, .md (one table), .xml
        (JUnit) or .html (one page). May be given several times.

    Examples
    --------
    optc build
    optc build classifier@onnx --locked
    optc build --report summary.md --report junit.xml
    """
    from ..project.config import load
    from ..project.lock import Lock
    from ..project.matrix import build, jobs_of
    from ..report.files import PAGE
    from ..report.matrix import BuildOutcome, write

    wanted = reports(report or [], {"--config": config}, whole=(PAGE,))
    plan = load(config)
    todo = jobs_of(plan, names)
    record = Lock.read(lock if lock is not None else plan.lock_path, strict=locked)

    results: list[Result] = []

    def tell(result: Result) -> None:
        results.append(result)
        with heard():
            if voice.json:
                out(as_json({"build": result.job.name, "status": result.status, "said": result.line}))
            elif result.status or not voice.quiet:
                out(f"{result.job.name}: {result.line}", error=result.status in (1, 2))

    place = cache_place(cache, no_cache)
    bound = 0 if memory is None else byte_count(memory, "--memory")
    try:
        if scheduler is not None:
            from ..project.cluster import Cluster
            from ..project.matrix_there import build_there

            with Cluster(scheduler) as cluster:
                status = build_there(todo, record, cluster, cache=place, strict=locked, tell=tell)
        else:
            status = build(todo, record, cache=place, strict=locked, processes=jobs, memory=bound, tell=tell)
    except KeyboardInterrupt:
        written = sum(result.status in (0, MISSED) for result in results)
        raise KeyboardInterrupt(f"interrupted; {written} of {len(todo)} builds were written") from None
    order = {job: number for number, job in enumerate(todo)}
    results.sort(key=lambda result: order[result.job])
    for path in wanted:
        write([BuildOutcome(one.job.name, one.status, one.line, one.report) for one in results], path)
    return status


def byte_count(text: str, flag: str) -> int:
    """Bytes as `8GB`, `512MiB` or a plain number. Raises `SpecError`."""
    size = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)B?", text)
    if size is None or not float(size[1]):
        raise SpecError(f"{flag} takes a size such as 8GB or 512MiB, not '{text}'")
    power = " KMGT".index(size[2].upper() or " ")
    return int(float(size[1]) * (1024 if size[3] else 1000) ** power)
