"""Where the commands print: standard output, as wide as a table needs, and one line on a missed budget."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from ..report.verdict import Verdict

MISSED = 3
"""The exit status where a budget was missed."""


def console() -> Console:
    """Standard output, at least 80 columns wide: a table in less would show no figure whole."""
    from rich.console import Console

    found = Console()
    found.width = max(80, found.width)
    return found


def tell(verdict: Verdict | None) -> int:
    """Name the limits that were missed on standard error, the nearest first; the exit status that this means."""
    from ..report.verdict import sentence

    if verdict is None or verdict.met:
        return 0
    missed = verdict.misses
    print(f"optc: the budget was missed: {'; '.join(map(sentence, missed))}", file=sys.stderr)
    return MISSED
