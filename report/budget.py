"""Budgets: what a result may cost and how well it must agree, as text, and judged.

`size=4MB,latency=0.6x,macs=50%,agreement=99%,kl=0.01`: limits parted by commas, each a metric and a bound. `size`,
`params`, `macs` and `latency` must stay at or below theirs, absolute (`4MB`, `2ms`, `300M`) or relative to the original
(`0.6x`, `60%`); so must `kl` (nats). `agreement` (a share of 1, or a percentage) and `snr` (dB) must reach theirs. A
figure that was not measured, or that the model does not have, meets no limit: a gate that could not look stays shut.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import SpecError, expect, nearest

if TYPE_CHECKING:
    from .build import BuildReport

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?\s*(.*?)\s*", re.IGNORECASE)
_RELATIVE = {"x": 1.0, "%": 0.01}
_COUNT = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True, slots=True)
class BudgetMetric:
    """A figure that can be limited. `units` are the factors to its own unit, `unit`; `floor` where more is better."""

    unit: str
    units: Mapping[str, float]
    relative: bool = False
    floor: bool = False
    example: str = ""


METRICS: Mapping[str, BudgetMetric] = {
    "size": BudgetMetric(
        "B",
        {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
        relative=True,
        example="4MB, 0.3x or 30%",
    ),
    "params": BudgetMetric("", _COUNT, relative=True, example="2M, 0.5x or 50%"),
    "macs": BudgetMetric("", _COUNT, relative=True, example="300M, 0.5x or 50%"),
    "latency": BudgetMetric("ms", {"us": 1e-3, "ms": 1.0, "s": 1e3}, relative=True, example="2ms, 0.6x or 60%"),
    "agreement": BudgetMetric("share", {"": 1.0, "%": 0.01}, floor=True, example="99% or 0.99"),
    "kl": BudgetMetric("nats", {"": 1.0, "nats": 1.0}, example="0.01"),
    "snr": BudgetMetric("dB", {"": 1.0, "dB": 1.0}, floor=True, example="30dB"),
}
MEASURED = frozenset({"latency", "agreement", "kl", "snr"})
"""The metrics that only a run of both models tells."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One bound on one metric, as it was written: `value` times `unit`."""

    metric: str
    value: float
    unit: str

    @property
    def relative(self) -> bool:
        """Whether the bound is a share of the original's figure."""
        return METRICS[self.metric].relative and self.unit in _RELATIVE

    @property
    def bound(self) -> float:
        """The bound in the metric's own unit, or as a share of 1 where it is relative."""
        if self.unit == "%":
            return self.value / 100  # 57 * 0.01 is not 0.57
        factors = _RELATIVE if self.relative else METRICS[self.metric].units
        return self.value * factors[self.unit]

    def __str__(self) -> str:
        return f"{self.metric}={repr(self.value).removesuffix('.0')}{self.unit}"


@dataclass(frozen=True, slots=True)
class LimitResult:
    """How one limit fared. `wanted` and `got` are in the metric's own unit, `x` where relative; `got` is `None` where
    the figure is not known, and `reason` then says why. `basis` is what it is of: ` (kappa), on 19 samples`."""

    limit: Limit
    wanted: float
    got: float | None
    reason: str = ""
    basis: str = ""

    @property
    def met(self) -> bool:
        if self.got is None or math.isnan(self.got):
            return False
        return self.got >= self.wanted if METRICS[self.limit.metric].floor else self.got <= self.wanted

    @property
    def miss(self) -> float:
        """How far off, as a share of what was wanted; 0 where the limit is met, infinite where nothing is known."""
        if self.met:
            return 0.0
        if self.got is None or math.isnan(self.got) or self.wanted == 0:
            return math.inf
        return abs(self.got - self.wanted) / abs(self.wanted)


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits that a result must keep, each metric at most once. `str` gives text that parses back to an equal one."""

    limits: tuple[Limit, ...] = ()

    @staticmethod
    def parse(text: str) -> Budget:
        """The budget that `text` spells. Raises `SpecError` with a caret under the place that is wrong."""
        expect(text, str, "a budget is text, such as 'size=4MB'", SpecError)
        limits: dict[str, Limit] = {}
        at = 0
        for part in text.split(","):
            start = at + len(part) - len(part.lstrip())
            at += len(part) + 1
            if not part.strip():
                raise SpecError("a limit is missing here: metric=bound, such as size=4MB", text=text, position=start)
            limit = _limit(text, part.strip(), start)
            if limit.metric in limits:
                raise SpecError(f"'{limit.metric}' is limited twice", text=text, position=start)
            limits[limit.metric] = limit
        return Budget(tuple(limits.values()))

    def __str__(self) -> str:
        return ",".join(str(limit) for limit in self.limits)

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics limited here that are known only after a run of both models."""
        return tuple(limit.metric for limit in self.limits if limit.metric in MEASURED)

    def judge(self, report: BuildReport) -> tuple[LimitResult, ...]:
        """Every limit held against the figures of `report`, in the order written."""
        return tuple(_judge(limit, report) for limit in self.limits)


def nearest_misses(results: Iterable[LimitResult]) -> list[LimitResult]:
    """The limits that were missed, the nearest to being met first."""
    return sorted((one for one in results if not one.met), key=lambda one: one.miss)


def _limit(text: str, part: str, start: int) -> Limit:
    name, equals, bound = part.partition("=")
    name = name.strip()
    metric = METRICS.get(name)
    if metric is None:
        raise SpecError(f"no metric is called '{name}'.{nearest(name, METRICS)}", text=text, position=start)
    place = start + len(part) - len(bound.lstrip()) if equals else start + len(part)
    match = _NUMBER.fullmatch(bound) if equals else None
    if match is None:
        raise SpecError(f"'{name}' takes a number: {metric.example}", text=text, position=place)
    factors = {**metric.units, **(_RELATIVE if metric.relative else {})}
    unit = next((factor for factor in factors if factor.lower() == match[3].lower()), None)
    if unit is None:
        what = f"has no unit '{match[3]}'" if match[3] else "needs a unit"
        raise SpecError(f"'{name}' {what}: {metric.example}", text=text, position=place)
    value = float(match[1] + (match[2] or ""))
    limit = Limit(name, value, unit)
    if not math.isfinite(value) or (limit.bound == 0 and not metric.floor and name != "kl"):
        raise SpecError(f"'{name}' must be more than 0 and finite: {metric.example}", text=text, position=place)
    if name == "agreement" and limit.bound > 1:
        raise SpecError("'agreement' is a share, at most 1 or 100%: 99%", text=text, position=place)
    if unit == "" and metric.relative and value < 1:
        raise SpecError(f"'{name}' below one is a share: {value:g}x", text=text, position=place)
    return limit


def _judge(limit: Limit, report: BuildReport) -> LimitResult:
    wanted = limit.bound
    before, after, reason = _figures(limit.metric, report)
    if after is None:
        return LimitResult(limit, wanted, None, reason)
    if not limit.relative:
        return LimitResult(limit, wanted, after, basis=_basis(limit.metric, report))
    if not before:
        return LimitResult(limit, wanted, None, "the original has none, so there is no ratio")
    # The ratio of latencies is measured pair by pair; that of the medians is noisier.
    ratio = report.latency.ratio if limit.metric == "latency" and report.latency is not None else after / before
    return LimitResult(limit, wanted, ratio)


def _basis(metric: str, report: BuildReport) -> str:
    """What a figure that was measured on samples is of."""
    agreement = report.agreement
    if agreement is None or metric not in ("agreement", "kl", "snr"):
        return ""
    of = f" ({agreement.measure})" if metric == "agreement" else ""
    return f"{of}, on {agreement.samples} sample{'s' if agreement.samples != 1 else ''}"


def _figures(metric: str, report: BuildReport) -> tuple[float | None, float | None, str]:
    """The original's figure and the result's, and why the latter is missing where it is."""
    if metric in ("size", "params", "macs"):
        field = "bytes" if metric == "size" else metric
        return float(getattr(report.before, field)), float(getattr(report.after, field)), ""
    if metric == "latency":
        if report.latency is None:
            return None, None, "not measured"
        return report.latency.original_ms, report.latency.result_ms, ""
    if report.agreement is None:
        return None, None, "not measured"
    agreement = report.agreement
    got = {"agreement": agreement.share, "kl": agreement.kl, "snr": agreement.sqnr_db}[metric]
    return None, got, "" if got is not None else "no output of this model has one"
