"""A file imports only from its own layer or one below; `models` sits on `ir` alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("errors", "storage", "ir", "runtime", "passes", "targets", "report", "compiler", "gate", "project", "cli")
BELOW: dict[str, set[str]] = {layer: set(LAYERS[: index + 1]) for index, layer in enumerate(LAYERS)}
BELOW["models"] = {"errors", "ir", "models"}
# The models that ship are found by their names, and listed.
for above in ("report", "compiler", "gate", "project", "cli"):
    BELOW[above].add("models")
# The package itself and `python -m optc` are doors to everything.
BELOW["__init__"] = BELOW["__main__"] = {*LAYERS, "models", "__init__"}
SKIPPED = {"tests", "benchmarks", "docs", "examples", "build", "dist"}
"""Folders that are no part of the package."""
IN_ONE_PLACE = {"onnx_graphsurgeon": "ir/onnx/surgeon.py"}
"""Packages that only one file may import; others may name their types."""


def sources() -> list[Path]:
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return sorted(p for p in paths if p.parts[0] not in SKIPPED and not p.parts[0].startswith("."))


def imports(path: Path, *, types: bool = True) -> list[tuple[str, ...]]:
    """The modules that a file imports anywhere in it, as paths from the package's root or of other packages.

    `types=False` leaves out what only a type checker imports.
    """
    here = path.parts[:-1]
    found: list[tuple[str, ...]] = []
    nodes = list(ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))))
    if not types:
        guarded = [n for n in nodes if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
        hidden = {id(inner) for guard in guarded for statement in guard.body for inner in ast.walk(statement)}
        nodes = [node for node in nodes if id(node) not in hidden]
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ("optc", *here[: len(here) - node.level + 1]) if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            found += [(*module, alias.name) for alias in node.names]
    return found


def layer(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def test_the_imports_of_a_file_are_found() -> None:
    found = imports(Path("ir/text/parse.py"))
    assert ("optc", "errors", "nearest") in found
    assert ("optc", "ir", "graph", "Graph") in found
    assert ("re",) in found
    assert ("onnx_graphsurgeon",) in imports(Path("ir/onnx/surgeon.py"), types=False)
    assert ("onnx_graphsurgeon",) in imports(Path("compiler/model.py"))
    assert ("onnx_graphsurgeon",) not in imports(Path("compiler/model.py"), types=False)
    assert len(sources()) > 30


@pytest.mark.parametrize("path", sources(), ids=str)
def test_layers(path: Path) -> None:
    mine = layer(path.parts)
    assert mine in BELOW, f"{path}: '{mine}' is in no layer"
    for module in imports(path, types=False):
        assert IN_ONE_PLACE.get(module[0], path.as_posix()) == path.as_posix(), f"{path} imports {module[0]}"
    for module in imports(path):
        if module[0] == "optc" and len(module) > 1:
            # A name that is no layer is one of the package's own public names.
            other = module[1] if module[1] in BELOW else "__init__"
            wanted = BELOW[mine] | ({"__init__"} if module[1].startswith("__") else set())
            assert other in wanted, f"{path} ({mine}) imports optc.{'.'.join(module[1:])}, which is above it"
