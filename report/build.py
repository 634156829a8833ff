"""The record of one build, and its JSON form.

Everything that is shown to a user, on the terminal or on a page, is read from here; so the numbers agree.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..passes.base import Outcome, Report
from ..passes.cached import Ruling
from ..runtime.agreement import Agreement
from ..runtime.agreement_text import whole_text
from .amount import amount, finite
from .verdict import Verdict

SCHEMA = "optc.build/1"
"""Name and version of the JSON document. The number grows when a field changes its meaning or goes away."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a model costs: stored bytes, weight elements, multiply-accumulates of one sample, nodes."""

    bytes: int
    params: int
    macs: int
    nodes: int


@dataclass(frozen=True, slots=True)
class LatencyFigure:
    """Median milliseconds of one run of each model, timed in turns in one process, and the median of their ratios.

    `ratio` is result over original: below 1 is faster. `low` and `high` are its quartiles.
    """

    original_ms: float
    result_ms: float
    ratio: float
    low: float
    high: float
    batch: int
    threads: int

    @property
    def told_apart(self) -> bool:
        """Whether the ratio of the medians is another figure than the median of the ratios, as on a busy machine."""
        return self.original_ms * self.ratio > 0 and abs(self.result_ms / (self.original_ms * self.ratio) - 1) > 0.02


@dataclass(frozen=True, slots=True)
class Validation:
    """The artifact held against the graph that it was built from: on how many samples it was found to answer as that
    does, but for rounding. Where on none, `reason` says why it was not run. `random` names outputs that were left out.
    """

    samples: int
    reason: str = ""
    random: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """How it went, in words."""
        if not self.samples:
            return f"not run: {self.reason}"
        left = f"; not looked at, as they are drawn: {', '.join(self.random)}" if self.random else ""
        return f"answers as its graph, on {self.samples} sample{'s' if self.samples > 1 else ''}{left}"


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """The samples used: how many to fit on, how many held out to judge, and where they came from."""

    source: str
    synthetic: bool
    fit: int
    held_out: int


@dataclass(frozen=True, slots=True)
class PassRecord:
    """One pass as it went: its report, what the model cost after it, and how far it agreed where that was asked for."""

    name: str
    report: Report
    after: Size
    agreement: Agreement | None = None

    @property
    def counts(self) -> tuple[str, ...]:
        """How many layers were done, skipped and reverted, or what was rewritten, as the cells of a table."""
        done, *rest = (self.report.count(outcome) for outcome in Outcome)
        done = sum(self.report.rewrites.values()) if self.report.rewrites else done
        return tuple(str(count or "") for count in (done, *rest))

    @property
    def cells(self) -> tuple[str, str, str]:
        """Parameters, work and weights that the model has after it."""
        return amount(self.after.params), amount(self.after.macs), amount(self.after.bytes, "B")


@dataclass(frozen=True, slots=True)
class TargetRow:
    """What one of several targets of a command came to: its artifact, cost, agreement, and latency beside the original.

    `None` is what was not measured, as the latency of another machine's artifact.
    """

    target: str
    artifact: str | None
    bytes: int
    params: int
    macs: int
    agreement: float | None
    sqnr_db: float | None
    latency_ms: float | None
    latency_ratio: float | None
    validated: bool
    budget_met: bool | None
    seconds: float

    @staticmethod
    def of(report: BuildReport) -> TargetRow:
        met, timed, after = report.agreement, report.latency, report.after
        sqnr = None if met is None else met.sqnr_db
        return TargetRow(
            report.target,
            report.artifacts[0] if report.artifacts else None,
            after.bytes,
            after.params,
            after.macs,
            None if met is None or math.isnan(met.share) else met.share,
            sqnr if sqnr is not None and math.isfinite(sqnr) else None,
            None if timed is None else timed.result_ms,
            None if timed is None else timed.ratio,
            report.validation is not None and report.validation.samples > 0,
            None if report.budget is None else report.budget.met,
            round(report.seconds, 3),
        )


@dataclass(slots=True, repr=False)
class BuildReport:
    """A whole build. `steps` are the passes in the order in which they ran; `notes` are sentences for the user.

    `hashes` are the digests of what went in (model, data, options, code), `outputs` those of the files that came out,
    by name; with `rulings`, what the guard has measured, they say how to get the same bytes again. `cached` tells that
    nothing was run, because the same had been built before. `targets` compares all targets of a command for several.
    """

    model: str
    pipeline: str
    target: str
    seed: int
    versions: dict[str, str]
    before: Size
    after: Size
    steps: list[PassRecord] = field(default_factory=list)
    samples: SampleRecord | None = None
    agreement: Agreement | None = None
    latency: LatencyFigure | None = None
    validation: Validation | None = None
    budget: Verdict | None = None
    artifacts: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    rulings: dict[str, Ruling] = field(default_factory=dict)
    cached: bool = False
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    targets: list[TargetRow] = field(default_factory=list)
    draw: Callable[[str], None] | None = field(default=None, compare=False)
    """Writes a form of the report that shows more than the record holds, by the extension of the path."""

    @property
    def passes(self) -> list[PassRecord]:
        """The passes in the order in which they ran, by the name that they have in the JSON document."""
        return self.steps

    def __repr__(self) -> str:
        sizes = f"{amount(self.before.bytes, 'B')} -> {amount(self.after.bytes, 'B')}"
        agrees = "" if self.agreement is None else f", agreement {whole_text(self.agreement)}"
        return f"<BuildReport {self.model} for {self.target}: {sizes}{agrees}>"

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "draw"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in {"draw": None, **state}.items():
            setattr(self, name, value)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report to `path`, in the form that its extension names: .json, .md, .xml (JUnit), .html,
        or .onnx: the result with its figures in `metadata_props`, for viewers.

        Raises `SpecError` for another extension, and `OutputError`.
        """
        from .files import WHOLE, extension, write

        place = os.fspath(path)
        if self.draw is not None and extension(place, WHOLE) in WHOLE:
            self.draw(place)
        else:
            write(self, place)

    def as_dict(self) -> dict[str, Any]:
        """The document, of plain values. Figures that are not finite become `None`, which JSON can say."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "pipeline": self.pipeline,
            "target": self.target,
            "seed": self.seed,
            "versions": self.versions,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "samples": None if self.samples is None else asdict(self.samples),
            "agreement": None if self.agreement is None else agreement_dict(self.agreement),
            "latency": None if self.latency is None else finite(asdict(self.latency)),
            "validation": None if self.validation is None else asdict(self.validation),
            "budget": None if self.budget is None else self.budget.as_dict(),
            "passes": [_step(step) for step in self.steps],
            "artifacts": self.artifacts,
            "hashes": self.hashes,
            "outputs": self.outputs,
            "cached": self.cached,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
            "targets": [asdict(row) for row in self.targets],
        }

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"


def agreement_dict(agreement: Agreement) -> dict[str, Any]:
    return {
        "samples": agreement.samples,
        "share": None if math.isnan(agreement.share) else agreement.share,
        "measure": agreement.measure,
        "outputs": [
            finite({**asdict(one), "kind": one.kind.value, "measure": one.measure}) for one in agreement.outputs
        ],
    }


def _step(step: PassRecord) -> dict[str, Any]:
    report = step.report
    return {
        "name": step.name,
        "spec": report.spec,
        "seconds": round(report.seconds, 3),
        "forwards": None if report.forwards is None else round(report.forwards, 2),
        "cached": report.cached,
        **{outcome.value: report.count(outcome) for outcome in Outcome},
        "rewrites": report.rewrites,
        "notes": report.notes,
        "curve": [finite(asdict(moment)) for moment in report.curve],
        "interrupted": report.interrupted,
        "after": asdict(step.after),
        "agreement": None if step.agreement is None else agreement_dict(step.agreement),
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "outcome": layer.outcome.value,
                "reason": layer.reason,
                "detail": finite(layer.detail),
            }
            for layer in report.layers
        ],
    }


def together(reports: Sequence[BuildReport]) -> str:
    """The documents of several builds as one: `{"schema": "optc.builds/1", "builds": [...]}`."""
    document = {"schema": "optc.builds/1", "builds": [report.as_dict() for report in reports]}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
