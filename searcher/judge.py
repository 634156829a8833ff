"""Candidates as they really come out: built through the passes, and held against the budget.

What was judged is kept in the store under the model, the samples, the options and the plan, so no candidate is built
twice, in this search or in one that goes on after it was killed.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..compiler.compilation import compile_with
from ..compiler.locked import Locked
from ..compiler.model import Model
from ..compiler.options import Options
from ..compiler.result import Build
from ..errors import OptcError, SpecError
from ..passes.cached import Ruling
from ..project.cluster import Cluster, Died, Errand, Lost, Parcel
from ..report.budget import Budget
from ..storage.fingerprint import Fingerprint
from ..storage.plain import plain, restored
from ..storage.store import Store
from .plan import Plan
from .space import Metric, Pick


@dataclass(frozen=True, slots=True)
class Figures:
    """What a candidate came to. `costs` are shares of the original, `latency` among them where it was measured; `loss`
    is what its answers lost on held-out samples (KL divergence, or noise relative to signal); `miss` is the sum of what
    its limits lack, as shares of them (0: the budget is met); `whole` are the figures of the original, in the units of
    budgets; `failed` says why there is no candidate."""

    costs: Mapping[Metric, float]
    loss: float
    agreement: float | None
    miss: float
    seconds: float
    whole: Mapping[Metric, float] = field(default_factory=dict)
    rulings: Mapping[str, Ruling] = field(default_factory=dict)
    failed: str = ""

    @property
    def met(self) -> bool:
        return not self.failed and self.miss == 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate with its figures; `strategy` proposed it, `at` seconds after the search began. One that is no pick of
    the database is a pipeline as a user would write it; `taught` tells that `distill` was added."""

    pick: Pick | None
    taught: bool
    plan: Plan
    figures: Figures
    strategy: str
    at: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """A candidate on its way: `figures` waits for what it comes to; `recalled` tells that it was judged before."""

    figures: Callable[[], Figures]
    recalled: bool = False


@dataclass(frozen=True, slots=True)
class Workers:
    """A cluster that has been sent the model and what else the options name by path."""

    cluster: Cluster
    parcels: tuple[Parcel | str, ...]
    fields: tuple[str, ...]

    @staticmethod
    def of(cluster: Cluster, model: Model, options: Options) -> Workers:
        """Raises `SpecError` for what is no file, and so cannot be sent."""
        if not isinstance(model, str | os.PathLike) or not isinstance(options.data, str | os.PathLike | None):
            raise SpecError("a cluster is sent files: give the model and the samples by their paths")
        path = os.fspath(model)
        parcels: list[Parcel | str] = [path if path.startswith("zoo:") else Parcel.of(path, model=True)]
        fields = tuple(name for name in ("data", "latency_table") if getattr(options, name) is not None)
        parcels += [Parcel.of(os.fspath(getattr(options, name))) for name in fields]
        return Workers(cluster, tuple(parcels), fields)

    @property
    def count(self) -> int:
        return self.cluster.workers

    def begin(self, options: Options, budget: Budget, plan: Plan) -> Errand:
        """Send a worker to judge a plan."""
        return self.cluster.submit(_judged_there, self.parcels, self.fields, options, budget, plan)


def _judged_there(
    paths: Sequence[str], cache: str, fields: Sequence[str], options: Options, budget: Budget, plan: Plan
) -> Figures:
    """On a worker: what a plan comes to."""
    model, *others = paths
    places: dict[str, Any] = dict(zip(fields, others, strict=True))
    options = replace(options, **places)
    return Judge(model, options, budget, Store(cache), "")._built(plan)


@dataclass(slots=True)
class Judge:
    """Builds and judges, here or on the workers of a cluster. `key` stands for the model, the samples and all options
    that a candidate shares with others. A candidate that a pass refuses, or fails on, has figures that say so. `notes`
    are what to tell of workers that died."""

    model: Model
    options: Options
    budget: Budget
    store: Store
    key: str
    workers: Workers | None = None
    notes: list[str] = field(default_factory=list)
    _beside: int = field(init=False)

    def __post_init__(self) -> None:
        self._beside = 1 if self.workers is None else self.workers.count

    @property
    def beside(self) -> int:
        """How many candidates are judged side by side; as many to the end, whatever becomes of the workers, so that
        what is proposed stays the same."""
        return self._beside

    def begin(self, plan: Plan) -> Waiting:
        """Have a plan judged."""
        key = Fingerprint(
            "candidate", self.key, plan.passes, repr(plan.overrides), repr(plan.guard), str(self.budget)
        ).text
        document = self.store.get(key)
        if document is not None:
            try:
                kept: Figures = restored(Figures, json.loads(document))
            except (ValueError, RecursionError):
                self.store.forget(key)
            else:
                return Waiting(lambda: kept, recalled=True)
        errand = None if self.workers is None else self.workers.begin(self.options, self.budget, plan)

        def figures() -> Figures:
            came = self._there(errand) if errand is not None else None
            came = came or self._built(plan)
            self.store.put(key, json.dumps(plain(came)).encode())
            return came

        return Waiting(figures)

    def remember(self, plan: Plan) -> None:
        """Keep a plan as the best of all searches like this one."""
        self.store.put(self._best, json.dumps(plain(plan)).encode())

    def remembered(self) -> Plan | None:
        """The best plan of a search like this one that came before it."""
        document = self.store.get(self._best)
        try:
            plan: Plan | None = None if document is None else restored(Plan, json.loads(document))
        except (ValueError, RecursionError):
            return None
        return plan

    @property
    def _best(self) -> str:
        return Fingerprint("best", self.key, str(self.budget)).text

    def _there(self, errand: Errand) -> Figures | None:
        """What a worker says; `None` where there are none any more."""
        try:
            figures: Figures = errand.result(self.store)
        except Died as error:
            return Figures({}, math.inf, None, math.inf, 0.0, failed=f"it ended the worker: {error}")
        except Lost as error:
            if self.workers is not None:
                self.notes.append(f"{error}; the candidates since were built here")
                self.workers = None
            return None
        return figures

    def _built(self, plan: Plan) -> Figures:
        start = time.monotonic()
        try:
            report = self.build(plan, None, {}).report
        except OptcError as error:
            return Figures({}, math.inf, None, math.inf, time.monotonic() - start, failed=str(error))
        before, after = report.before, report.after
        costs: dict[Metric, float] = {
            "macs": after.macs / max(before.macs, 1),
            "params": after.params / max(before.params, 1),
            "size": after.bytes / max(before.bytes, 1),
        }
        whole: dict[Metric, float] = {"macs": before.macs, "params": before.params, "size": before.bytes}
        if report.latency is not None:
            costs["latency"], whole["latency"] = report.latency.ratio, report.latency.original_ms
        met = report.agreement
        loss = math.inf if met is None else sum(output.loss for output in met.outputs)
        share = None if met is None or math.isnan(met.share) else met.share
        miss = sum(one.miss for one in self.budget.judge(report))
        return Figures(costs, loss, share, miss, time.monotonic() - start, whole, report.rulings)

    def build(self, plan: Plan, output: str | None, rulings: Mapping[str, Ruling]) -> Build:
        """The build of a plan, out of the cache where it was judged before; by `rulings` where the clock decided."""
        options = replace(
            self.options,
            passes=plan.passes,
            overrides=(*self.options.overrides, *plan.overrides),
            guard=plan.guard,
            budget=self.budget,
            output=output,
            cache=self.store.folder,
            lock=Locked(rulings=rulings) if rulings else None,
        )
        return compile_with(self.model, options)
