"""What a build is known by, so that one that was made before is taken from the cache."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..ir import snapshot
from ..ir.fingerprint import Fingerprint
from ..ir.graph import Graph
from ..passes.cached import Ruling, code_of, code_of_module, own_code
from ..passes.pipeline import Pipeline
from ..report import finished
from ..report.finished import Finished
from ..report.locked import Locked
from ..runtime.store import Store
from ..targets.base import Artifact, Target
from .place import move, staging


def hashes_of(
    original: Graph, pipeline: Pipeline, target: Target, options: Mapping[str, object]
) -> tuple[dict[str, str], bool]:
    """The digests of what goes into a build but for the samples, and whether the code of every pass is known."""
    codes = [*map(code_of, pipeline), code_of_module(type(target).__module__)]
    found = {
        "model": snapshot.digest(original),
        "data": "",
        "options": Fingerprint(json.dumps(options, sort_keys=True)).text,
        "code": Fingerprint(own_code(), *(code or "unknown" for code in codes)).text,
    }
    return found, None not in codes


def taken(
    store: Store, key: str, known: Mapping[str, Ruling], path: str | None, lock: Locked | None, target: Target
) -> tuple[Finished, Graph, Artifact | None] | None:
    """The build under `key`, with its files in their place; `None` where it has to be built."""
    found = finished.find(store, key, known)
    if found is None or path is None:
        return None if found is None else (*found, None)
    if lock is not None:
        lock.check_outputs(found[0].report.outputs)
    with staging(path) as folder:
        staged = finished.place(store, found[0], folder)
        return None if staged is None else (*found, move(staged, path, target))
