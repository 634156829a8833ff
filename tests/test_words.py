"""Names say what a thing is: words that say only where it came from are refused in new code."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
VAGUE = frozenset({"asked", "found", "given", "held", "known", "made", "told"})
LEFT = {
    "passes": 3,
    "report": 1,
}
"""How many such names each folder still has. A number here may fall, and never rises."""


def names(source: str) -> Iterator[str]:
    """The variables and parameters that a source assigns or declares."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


def test_a_vague_name_is_seen() -> None:
    assert [name for name in names("def f(given): found = 1; return found") if name in VAGUE] == ["given", "found"]


def test_names_say_what_things_are() -> None:
    count: Counter[str] = Counter()
    for path in ROOT.rglob("*.py"):
        folder = path.relative_to(ROOT).parts[0]
        if not folder.startswith(".") and folder not in ("build", "dist", "docs", "examples"):
            count[folder] += sum(name in VAGUE for name in names(path.read_text(encoding="utf-8")))
    more = {folder: number for folder, number in count.items() if number > LEFT.get(folder, 0)}
    assert not more, f"more vague names than before; say what the variable holds: {more}"
