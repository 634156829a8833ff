"""What a build is known by, so that one that was made before is taken from the cache."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.graph import Graph
from ..ir.text import snapshot
from ..passes.cached import PassCache, code_of, code_of_module, environment, own_code
from ..report.build import BuildReport
from ..runtime.identity import identity
from ..storage.fingerprint import Fingerprint, file_digest
from ..storage.store import Store
from ..targets.base import Artifact
from . import finished
from .data import source_of
from .finished import Finished
from .order import Order
from .place import move, staging


@dataclass(frozen=True, slots=True)
class Reuse:
    """The digests of what goes into a build (`hashes`), and the `key` that they make, empty where it is not kept: there
    is no store, or the code of a pass is not known."""

    hashes: dict[str, str]
    key: str
    store: Store | None
    passes: PassCache

    def take(self, order: Order) -> tuple[Finished, Graph, Artifact | None] | None:
        """The build under the key, with its files in their place; `None` where it has to be built, as when somebody
        wants to see every pass run."""
        if self.store is None or not self.key or not all(observer.passive for observer in order.options.observers):
            return None
        stored = finished.find(self.store, self.key, order.name, self.passes.locked)
        if stored is None or order.path is None:
            return None if stored is None else (*stored, None)
        if order.lock is not None:
            order.lock.check_outputs(stored[0].report.outputs)
        with staging(order.path) as folder:
            staged = finished.place(self.store, stored[0], folder)
            return None if staged is None else (*stored, move(staged, order.path, order.target))

    def keep(self, order: Order, report: BuildReport, dims: Mapping[str, int], folder: str, graph: Graph) -> None:
        """Keep a finished build, whose files are in `folder`; one that was stopped before its end is made anew."""
        stopped = any(step.report.interrupted for step in report.steps)
        if self.store is not None and self.key and not stopped:
            finished.keep(self.store, self.key, Finished.of(report, order.name, dict(dims)), folder, graph)


def reuse_of(order: Order, original: Graph, student: Graph | None) -> Reuse:
    """What a build of `original`, or of the `student` that it teaches, is known by as ordered.

    Raises `DataError` where samples cannot be read.
    """
    store = None if order.cache is None else Store(order.cache)
    codes = [*map(code_of, order.pipeline), code_of_module(type(order.target).__module__)]
    passes = PassCache(store, locked={} if order.lock is None else order.lock.rulings)
    hashes = {
        "model": Fingerprint(*map(snapshot.digest, (original, student))).text if student else snapshot.digest(original),
        "data": identity(source_of(order.model, order.data)) if order.runs else "",
        "options": Fingerprint(json.dumps(order.recipe, sort_keys=True)).text,
        "code": Fingerprint(own_code(), *(code or "unknown" for code in codes)).text,
    }
    if order.runs:
        # What is drawn depends on the model, what is read on how it becomes tensors.
        passes.data = Fingerprint(hashes["data"], hashes["model"], json.dumps(order.drawing)).text
    words = ["trail"] if order.options.trail else []
    if order.tuning is not None:
        # What is not measured yet goes on where the build is asked for again.
        records = order.tuning.records
        words.append(file_digest(records) if records is not None and os.path.isfile(records) else "untuned")
    if order.options.device is not None:
        words.append(order.options.device.name)
    keeps = store is not None and None not in codes
    key = Fingerprint("build", json.dumps(hashes), order.name, environment(), *words).text if keeps else ""
    return Reuse(hashes, key, store, passes)
