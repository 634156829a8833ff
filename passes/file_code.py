"""What the code of a user's file is known by, as far as its text tells."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version

from ..storage.fingerprint import Fingerprint

_READS = frozenset({"__import__", "compile", "eval", "exec", "importlib", "open", "runpy"})
"""Names by which a function may take more code, or data, than its text imports."""
_READING = ("fromfile", "genfromtxt", "glob", "load", "loadtxt", "memmap", "read")
"""What names of methods that read a file begin with."""


def code_of_file(path: str) -> str | None:
    """The digest of a file and of the versions of the packages that it imports; `None` where that is not all that its
    functions depend on, or nobody can tell: it imports a module from beside it, or reads files."""
    try:
        with open(path, "rb") as file:
            text = file.read()
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    parts: list[str] = []
    distributions = packages_distributions()
    for name in sorted(set(_imported(tree))):
        beside = os.path.join(os.path.dirname(os.path.abspath(path)), name)
        if os.path.exists(f"{beside}.py") or os.path.isdir(beside) or (name in _READS):
            return None
        if name in sys.stdlib_module_names:
            continue
        if name not in distributions:
            return None
        parts += [f"{one} {version(one)}" for one in sorted(distributions[name])]
    if any(_reads(node) for node in ast.walk(tree)):
        return None
    digest = Fingerprint(*parts)
    digest.write(text)
    return digest.text


def _imported(tree: ast.AST) -> Iterator[str]:
    """The first words of the modules that are imported; empty for a relative import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "" if node.level else (node.module or "").partition(".")[0]


def _reads(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _READS
    return isinstance(node, ast.Attribute) and node.attr.startswith(_READING)
