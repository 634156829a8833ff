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


FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "passes/quant": (
        ("numbers",),
        ("scheme",),
        ("layers", "calibrate"),
        ("read",),
        ("qdq",),
        ("stored", "equivalent"),
    ),
}
"""The floors of a folder from the ground up, by folders and modules in it; what is not listed stands above them all."""


def arrows(folder: str) -> set[tuple[str, str]]:
    """Which module of `folder` imports which other one of it, as paths from it, but for the sake of types alone."""
    top = Path(folder).parts
    modules = {p.with_suffix("").parts[len(top) :] for p in sources() if p.parts[: len(top)] == top}
    return {
        ("/".join(module), "/".join(other))
        for module in modules
        for name in imports(Path(folder, *module).with_suffix(".py"), types=False)
        for end in (len(name), len(name) - 1)
        if name[1 : 1 + len(top)] == top and (other := name[1 + len(top) : end]) in modules and other != module
    }


def circle(edges: set[tuple[str, str]]) -> list[str]:
    """The modules that import each other in a circle, or lead to one; none where there is no circle."""
    left = set(edges)
    while dead := {edge for edge in left if edge[1] not in {start for start, _ in left}}:
        left -= dead
    return sorted({start for start, _ in left})


@pytest.mark.parametrize("folder", FLOORS)
def test_no_file_of_a_folder_imports_from_a_floor_above(folder: str) -> None:
    heights = {part: height for height, floor in enumerate(FLOORS[folder]) for part in floor}
    edges = arrows(folder)
    assert len(edges) > 20

    def height(module: str) -> int:
        return heights.get(module.partition("/")[0], len(FLOORS[folder]))

    assert not [f"{a} imports {b}" for a, b in sorted(edges) if height(b) > height(a)]


@pytest.mark.parametrize("folder", FLOORS)
def test_no_files_of_a_folder_import_each_other_in_a_circle(folder: str) -> None:
    assert circle({("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")}) == ["a", "b", "c"]
    assert not circle(arrows(folder))
