"""Counts as a person reads them."""

from __future__ import annotations


def amount(count: float, unit: str = "") -> str:
    """A count with three digits and its factor: `14 M`, `41 k`, `312`."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= factor:
            return f"{count / factor:.3g} {letter}{unit}"
    return f"{count:g} {unit}".strip()
