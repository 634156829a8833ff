"""Latencies of libraries on a device, with what the device says of itself."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType

from ..runtime.agreement_text import text
from .shown import shown
from .tables import notes, table

SCHEMA = "optc.device/1"
THROTTLED = 1.1
"""Of drift, above which a device is said to throttle."""


@dataclass(frozen=True, slots=True)
class DeviceTiming:
    """One library: milliseconds of a run in the median and of nine in ten; `drift` is the median at the end over that
    at the beginning, `heat` the hottest sensor before and after in degrees Celsius, `ratio` p50 over the first
    library's.

    `share`, `measure` and `samples` say how far it agrees with the model that it was held against, if any.
    """

    model: str
    p50_ms: float
    p90_ms: float
    drift: float
    runs: int
    heat: tuple[float | None, float | None]
    ratio: float
    share: float | None = None
    measure: str = ""
    samples: int = 0


@dataclass(frozen=True, slots=True)
class DeviceBench:
    """All libraries on one device: what it is called, says of itself (`facts`), and the `threads` they ran with."""

    device: str
    facts: dict[str, Any]
    threads: int
    timings: tuple[DeviceTiming, ...]
    notes: tuple[str, ...] = ()


def as_dict(bench: DeviceBench) -> dict[str, Any]:
    """The figures as plain values, for JSON."""
    return {
        "schema": SCHEMA,
        "device": bench.device,
        "facts": bench.facts,
        "threads": bench.threads,
        "timings": [asdict(one) for one in bench.timings],
        "notes": list(bench.notes),
    }


def render(bench: DeviceBench) -> RenderableType:
    facts = bench.facts
    words = ", ".join(str(facts[key]) for key in ("model", "cpu", "machine", "system") if facts.get(key))
    timings = table("model", ">p50", ">p90", ">drift", ">ratio", "agreement")
    for one in bench.timings:
        agrees = "" if not one.samples else text(math.nan if one.share is None else one.share, one.measure, one.samples)
        figures = (f"{one.p50_ms:.3g} ms", f"{one.p90_ms:.3g} ms", f"{one.drift:.2f}", f"{one.ratio:.2f}")
        timings.add_row(shown(one.model), *figures, agrees)
    title = shown(f"{bench.device}: {words}" if words else bench.device)
    return Group(title, timings, *notes(bench.notes))
