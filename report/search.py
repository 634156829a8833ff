"""The record of one search, and its JSON form: everything that is shown of it is read from here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .amount import finite
from .verdict import Verdict

SCHEMA = "optc.search/1"
"""Name and version of the JSON document."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model that was built and judged, `at` seconds after the search began. `costs` are shares of the original by
    metric, `loss` what its answers lost on held-out samples, `failed` why there is none."""

    at: float
    strategy: str
    passes: str
    costs: Mapping[str, float]
    loss: float | None
    agreement: float | None
    met: bool
    taught: bool
    failed: str = ""


@dataclass(frozen=True, slots=True)
class OptionRow:
    """One option of a site: what the model's answers lose by it alone, and the shares that it leaves."""

    word: str
    loss: float
    macs: float
    params: float
    time: float
    measured: bool


@dataclass(frozen=True, slots=True)
class SiteRow:
    """A layer or group of channels with its options; `chosen` is the word of that of the answer."""

    name: str
    kind: str
    options: tuple[OptionRow, ...]
    chosen: str


@dataclass(slots=True)
class SearchReport:
    """A whole search. `chosen` is the place of the answer in `candidates`; `budget` is the answer held against it;
    `recalled` counts the candidates that an earlier search had judged."""

    model: str
    target: str
    wanted: str
    strategy: str
    allowed: float
    seconds: float
    candidates: list[Candidate]
    sites: list[SiteRow]
    chosen: int
    budget: Verdict
    recalled: int = 0
    notes: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)

    @property
    def met(self) -> bool:
        return self.budget.met

    def as_dict(self) -> dict[str, Any]:
        """The document, of plain values. Figures that are not finite become `None`, which JSON can say."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "target": self.target,
            "strategy": self.strategy,
            "allowed": self.allowed,
            "seconds": round(self.seconds, 3),
            "recalled": self.recalled,
            "chosen": self.chosen,
            "budget": self.budget.as_dict(),
            "candidates": [finite(asdict(one)) for one in self.candidates],
            "sites": [{**asdict(one), "options": [asdict(option) for option in one.options]} for one in self.sites],
            "notes": self.notes,
            "artifacts": self.artifacts,
        }

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"
