"""Latencies of several models, as plain values and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType

from ..runtime.latency import Latency
from .shown import shown
from .tables import notes, table

SCHEMA = "optc.bench/1"


@dataclass(frozen=True, slots=True)
class Timing:
    """The latency of one model with one number of threads (0: all cores), in runs of `batch` samples."""

    model: str
    threads: int
    batch: int
    latency: Latency


@dataclass(frozen=True, slots=True)
class Bench:
    """The timings of a command, and what the user should know of the samples that they are of."""

    timings: tuple[Timing, ...]
    notes: tuple[str, ...] = ()


def as_dict(bench: Bench) -> dict[str, Any]:
    """The figures as plain values, for JSON; times in milliseconds, ratios to the first model."""
    return {
        "schema": SCHEMA,
        "timings": [
            {
                "model": one.model,
                "threads": one.threads,
                "batch": one.batch,
                "median_ms": 1e3 * one.latency.seconds,
                "low_ms": 1e3 * one.latency.fast,
                "high_ms": 1e3 * one.latency.slow,
                "ratio": one.latency.ratio,
                "ratio_low": one.latency.low,
                "ratio_high": one.latency.high,
                "rounds": one.latency.rounds,
            }
            for one in bench.timings
        ],
        "notes": list(bench.notes),
    }


def render(bench: Bench) -> RenderableType:
    figures = table("model", ">threads", ">median", ">quartiles", ">ratio", ">quartiles")
    for one in bench.timings:
        measured = one.latency
        figures.add_row(
            shown(one.model),
            str(one.threads or "all"),
            f"{1e3 * measured.seconds:.3g} ms",
            f"{1e3 * measured.fast:.3g}..{1e3 * measured.slow:.3g}",
            f"{measured.ratio:.2f}",
            f"{measured.low:.2f}..{measured.high:.2f}",
        )
    return Group(figures, *notes(bench.notes))
