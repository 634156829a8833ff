"""What the code of a user's file is known by, as far as its text tells."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.metadata import version

from ..storage.fingerprint import Fingerprint

_COMPUTING = frozenset({
    *("__future__", "abc", "bisect", "cmath", "collections", "copy", "dataclasses", "enum", "fractions", "functools"),
    *("heapq", "itertools", "math", "numbers", "operator", "re", "string", "textwrap", "typing"),
})  # fmt: skip
"""Modules of Python that know nothing but what they are given: no file, no clock, no other module."""
_PACKAGES = {"numpy": "numpy", "onnx": "onnx", "onnx_graphsurgeon": "onnx-graphsurgeon"}
"""Those that a function over a graph is written with, and what their versions go by."""
_BUILT_IN = frozenset({"compile", "eval", "exec", "getattr", "globals", "input", "locals", "open", "vars"})
"""Names by which a function may take more code, or data, than its text has."""
_LEADING_ON = frozenset({
    *("attrgetter", "builtins", "ctypes", "environ", "ForwardRef", "get_type_hints", "importlib", "inspect", "io"),
    *("methodcaller", "modules", "os", "pathlib", "pickle", "subprocess", "sys", "time", "_sys"),
})  # fmt: skip
"""Attributes that look names up, or are modules which those that only compute have imported themselves."""
_READING = ("DataSource", "data_file", "dynload", "f2py", "from_file", "fromfile", "fromregex", "genfromtxt", "hub",
            "load", "memmap", "open", "rand", "read", "recfrom", "testing")  # fmt: skip
"""What stands in the names by which the packages read files, or draw numbers."""


def code_of_file(path: str) -> str | None:
    """The digest of a file and of the versions of the packages that it imports; `None` where that is not all that its
    functions depend on, or nobody can tell: it imports anything else, reads files, or looks its names up."""
    try:
        with open(path, "rb") as file:
            text = file.read()
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    imported = set(_imported(tree))
    if not imported <= _COMPUTING | _PACKAGES.keys() or any(_reaches_out(name) for name in _names(tree)):
        return None
    digest = Fingerprint(*(f"{name} {version(_PACKAGES[name])}" for name in sorted(imported & _PACKAGES.keys())))
    digest.write(text)
    return digest.text


def _imported(tree: ast.AST) -> Iterator[str]:
    """The first words of the modules that are imported; empty for a relative import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "" if node.level else (node.module or "").partition(".")[0]


def _names(tree: ast.AST) -> Iterator[str]:
    """The names that are looked up in a file: of variables, attributes, and what is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield f".{node.attr}"
        elif isinstance(node, ast.alias):
            yield from (f".{word}" for word in node.name.split("."))


def _reaches_out(name: str) -> bool:
    if name.startswith(("__", ".__")):
        return name not in ("__name__", ".__name__", ".__class__", ".__future__")
    if name.startswith("."):
        return name[1:] in _LEADING_ON or any(word in name for word in _READING)
    return name in _BUILT_IN
