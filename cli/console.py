"""Where the commands print: standard output, as wide as a table needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """Standard output, at least 80 columns wide: a table in less would show no figure whole."""
    from rich.console import Console

    found = Console()
    found.width = max(80, found.width)
    return found
