"""Latencies of several models, as plain values and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from ..runtime.latency import Latency

SCHEMA = "optc.bench/1"


@dataclass(frozen=True, slots=True)
class Timing:
    """The latency of one model with one number of threads (0: all cores), in runs of `batch` samples."""

    model: str
    threads: int
    batch: int
    latency: Latency


def as_dict(timings: Sequence[Timing]) -> dict[str, Any]:
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
            for one in timings
        ],
    }


def render(timings: Sequence[Timing]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    for column in ("threads", "median", "quartiles", "ratio", "quartiles"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in timings:
        found = one.latency
        table.add_row(
            escape(one.model),
            str(one.threads or "all"),
            f"{1e3 * found.seconds:.3g} ms",
            f"{1e3 * found.fast:.3g}..{1e3 * found.slow:.3g}",
            f"{found.ratio:.2f}",
            f"{found.low:.2f}..{found.high:.2f}",
        )
    return table
