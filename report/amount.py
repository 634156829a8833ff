"""Figures as a person reads them, and as JSON can say them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import Size


def amount(count: float, unit: str = "") -> str:
    """A count with three digits and its factor: `14 M`, `41 k`, `312`."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= factor:
            return f"{count / factor:.3g} {letter}{unit}"
    return f"{count:g} {unit}".strip()


def ratio(before: float, after: float) -> str:
    """What is left of a figure; `-` of none."""
    return f"{after / before:.2f}" if before else "-"


def size_rows(before: Size, after: Size, stored: str = "file") -> list[tuple[str, str, str, str]]:
    """What two models cost, a row a figure: its name (of the bytes `stored`), both, and what is left."""
    figures = ((stored, "bytes", "B"), ("parameters", "params", ""), ("MACs", "macs", ""), ("nodes", "nodes", ""))
    pairs = ((name, getattr(before, key), getattr(after, key), unit) for name, key, unit in figures)
    return [(name, amount(old, unit), amount(new, unit), ratio(old, new)) for name, old, new, unit in pairs]


def detail_text(detail: Mapping[str, Any], digits: int = 3) -> str:
    """The figures of a layer in a pass's record: `error 0.012, rank 8`."""
    return ", ".join(
        f"{key} {value:.{digits}g}" if isinstance(value, float) else f"{key} {value}" for key, value in detail.items()
    )


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with `None`, which JSON can say, in place of floats that are not finite."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
