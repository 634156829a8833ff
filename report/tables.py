"""What is drawn on a terminal alike wherever it stands: tables, and notes."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from .shown import shown


def table(*heads: str, title: str = "") -> Table:
    """A table without rows yet; a column whose heading begins with `>` holds figures, set to the right and in one
    line, and others fold."""
    empty = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for head in heads:
        if head.startswith(">"):
            empty.add_column(head[1:], justify="right", no_wrap=True)
        else:
            empty.add_column(head, overflow="fold")
    return empty


def notes(sentences: Iterable[str]) -> list[str]:
    """What the user should know, a line each."""
    return [f"[yellow]note:[/] {shown(one)}" for one in sentences]
