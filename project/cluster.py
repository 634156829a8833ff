"""A Dask cluster that does the building, in the same code and to the same bytes as here.

Files go to the workers once, by their content. Each errand runs there in a process of its own, with the numbers of
threads that libraries have here; what it adds to the worker's cache comes back with its result, so that what was built
there is taken out of the cache here, and is placed, locked and reported as always. A worker that dies loses what it was
doing, which another one does again.

Workers run what they are sent, and what comes back is trusted: the cluster has to be one's own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import logging
import os
import pickle
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ..compiler.model import read
from ..errors import ModelError, SpecError
from ..ir.stored import stored_files
from ..passes.cached import COMPUTING, environment, own_code, thread_variables
from ..storage.fingerprint import Fingerprint
from ..storage.store import Store
from ..storage.workspace import Workspace

PATIENCE = 10.0
"""Seconds in which a scheduler must answer."""
ABSENCE = 30.0
"""Seconds without any worker after which there will be none."""
_POLL = 1.0
_ADDRESS = re.compile(r"(tcp|tls|ucx|wss?)://[^\s/]+:\d{1,5}")
"""What Dask would not understand leaves half a client behind, which complains when it goes."""


class Lost(Exception):
    """The cluster is gone: its scheduler does not answer, or it has no workers any more."""


class Died(Exception):
    """An errand ended the worker, or its own process there, time and again."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file or folder with all that belongs to it, (name, content) each; `main` is the name of it."""

    digest: str
    main: str
    files: tuple[tuple[str, bytes], ...]

    @staticmethod
    def of(path: str, *, model: bool = False) -> Parcel:
        """The file or folder `path`; of a `model` with its external data. Raises `ModelError` and `SpecError`."""
        folder, main = os.path.split(os.path.abspath(path))
        try:
            files = tuple(_contents(path, folder, model=model))
        except OSError as error:
            raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
        digest = Fingerprint("parcel", main)
        for name, content in files:
            digest.write(Fingerprint(name).text.encode())
            digest.write(content)
        return Parcel(digest.text, main, files)

    def unpacked(self, place: str) -> str:
        """Where the file or folder lies in `place`, put there unless it is there already."""
        whole = os.path.join(place, self.digest)
        if not os.path.isdir(whole):
            os.makedirs(place, exist_ok=True)
            with Workspace(place) as aside:
                for name, content in self.files:
                    path = os.path.join(aside, "parcel", name)
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "wb") as file:
                        file.write(content)
                with contextlib.suppress(OSError):  # another errand was faster
                    os.rename(os.path.join(aside, "parcel"), whole)
        return os.path.join(whole, self.main)


def _contents(path: str, folder: str, *, model: bool) -> Iterator[tuple[str, bytes]]:
    paths = [os.path.abspath(path)]
    if model:
        paths += sorted(stored_files(read(path)) - set(paths))
    elif os.path.isdir(path):
        paths = [os.path.join(where, name) for where, _, names in os.walk(paths[0]) for name in sorted(names)]
    for one in paths:
        name = os.path.relpath(one, folder)
        if name.startswith(os.pardir):
            raise ModelError(f"{path}: its data lies in {one}, beside its folder, and is not sent to a cluster")
        with open(one, "rb") as file:
            yield name, file.read()


class Cluster:
    """The workers of the scheduler at `address`, as a context manager. `workers` is how many there were at the start.

    Raises `SpecError`, in one line, where Dask is not installed, the scheduler cannot be reached, it has no workers, or
    one of them would build other bytes: it has another optc, other versions of what it computes with, or another CPU.
    """

    def __init__(self, address: str) -> None:
        if not _ADDRESS.fullmatch(address):
            raise SpecError(f"--scheduler takes an address such as tcp://host:8786, not '{address}'")
        try:
            dask: Any = importlib.import_module("distributed")
        except ImportError:
            raise SpecError("--scheduler needs Dask: pip install 'optc[dask]'") from None
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what fails is told by us, in one line
        self.address = address
        try:
            with warnings.catch_warnings(action="ignore"):
                self._client = dask.Client(address, timeout=PATIENCE, set_as_default=False)
        except Exception as error:  # Dask's own errors have no common kind
            raise SpecError(f"--scheduler {address}: cannot be reached: {_words(error)}") from None
        try:
            self.workers = self._checked()
        except BaseException:
            self.close()
            raise
        self._sent: dict[str, Any] = {}
        self._absent = 0.0

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._client.close(timeout=PATIENCE)

    def submit(self, function: Callable[..., Any], parcels: Sequence[Parcel | str], *args: object) -> Errand:
        """Let a worker call `function(paths, cache, *args)`, with where the parcels are there (texts stay as they are)
        and the folder of its cache. The function is known by its name, and all else is pickled."""
        sent = [self._send(one) if isinstance(one, Parcel) else one for one in parcels]
        call, variables = pickle.dumps((function, args)), dict(thread_variables())
        future = self._client.submit(_carried_out, call, variables, *sent, pure=False)
        return Errand(self, future)

    def _send(self, parcel: Parcel) -> Any:
        if parcel.digest not in self._sent:
            self._sent[parcel.digest] = self._client.scatter(parcel, hash=False, broadcast=True)
        return self._sent[parcel.digest]

    def _checked(self) -> int:
        """The number of workers, all of which build as we do. Raises `SpecError`."""
        try:
            answers = self._client.run(_about, dict(thread_variables()), on_error="return")
        except Exception as error:
            raise SpecError(f"--scheduler {self.address}: its workers do not answer: {_words(error)}") from None
        if not answers:
            raise SpecError(
                f"--scheduler {self.address}: it has no workers; start some with dask worker {self.address}"
            )
        ours = own_code(), environment()
        for worker, theirs in answers.items():
            if isinstance(theirs, BaseException):
                raise SpecError(f"worker {worker} cannot run optc: {_words(theirs)}")
            if theirs != ours:
                raise SpecError(f"worker {worker} would build other bytes: {_difference(ours, theirs)}")
        return len(answers)

    def check_alive(self) -> None:
        """Raises `Lost` where the scheduler does not answer, or there was no worker for a while."""
        try:
            there = self._client.status == "running" and bool(self._client.scheduler_info(n_workers=-1)["workers"])
        except Exception as error:
            raise Lost(f"the scheduler {self.address} does not answer: {_words(error)}") from None
        now = time.monotonic()
        if there:
            self._absent = 0.0
        elif not self._absent:
            self._absent = now
        elif now - self._absent > ABSENCE:
            raise Lost(f"the scheduler {self.address} has no workers any more")


@dataclass(frozen=True, slots=True)
class Errand:
    """What a worker was sent to do."""

    cluster: Cluster
    future: Any

    def result(self, store: Store | None) -> Any:
        """What the function returned; what it added to the worker's cache is put into `store`. Raises `Lost` and
        `Died`."""
        dask: Any = importlib.import_module("distributed")
        while True:
            try:
                answer, kept = pickle.loads(self.future.result(timeout=_POLL))
                break
            except (TimeoutError, concurrent.futures.TimeoutError):
                self.cluster.check_alive()
            except dask.KilledWorker as error:
                raise Died(_words(error)) from None
            except Died:
                raise
            except Exception as error:
                raise Lost(f"the scheduler {self.cluster.address} lost it: {_words(error)}") from None
        if store is not None:
            for (kind, name), content in kept.items():
                store.take(kind, name, content)
        return answer


def _carried_out(call: bytes, variables: dict[str, str | None], *parcels: Parcel | str) -> bytes:
    """On a worker: the pickled result of an errand, and what it added to the cache."""
    dask: Any = importlib.import_module("distributed")
    place = os.path.join(dask.get_worker().local_directory, "optc")
    paths = [one.unpacked(place) if isinstance(one, Parcel) else one for one in parcels]
    return _apart("carry_out", pickle.dumps((call, paths, os.path.join(place, "cache"))), variables)


def _about(variables: dict[str, str | None]) -> tuple[str, str]:
    """On a worker: the code of optc there, and what else decides about bytes."""
    answer: tuple[str, str] = pickle.loads(_apart("about", b"", variables))
    return answer


def _apart(name: str, sent: bytes, variables: dict[str, str | None]) -> bytes:
    """What the function `name` of `errand` returns for some bytes, in a process with these variables set."""
    others = {key: value for key, value in os.environ.items() if key not in variables}
    settings = {**others, **{key: value for key, value in variables.items() if value is not None}}
    with Workspace() as folder:
        out = os.path.join(folder, "out")
        code = f"from optc.project import errand; errand.main(errand.{name}, {out!r})"
        done = subprocess.run([sys.executable, "-c", code], input=sent, env=settings, capture_output=True, check=False)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise Died(f"its process ended with {done.returncode}: {lines[-1] if lines else 'it said nothing'}")
        with open(out, "rb") as file:
            return file.read()


def _words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return " ".join(lines[0].split()) if lines else type(error).__name__


def _difference(ours: tuple[str, str], theirs: tuple[str, str]) -> str:
    """The first thing in which two machines differ."""
    if ours[1] == theirs[1]:
        return "its optc is of other code than this one"
    mine, others = ours[1].split(), theirs[1].split()
    at = next((i for i, pair in enumerate(zip(mine, others, strict=False)) if len(set(pair)) > 1), 0)
    if at and mine[at - 1] in COMPUTING:
        return f"it has {mine[at - 1]} {others[at]}, not {mine[at]}"
    lacks, has = (sorted(set(one) - set(other)) for one, other in ((mine, others), (others, mine)))
    return " and ".join([f"it lacks {' '.join(lacks)}"] * bool(lacks) + [f"it has {' '.join(has)}"] * bool(has))
