"""Several targets of one command side by side: the cells of a table, the same for every form of the report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..runtime.agreement_text import percent
from .amount import amount

HEADS = ("target", ">file", ">MACs", ">agreement", ">SQNR", ">latency", ">ratio", ">checked", "artifact")
"""Those that begin with `>` are of figures."""


def cells(row: Mapping[str, Any]) -> Sequence[str]:
    """One row of the `targets` of a report's document, as a person reads it."""
    return (
        row["target"],
        amount(row["bytes"], "B"),
        amount(row["macs"]),
        "-" if row["agreement"] is None else percent(row["agreement"]),
        _text(row["sqnr_db"], ".1f", " dB"),
        _text(row["latency_ms"], ".3g", " ms"),
        _text(row["latency_ratio"], ".2f", ""),
        "yes" if row["validated"] else "not run",
        "-" if row["artifact"] is None else os.path.basename(row["artifact"]),
    )


def _text(value: float | None, form: str, unit: str) -> str:
    return "-" if value is None else f"{value:{form}}{unit}"
