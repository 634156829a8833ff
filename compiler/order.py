"""What was asked of the compiler, as values: nothing of the model or its samples is read or run yet."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import DataError, SpecError
from ..passes.base import Progress
from ..passes.pipeline import Pipeline, spec
from ..report.budget import Budget
from ..runtime.latency_table import LatencyTable, from_json
from ..runtime.samples import Samples
from ..storage.plain_file import read_text
from ..targets import table
from ..targets.base import Target
from ..targets.tuning import Tuning
from .arguments import check_model
from .data import Data
from .locked import Locked
from .model import Model
from .options import Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One model for one target: the `options` as they were given, and what their texts stand for.

    `path` is absolute, `None` writes nothing.
    """

    model: Model
    options: Options
    pipeline: Pipeline
    target: Target
    path: str | None
    data: Data | Samples
    budget: Budget | None
    latencies: LatencyTable | None
    tuning: Tuning | None
    cache: str | None
    lock: Locked | None
    progress: Progress

    @staticmethod
    def of(model: Model, options: Options) -> tuple[Order, tuple[Target, ...]]:
        """The order for the first target, and all targets, each able to do here what is asked of it.

        Raises `SpecError`, `TargetError` and `DataError`.
        """
        check_model(model)
        options.check_values()
        budget = Budget.parse(options.budget) if isinstance(options.budget, str) else options.budget
        cache = None if options.cache is None else os.fspath(options.cache)
        pipeline = Pipeline.of(options.passes)
        tuning = _tuning(options, cache)
        targets = _targets(options, budget, tuning)
        table_path, lock = options.latency_table, options.lock
        order = Order(
            model=model,
            options=options,
            pipeline=pipeline,
            target=targets[0],
            path=None if options.output is None else os.path.abspath(os.fspath(options.output)),
            data=options.source,
            budget=budget,
            latencies=None if table_path is None else latencies_of(os.fspath(table_path), targets),
            tuning=tuning,
            cache=cache,
            lock=lock.get(table.spec(targets[0])) if isinstance(lock, Mapping) else lock,
            progress=options.progress or Progress(),
        )
        return order, targets

    @property
    def name(self) -> str:
        """The main file's."""
        return os.path.basename(self.path) if self.path is not None else f"model{self.target.suffix}"

    @property
    def runs(self) -> bool:
        """Whether the model has to run, and so needs samples."""
        if self.options.check or self.pipeline.needs_samples:
            return True
        return self.pipeline.lossy and (self.names_samples or bool(self.options.overrides))

    @property
    def names_samples(self) -> bool:
        """Whether the user gave samples."""
        return not (self.data is None or (isinstance(self.data, Data) and self.data.source is None))

    @property
    def samples(self) -> Data | Samples:
        """`data`; where there is none and nothing is fitted, only few are made up, for the check."""
        return replace(self.data, few=True) if isinstance(self.data, Data) and not self.pipeline.lossy else self.data

    @property
    def strict(self) -> bool:
        """Whether nothing may differ from the lock."""
        return self.lock is not None and self.lock.strict

    @property
    def pipelines(self) -> tuple[Pipeline, Pipeline]:
        """The passes with `clean` before them, and those of the target after them."""
        first = (
            Pipeline.parse("clean") if self.options.clean and all(one.name != "clean" for one in self.pipeline) else ()
        )
        return Pipeline((*first, *self.pipeline)), self.target.legalisation()

    @property
    def drawing(self) -> list[str]:
        """How samples are read and become tensors, as far as an option says so."""
        return [repr(getattr(self.data, field, None)) for field in ("mean", "std", "layout", "resize", "limit")]

    @property
    def recipe(self) -> dict[str, object]:
        """All that decides the bytes of the result but for the model, the samples and the code."""
        one = self.options
        return {
            "passes": [spec(item) for item in self.pipeline],
            "target": table.spec(self.target),
            "data": self.drawing,
            "overrides": repr(tuple(one.overrides)),
            "latencies": None if self.latencies is None else self.latencies.digest,
            "tune": None if self.tuning is None else self.tuning.seconds,
            "run": [one.seed, one.threads, one.provider, one.clean, one.guard, one.min_agreement, one.check],
        }


def _tuning(options: Options, cache: str | None) -> Tuning | None:
    """What is asked of tuning, if anything; the records of a device are in a file of its own in the cache."""
    seconds, device = options.tune, options.device
    records = None if options.tune_records is None else os.fspath(options.tune_records)
    if seconds is None and records is None:
        return None
    if records is None and cache is not None:
        kind = "here" if device is None else re.sub(r"[^\w.-]+", "-", device.kind)
        records = os.path.join(cache, "tuning", f"{kind}.jsonl")
    return Tuning(seconds or 0.0, records, device, options.threads)


def _targets(options: Options, budget: Budget | None, tuning: Tuning | None) -> tuple[Target, ...]:
    """The targets, each able to do what is asked of it here. Raises `SpecError`, `TargetError`."""
    measured = ", ".join(budget.measured) if budget is not None else ""
    if measured and not options.check:
        raise SpecError(f"a budget on {measured} needs the check, which --no-check leaves out")
    targets = table.distinct([options.target] if isinstance(options.target, str | Target) else options.target)
    for one in targets:
        if measured and one.cannot_run:
            raise SpecError(f"a budget on {measured} needs the check; {one.name}: {one.cannot_run}")
        if tuning is not None:
            table.measured(one, "has no kernels that can be tuned", "--tune").check_tuning(tuning)
        if options.device is not None:
            table.measured(one, "artifacts do not run on a device", "--rpc")
        one.check_ready(run=options.check and options.device is None)
    return targets


def latencies_of(path: str, targets: Sequence[Target]) -> LatencyTable:
    """The latencies in a file. Raises `DataError` where they are none, or not those of all `targets`."""
    try:
        latencies = from_json(read_text(path), path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DataError(f"{path} cannot be read: {why}; make a table with optc profile") from error
    for target in targets:
        if latencies.target != table.spec(target):
            raise DataError(
                f"{path} was measured on {latencies.target}, not on {table.spec(target)}; profile that target"
            )
    return latencies
