"""What was asked of the compiler, as values: nothing of it is read or run yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import DataError
from ..passes.base import Override, Progress
from ..passes.observers import Observer
from ..passes.pipeline import Pipeline, spec
from ..report.budget import Budget
from ..runtime.latency_table import LatencyTable, from_json
from ..runtime.samples import Samples
from ..targets import table
from ..targets.base import Target
from ..targets.tuning import Device, Tuning
from .data import Data
from .fixed_sizes import Shapes
from .locked import Locked
from .model import Model

if TYPE_CHECKING:
    from ..runtime.samples import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One model for one target; the fields are the options of `compile`. `path` is absolute, `None` writes nothing."""

    model: Model
    pipeline: Pipeline
    target: Target
    shapes: Shapes
    freeze: bool
    path: str | None
    data: Data | Samples | Source | None
    seed: int
    threads: int
    clean: bool
    guard: bool
    min_agreement: float | None
    budget: Budget | None
    check: bool
    trail: bool
    overrides: tuple[Override, ...]
    latencies: LatencyTable | None
    tuning: Tuning | None
    device: Device | None
    cache: str | None
    lock: Locked | None
    observers: Sequence[Observer]
    progress: Progress

    @property
    def name(self) -> str:
        """The main file's."""
        return os.path.basename(self.path) if self.path is not None else f"model{self.target.suffix}"

    @property
    def runs(self) -> bool:
        """Whether the model has to run, and so needs samples."""
        return self.pipeline.lossy or self.check

    @property
    def samples(self) -> Data | Samples | Source | None:
        """`data`; where there is none and nothing is fitted, only few are made up, for the check."""
        if self.pipeline.lossy:
            return self.data
        if self.data is None:
            return Data(few=True)
        return replace(self.data, few=True) if isinstance(self.data, Data) else self.data

    @property
    def strict(self) -> bool:
        """Whether nothing may differ from the lock."""
        return self.lock is not None and self.lock.strict

    @property
    def road(self) -> tuple[Pipeline, Pipeline]:
        """The passes with `clean` before them, and those of the target after them."""
        first = Pipeline.parse("clean") if self.clean and all(one.name != "clean" for one in self.pipeline) else ()
        return Pipeline((*first, *self.pipeline)), self.target.legalisation()

    @property
    def drawing(self) -> list[str]:
        """How samples are read and become tensors, as far as an option says so."""
        return [repr(getattr(self.data, field, None)) for field in ("mean", "std", "layout", "resize", "limit")]

    @property
    def options(self) -> dict[str, object]:
        """All that decides the bytes of the result but for the model, the samples and the code."""
        return {
            "passes": [spec(one) for one in self.pipeline],
            "target": table.spec(self.target),
            "data": self.drawing,
            "overrides": repr(self.overrides),
            "latencies": None if self.latencies is None else self.latencies.digest,
            "tune": None if self.tuning is None else self.tuning.seconds,
            "run": [self.seed, self.threads, self.clean, self.guard, self.min_agreement, self.check],
        }


def latencies_of(path: str, targets: Sequence[Target]) -> LatencyTable:
    """The latencies in a file. Raises `DataError` where they are none, or not those of all `targets`."""
    try:
        with open(path, encoding="utf-8") as file:
            found = from_json(file.read(), path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DataError(f"{path} cannot be read: {why}; make a table with optc profile") from error
    for target in targets:
        if found.target != table.spec(target):
            raise DataError(f"{path} was measured on {found.target}, not on {table.spec(target)}; profile that target")
    return found
