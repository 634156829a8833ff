"""Candidates as they really come out: built through the passes, and held against the budget.

What was judged is kept in the store under the model, the samples, the options and the plan, so no candidate is built
twice, in this search or in one that goes on after it was killed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..compiler.locked import Locked
from ..compiler.model import Model
from ..compiler.options import Options
from ..compiler.result import Build
from ..compiler.stages import compile_with
from ..errors import OptcError
from ..passes.cached import Ruling
from ..report.budget import Budget
from ..storage.fingerprint import Fingerprint
from ..storage.plain import plain, restored
from ..storage.store import Store
from .plan import Plan, plan_of
from .space import Metric, Pick, Space


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
    the database is a pipeline as a user would write it."""

    pick: Pick | None
    distil: str
    plan: Plan
    figures: Figures
    strategy: str
    at: float


@dataclass(slots=True)
class Judge:
    """Builds and judges. `key` stands for the model, the samples and all options that a candidate shares with others.
    `built` counts the candidates that were built, and not known already."""

    model: Model
    options: Options
    budget: Budget
    store: Store
    key: str
    built: int = 0

    def figures(self, space: Space, pick: Pick, distil: str = "") -> tuple[Plan, Figures]:
        """What a pick comes to. A candidate that a pass refuses, or fails on, has figures that say so."""
        plan = plan_of(space, pick, distil)
        return plan, self.of_plan(plan)

    def of_plan(self, plan: Plan) -> Figures:
        """What a plan comes to."""
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
                return kept
        figures = self._built(plan)
        self.built += 1
        self.store.put(key, json.dumps(plain(figures)).encode())
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
