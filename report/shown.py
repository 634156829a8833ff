"""Text that comes from files, as a part of what rich draws: none of it is markup, and all of it is short enough."""

from __future__ import annotations

from rich.markup import escape

from ..ir.printable import shortened


def shown(text: str) -> str:
    return escape(shortened(text))
