"""Building every entry of a configuration: models by targets, in processes side by side, within a bound of memory.

Each build runs in a process of its own, so that a crash takes only itself along and memory is given back. The next one
starts where a process is free and its estimated memory fits beside those that run; one alone always may. At an
interrupt all are told to end, and each cleans up after itself.
"""

from __future__ import annotations

import contextlib
import glob
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from ..compiler.locked import Locked
from ..errors import LockError, OptcError, lacks_memory
from ..passes.observers import Reproduce
from ..report.amount import amount
from ..report.build import BuildReport
from ..runtime.agreement_text import whole_text
from ..runtime.interrupt import ENDS, listen
from .config import Config, ModelEntry
from .lock import Lock, build_name

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection as Connection
else:
    from multiprocessing.connection import Connection

_BASE = 400 << 20
"""Bytes of a process that holds the libraries and a small model."""
_FACTOR = 6
"""Copies of a model's weights that a build holds at its height: teacher, student, sessions, statistics."""
_MOST_DATA = 1 << 30
_LAST = 5.0
"""Seconds that a build has to clean up whose parent was killed."""
_PATIENCE = 10.0
"""Seconds that an interrupted build has to clean up."""


@dataclass(frozen=True, slots=True)
class Job:
    """One build: an entry for one of its targets."""

    entry: ModelEntry
    target: str

    @property
    def name(self) -> str:
        return build_name(self.entry.name, self.target)

    @property
    def memory(self) -> int:
        """An estimate of the bytes that the build takes."""
        data = self.entry.options.data
        samples = _stored(data) if isinstance(data, str) else 0
        return _BASE + _FACTOR * _stored(self.entry.path) + min(_MOST_DATA, samples)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a job: its exit status, one line for the user, and where it was built the report and the record
    for the lock file."""

    job: Job
    status: int
    line: str
    locked: Locked | None = None
    report: BuildReport | None = None


def jobs_of(config: Config, names: Sequence[str] = ()) -> list[Job]:
    """All jobs, or those of the models called `names` (`model`, or `model@target`). Raises `SpecError`."""
    every = [Job(entry, target) for entry in config.entries for target in entry.targets]
    if not names:
        return every
    chosen: list[Job] = []
    for name in names:
        exact = [job for job in every if job.name == name]
        entry = None if exact else config.entry(name)
        chosen += exact or [job for job in every if job.entry is entry]
    return list(dict.fromkeys(chosen))


def build(
    jobs: Sequence[Job],
    lock: Lock,
    *,
    cache: str | None,
    strict: bool = False,
    processes: int = 0,
    memory: int = 0,
    tell: Callable[[Result], None],
) -> int:
    """Build all `jobs`, telling each result as it comes; returns the worst exit status.

    `processes` and `memory` (bytes) bound what runs side by side; 0 takes the number of cores, and three quarters of
    what is free. What was built is recorded in `lock`, and written unless `strict`. Of a `KeyboardInterrupt` the
    finished ones are recorded all the same.
    """
    processes = processes or len(cores())
    memory = memory or _free() * 3 // 4
    context = multiprocessing.get_context("spawn")
    waiting = list(jobs)
    running: dict[Connection, tuple[BaseProcess, Job]] = {}
    statuses: list[int] = []
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                used = sum(job.memory for _, job in running.values())
                fits = next((job for job in waiting if not running or used + job.memory <= memory), None)
                if fits is None:
                    break
                waiting.remove(fits)
                try:
                    locked = lock.of(fits.name, strict=strict)
                except LockError as error:
                    statuses.append(error.exit_status)
                    tell(Result(fits, error.exit_status, str(error)))
                    continue
                ours, theirs = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(target=_run, args=(fits, locked, cache, theirs))
                with _deaf():
                    process.start()
                theirs.close()
                running[ours] = process, fits
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                process, job = running.pop(connection)
                result = _received(connection, process, job)
                statuses.append(result.status)
                if result.locked is not None and not strict:
                    lock.builds[job.name] = result.locked
                tell(result)
    finally:
        _end([process for process, _ in running.values()])
        if not strict and any(status in (0, 3) for status in statuses):
            lock.write()
    return worst(statuses)


def worst(statuses: Sequence[int]) -> int:
    """The status to exit with: a fault of ours before one of the user's, that before a missed budget."""
    return max(statuses, key=lambda status: {0: 0, 3: 1, 2: 2, 1: 3}.get(status, 4), default=0)


def cores() -> set[int]:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Let what is started meanwhile ignore Ctrl-C, which a terminal sends to all of its processes: this one tells them.

    Otherwise each that is still loading would show a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _received(connection: Connection, process: BaseProcess, job: Job) -> Result:
    try:
        message = connection.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return Result(job, 1, f"its process ended with {how}; out of memory? try --jobs 1")
    finally:
        connection.close()
    process.join()
    assert isinstance(message, Result)
    return message


def _end(processes: Sequence[BaseProcess]) -> None:
    """Let builds that still run clean up; those that do not within a while are killed."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that came: nobody would take its result."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LAST)
        os._exit(130)


def _run(job: Job, lock: Locked | None, cache: str | None, connection: Connection) -> None:
    """Build one job in a process of its own, and send its result."""
    statuses: list[int] = []

    def stop(number: int, frame: object) -> None:
        statuses.append(number)
        for one in ENDS:  # one is enough: another would come in the middle of the end
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    try:
        listen(ENDS, stop)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        result = build_one(job, lock, cache)
        with contextlib.suppress(BrokenPipeError):  # nobody waits any more
            connection.send(result)
        connection.close()
    except BaseException as error:
        # What is interrupted in the middle of an import ends as an error of some other kind.
        if statuses or isinstance(error, KeyboardInterrupt):
            sys.exit(130)
        raise


def build_one(job: Job, lock: Locked | None, cache: str | None, output: str | None = None) -> Result:
    """Build one job in this process, into `output` rather than where it belongs where that is given."""
    from ..compiler import compile_with

    output = output or job.entry.artifact(job.target)
    try:
        os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
        options = job.entry.options
        options = replace(options, target=job.target, output=output, cache=cache, lock=lock, observers=(Reproduce(),))
        build = compile_with(job.entry.path, options)
    except OptcError as error:
        return Result(job, error.exit_status, str(error).splitlines()[0])
    except Exception as error:
        if lacks_memory(error):
            return Result(job, 2, "out of memory; use fewer samples, or --jobs 1")
        if isinstance(error, OSError):
            return Result(job, 2, f"{error.filename}: {error.strerror}")
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())
        return Result(job, 1, f"internal error: {type(error).__name__}: {text} ({where.name}, line {where.lineno})")
    report = build.report
    sizes = f"{amount(report.before.bytes, 'B')} -> {amount(report.after.bytes, 'B')}"
    agrees = [] if report.agreement is None else [f"agreement {whole_text(report.agreement)}"]
    parts = [sizes, *agrees]
    parts.append("cached" if report.cached else f"{report.seconds:.1f} s")
    status = 0
    if report.budget is not None and not report.budget.met:
        from ..report.verdict import sentence

        parts.append(f"budget missed: {'; '.join(map(sentence, report.budget.misses))}")
        status = 3
    return Result(job, status, f"{', '.join(parts)}: {output}", Locked.of(report), report)


def _stored(path: str) -> int:
    """Bytes of a file or folder; 0 where it cannot be told."""
    if not os.path.isdir(path):
        # External data lies beside the model under a name that begins with the model's.
        return sum(map(_size, [path, *glob.glob(f"{glob.escape(path)}.*data")]))
    # Links to folders are not followed: they may lead around in circles.
    return sum(_size(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def _size(path: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        return os.path.getsize(path)
    return 0


def _free() -> int:
    """Bytes of memory that are free here; 4 GiB where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 4 << 30
