"""Not running a pass again on what it has been run on before.

A pass is a function of the graph that it is given, its options and code, what the context holds (samples, teacher,
seed, threads, facts of the target, overrides, rivals), the guard, and the versions of what it computes with. The digest
of all that is its key; kept under it are the graph that it left and its report, with the guard's ruling in it. An
unchanged beginning of a pipeline is so never run again, and a build that was killed goes on behind its last finished
pass.

Our own passes are known by the digest of this package's code, a user's function by the bytes of its file where
that is all its code, and a pass of another package by that package's version; where there is none, the pass always
runs.

What is measured by the clock is noise at the edge. The guard's ruling is known by the graphs before and after the pass,
a pass's own by the graph before it, so that a build with a lock file takes the recorded ones and comes out the same on
any day. How long a layer of some shape takes in some form is measured once, for all builds for targets of the same
facts.
"""

from __future__ import annotations

import functools
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TypeVar

from ..errors import LockError, ModelError
from ..ir.graph import Graph
from ..ir.text import snapshot
from ..runtime import cpu
from ..storage.fingerprint import Fingerprint, file_digest
from ..storage.plain import plain, restored
from ..storage.store import Store
from .base import Context, Pass, Report, TargetFacts
from .file_code import code_of_file
from .function import FunctionPass
from .guard import Guard
from .pipeline import spec

_T = TypeVar("_T")

COMPUTING = ("ml_dtypes", "numpy", "onnx", "onnx-graphsurgeon", "onnxruntime", "scipy")
"""Packages whose version may change what a pass computes."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided by the clock: the guard's objection to a pass, or none and what the user should know; or the
    answer that a pass gave itself (`Context.recall`)."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CachedPass:
    """What a pass has left: the digest of the graph, the report, and the rulings that were made on the way."""

    graph: str
    report: Report
    rulings: dict[str, Ruling]


@dataclass(slots=True)
class PassCache:
    """Keys, finished passes and rulings of one build.

    `store` keeps the passes, `None` where only rulings are wanted. `data` is the digest of the samples as they are fed.
    `locked` are rulings from a lock file; `rulings` collects those of this build.
    """

    store: Store | None
    data: str = ""
    locked: Mapping[str, Ruling] = field(default_factory=dict)
    rulings: dict[str, Ruling] = field(default_factory=dict)
    _latest: dict[str, Ruling] = field(default_factory=dict)

    def serves(self, pipeline: Iterable[Pass]) -> bool:
        """Whether anything of `pipeline` is kept or ruled: not where passes of ours that lose nothing are all of it."""
        return self.store is not None or any(one.lossy or code_of(one) != own_code() for one in pipeline)

    def key(self, one: Pass, before: str, teacher: str, ctx: Context, guard: Guard | None) -> str | None:
        """The key of running `one` on the graph with the digest `before`; `None` where nothing tells its code."""
        code = code_of(one)
        if self.store is None or code is None:
            return None
        context = {
            # Targets of the same facts share what the passes make.
            "target": asdict(replace(ctx.target, name="")),
            "latencies": None if ctx.latencies is None else [ctx.latencies.table.digest, dict(ctx.latencies.dims)],
            "overrides": repr(ctx.overrides),
            "rivals": [[spec(x) for x in ctx.rivals.before], [spec(x) for x in ctx.rivals.after]],
            "seed": ctx.seed,
            "threads": ctx.threads,
            "provider": ctx.provider,
            "guard": None if guard is None else asdict(guard),
            # What leaves every answer as it is has no use for samples.
            **({"data": self.data, "teacher": teacher} if one.lossy or code != own_code() else {}),
        }
        return Fingerprint("pass", spec(one), code, before, json.dumps(context, sort_keys=True), environment()).text

    def find(self, key: str | None) -> tuple[Graph, CachedPass] | None:
        """The graph and the entry under `key`, checked; `None` where there is none."""
        if self.store is None or key is None or (document := self.store.get(key)) is None:
            return None
        try:
            entry: CachedPass = restored(CachedPass, json.loads(document))
            path = self.store.object(entry.graph)
            if path is None:
                return None
            graph = snapshot.read(path)
        except OSError:  # another process has just made room, or it is not ours to read
            return None
        except (ValueError, RecursionError, ModelError):
            self.store.forget(key)
            return None
        if any(self.locked.get(name, ruling) != ruling for name, ruling in entry.rulings.items()):
            return None
        self.rulings.update(entry.rulings)
        return graph, entry

    def keep(self, key: str | None, graph: Graph, report: Report, digest: str = "") -> str:
        """Keep what a pass has left, with the rulings made since the pass before; returns the digest of the graph, for
        which `digest` is taken where one is told."""
        latest, self._latest = self._latest, {}
        if self.store is None:
            return digest or snapshot.digest(graph)
        if not digest or self.store.object(digest) is None:
            digest = self.store.add(lambda file: snapshot.write(graph, file))
        if key is not None:
            entry = CachedPass(digest, report, latest)
            self.store.put(key, json.dumps(plain(entry)).encode())
        return digest

    def draft(self, key: str | None) -> Kept | None:
        """Where the pass known by `key` keeps what it has so far."""
        return None if self.store is None or key is None else Kept(self.store, Fingerprint("draft", key).text)

    def judged(self, key: str, report: Report, judge: Callable[[], str]) -> str:
        """The objection known under `key`, or what `judge` says, which writes its notes into `report`."""
        count = len(report.notes)
        ruling = self.locked.get(key)
        if ruling is None:
            text = judge()
            ruling = Ruling(text, tuple(report.notes[count:]))
        report.notes[count:] = ruling.notes
        self._latest[key] = self.rulings[key] = ruling
        return ruling.text

    def recalled(self, key: str, question: str, decide: Callable[[], str], read: Callable[[str], _T]) -> _T:
        """The answer known under `key`, from a lock file or from before in this pass, or what `decide` says, as `read`
        reads it. Raises `LockError` where the lock file answers what cannot be read so."""
        ruling = self.locked.get(key) or self._latest.get(key) or Ruling(decide())
        try:
            answer = read(ruling.text)
        except ValueError as error:
            if key not in self.locked:
                raise
            raise LockError(
                f"the lock file has {ruling.text[:80]!r} for the {question}, which is no answer to it; delete it to "
                "begin anew"
            ) from error
        self._latest[key] = self.rulings[key] = ruling
        return answer

    def measured(
        self, target: TargetFacts, threads: int, question: str, decide: Callable[[], str], read: Callable[[str], object]
    ) -> str:
        """What was measured of `question` on targets of these facts with so many threads, here and now or before, where
        `read` does not refuse it with `ValueError`."""
        if self.store is None:
            return decide()
        facts = json.dumps(plain(replace(target, name="")), sort_keys=True)
        key = Fingerprint("measured", question, facts, str(threads), environment()).text
        if (document := self.store.get(key)) is not None:
            try:
                read(text := document.decode())
            except ValueError:
                self.store.forget(key)
            else:
                return text
        text = decide()
        self.store.put(key, text.encode())
        return text


@dataclass(frozen=True, slots=True)
class Kept:
    """The draft of one run of a pass: a record of `store`, which goes as others do that nobody used for long."""

    store: Store
    key: str

    def load(self) -> bytes | None:
        return self.store.get(self.key, self.store.limit // 4)

    def save(self, document: bytes) -> None:
        self.store.put(self.key, document)


def ruling_key(one: Pass, before: str, *about: str) -> str:
    """The key of what is decided about running `one` on the graph with the digest `before`."""
    return Fingerprint("ruling", spec(one), before, *about).text


def code_of(one: Pass) -> str | None:
    """What the code of a pass is known by; `None` where nothing tells."""
    if isinstance(one, FunctionPass):
        return code_of_file(one.path)
    return code_of_module(type(one).__module__)


def code_of_module(module: str) -> str | None:
    """What the code of a module is known by: our own by its bytes, another package's by its version."""
    top = module.partition(".")[0]
    if top == __name__.partition(".")[0]:
        return own_code()
    try:
        return f"{top} {version(top)}"
    except PackageNotFoundError:  # the package goes by another name
        names = packages_distributions().get(top, ())
        return " ".join(f"{name} {version(name)}" for name in names) or None


@functools.cache
def own_code() -> str:
    """The digest of this package's code."""
    digest = Fingerprint()
    _add_code(Path(__file__).parents[1], "", digest)
    return digest.text


def _add_code(folder: Path, name: str, digest: Fingerprint) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py":
            digest.write(Fingerprint(f"{name}/{path.name}", file_digest(path)).text.encode())
        elif (path / "__init__.py").is_file():
            _add_code(path, f"{name}/{path.name}", digest)


def environment() -> str:
    """What else decides about the bytes that a pass computes: versions, the machine, its CPU, its number of threads."""
    return f"{_versions()} {cpu.level()} {' '.join(sorted(cpu.flags()))}"


@functools.cache
def thread_variables() -> Mapping[str, str | None]:
    """Environment variables that told libraries how many threads to take, as they were when this was asked first."""
    return {name: os.environ.get(name) for name in _THREAD_VARIABLES}


@functools.cache
def _versions() -> str:
    words = [f"{name} {version(name)}" for name in COMPUTING]
    words += [f"{name}={value or ''}" for name, value in thread_variables().items()]
    return " ".join([*words, platform.python_version(), platform.system(), platform.machine(), f"{cpu.cores()} cores"])
