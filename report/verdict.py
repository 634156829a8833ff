"""A budget held against a build: which limits were met, how far off the others are, and which layers cost most.

For a limit on size or parameters the layers that store most are named, for one on work or time those that multiply
most, and for one on agreement those that a pass itself called the most damaged (the `error` in its record: what share
of the layer's answer the pass could not keep).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..passes.base import Outcome
from ..runtime.agreement_text import percent
from .amount import amount
from .budget import METRICS, Budget, LimitResult, nearest_misses
from .layers import costliest, layer_costs

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from .build import BuildReport

_TOP = 5
RANKED_BY = {
    "size": "bytes",
    "params": "bytes",
    "macs": "macs",
    "latency": "macs",
    "agreement": "error",
    "kl": "error",
    "snr": "error",
}
"""What ranks the layers that a missed limit makes one look at."""


@dataclass(frozen=True, slots=True)
class CostlyLayer:
    """A layer that stands in the way of a limit. `by` is what it was ranked by: `bytes`, `macs` or `error`."""

    by: str
    name: str
    op: str
    bytes: int | None
    macs: int | None
    error: float | None

    @property
    def cells(self) -> tuple[str, str, str]:
        """What it stores, computes and lost, as far as that is known."""
        return (
            "" if self.bytes is None else amount(self.bytes, "B"),
            "" if self.macs is None else amount(self.macs),
            "" if self.error is None else f"{self.error:.3g}",
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judged budget. `layers` are those to look at first for the limits that were missed."""

    budget: Budget
    results: tuple[LimitResult, ...]
    layers: tuple[CostlyLayer, ...] = ()

    @property
    def met(self) -> bool:
        return all(one.met for one in self.results)

    @property
    def misses(self) -> list[LimitResult]:
        """The limits that were missed, the nearest to being met first."""
        return nearest_misses(self.results)

    def as_dict(self) -> dict[str, Any]:
        return {
            "text": str(self.budget),
            "met": self.met,
            "limits": [_limit(one) for one in self.results],
            "nearest_misses": [one.limit.metric for one in self.misses],
            "costliest": [asdict(one) for one in self.layers],
        }


def judge(budget: Budget, report: BuildReport, graph: Graph, dims: Mapping[str, int] | None = None) -> Verdict:
    """Hold `budget` against the figures of `report`; `graph` is the result, of which the costly layers are named."""
    results = budget.judge(report)
    wanted = dict.fromkeys(RANKED_BY[one.limit.metric] for one in results if not one.met)
    if not wanted:
        return Verdict(budget, results)
    costs = layer_costs(graph, dims)
    errors = layer_errors(report)
    layers: list[CostlyLayer] = []
    for by in wanted:
        if by == "error":
            by_name = {one.name: one for one in costs}
            worst = sorted(errors.items(), key=lambda item: -item[1][1])[:_TOP]
            for name, (op, lost) in worst:
                cost = by_name.get(name)
                size, work = (None, None) if cost is None else (cost.bytes, cost.macs)
                layers.append(CostlyLayer(by, name, op, size, work, lost))
        else:
            for one in costliest(costs, by, _TOP):
                error = errors[one.name][1] if one.name in errors else None
                layers.append(CostlyLayer(by, one.name, one.op, one.bytes, one.macs, error))
    return Verdict(budget, results, tuple(layers))


def layer_errors(report: BuildReport) -> dict[str, tuple[str, float]]:
    """Layer -> its operator, and the largest error that a pass which changed it admits to."""
    errors: dict[str, tuple[str, float]] = {}
    for step in report.steps:
        for layer in step.report.layers:
            error = layer.detail.get("error", layer.detail.get("weight_error"))
            if layer.outcome is Outcome.DONE and isinstance(error, int | float) and math.isfinite(error):
                worst = max(float(error), errors.get(layer.name, ("", 0.0))[1])
                errors[layer.name] = layer.op, worst
    return errors


def figure(metric: str, value: float | None, *, relative: bool) -> str:
    """A figure of a metric as a person reads it; `-` for one that is not known."""
    if value is None or math.isnan(value):
        return "-"
    if relative:
        return f"{value:.3f}x"
    if metric == "agreement":
        return percent(value)
    if metric == "latency":
        return f"{value:.3g} ms"
    if metric in ("kl", "snr"):
        return f"{value:.3g} {METRICS[metric].unit}"
    return amount(value, METRICS[metric].unit)


def got_text(one: LimitResult) -> str:
    """What a limit was held against, with what it is of; digits are added where a miss would read as met."""
    got = figure(one.limit.metric, one.got, relative=one.limit.relative)
    wanted = figure(one.limit.metric, one.wanted, relative=one.limit.relative)
    if one.limit.metric == "agreement" and got == wanted and not one.met and one.got is not None:
        got = f"{100 * one.got:.4f} %"
    return f"{got}{one.basis}" if one.got is not None and not math.isnan(one.got) else got


def limit_cells(one: LimitResult) -> tuple[str, str, str]:
    """A metric, what was wanted of it, and what came, or why that is not known."""
    wanted = figure(one.limit.metric, one.wanted, relative=one.limit.relative)
    return one.limit.metric, wanted, one.reason if one.got is None else got_text(one)


def sentence(one: LimitResult) -> str:
    """One limit in words: `size: wanted at most 0.100x, got 0.264x`."""
    relation = "at least" if METRICS[one.limit.metric].floor else "at most"
    wanted = figure(one.limit.metric, one.wanted, relative=one.limit.relative)
    got = one.reason if one.got is None else f"got {got_text(one)}"
    return f"{one.limit.metric}: wanted {relation} {wanted}, {got}"


def _limit(one: LimitResult) -> dict[str, Any]:
    measured = one.got is not None and math.isfinite(one.got)
    return {
        "metric": one.limit.metric,
        "limit": str(one.limit),
        "unit": "x" if one.limit.relative else METRICS[one.limit.metric].unit,
        "wanted": one.wanted,
        "got": one.got if measured else None,
        "met": one.met,
        "miss": one.miss if math.isfinite(one.miss) else None,
        "basis": one.basis.strip(" ,"),
        "reason": one.reason,
    }
