"""Names say what a thing is: words that say only where it came from are refused in new code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
VAGUE = frozenset(
    {"asked", "found", "given", "held", "helper", "known", "made", "res", "temp", "thing", "things", "tmp", "told"}
)
OUTSIDE = {"build", "dist"}


def names(source: str) -> Iterator[str]:
    """The variables, attributes, parameters and functions that a source assigns or declares."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name) | ast.FunctionDef(name=name):
                yield name


def test_a_vague_name_is_seen() -> None:
    source = "def f(given): self.known = found = 1; return found"
    assert sorted(name for name in names(source) if name in VAGUE) == ["found", "given", "known"]


def classes() -> Iterator[tuple[str, str]]:
    """The name of each public class of the package, and its file."""
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT)
        if here.parts[0] not in {*OUTSIDE, "tests", "benchmarks", "docs", "examples"} and here.parts[0][0] != ".":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    yield node.name, here.as_posix()


def test_the_name_of_a_class_stands_for_one_class() -> None:
    files: dict[str, list[str]] = {}
    for name, path in classes():
        files.setdefault(name, []).append(path)
    assert len(files) > 400
    assert not {name: paths for name, paths in files.items() if len(paths) > 1}


def test_names_say_what_things_are() -> None:
    paths = [p.relative_to(ROOT) for p in ROOT.rglob("*.py")]
    ours = [p for p in paths if p.parts[0] not in OUTSIDE and not p.parts[0].startswith(".")]
    vague = {
        f"{path}: {name}" for path in ours for name in names((ROOT / path).read_text(encoding="utf-8")) if name in VAGUE
    }
    assert len(ours) > 500
    assert not vague, "say what these hold, not where it came from"
