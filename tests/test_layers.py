"""A file imports only from its own layer or one below; `models` sits on `ir` alone."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    "errors",
    "storage",
    "ir",
    "runtime",
    "passes",
    "targets",
    "report",
    "compiler",
    "gate",
    "project",
    "searcher",
    "cli",
)
BELOW: dict[str, set[str]] = {layer: set(LAYERS[: index + 1]) for index, layer in enumerate(LAYERS)}
BELOW["models"] = {"errors", "ir", "models"}
# The models that ship are found by their names, and listed.
for above in ("report", "compiler", "gate", "project", "searcher", "cli"):
    BELOW[above].add("models")
# The package itself and `python -m optc` are doors to everything.
BELOW["__init__"] = BELOW["__main__"] = {*LAYERS, "models", "__init__"}
SKIPPED = {"tests", "benchmarks", "docs", "examples", "build", "dist"}
"""Folders that are no part of the package."""
IN_ONE_PLACE = {"onnx_graphsurgeon": "ir/onnx/surgeon.py"}
"""Packages that only one file may import; others may name their types."""


@functools.cache
def sources() -> list[Path]:
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return sorted(p for p in paths if p.parts[0] not in SKIPPED and not p.parts[0].startswith("."))


@functools.cache
def tree(path: Path) -> tuple[list[ast.AST], frozenset[int]]:
    """The syntax of a file, and which of its nodes (by `id`) only a type checker runs."""
    nodes = list(ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))))
    guarded = [n for n in nodes if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return nodes, frozenset(id(inner) for guard in guarded for one in guard.body for inner in ast.walk(one))


@functools.cache
def imports(path: Path, *, types: bool = True) -> list[tuple[str, ...]]:
    """The modules that a file imports anywhere in it, as paths from the package's root or of other packages.

    `types=False` leaves out what only a type checker imports.
    """
    here = path.parts[:-1]
    modules: list[tuple[str, ...]] = []
    nodes, hidden = tree(path)
    for node in nodes:
        if not types and id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            modules += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ("optc", *here[: len(here) - node.level + 1]) if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            modules += [(*module, alias.name) for alias in node.names]
    return modules


def layer(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def test_the_imports_of_a_file_are_found() -> None:
    modules = imports(Path("ir/text/parse.py"))
    assert ("optc", "errors", "nearest") in modules
    assert ("optc", "ir", "graph", "Graph") in modules
    assert ("re",) in modules
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
    "ir": (
        ("types", "origin", "printable", "uncollected"),
        ("allowance",),
        ("tensor", "text/literal", "text/scan"),
        ("spilled",),
        ("attributes", "clone", "graph", "names", "node", "order", "text/dump"),
        ("calls", "instantiate", "ops", "same", "stored", "text"),
        ("onnx",),
        ("shapes", "verify"),
        ("macs", "randomness", "view"),
    ),
    "passes": (
        ("recall", "spec"),
        ("base",),
        ("function", "file_code", "half", "table"),
        ("pipeline",),
        ("observers", "guard"),
        ("bisection", "cached"),
        ("runner",),
        ("walk", "clean"),
        ("opset", "structure"),
        ("depthwise", "merge", "prune", "quant", "svd"),
        ("distill",),
        ("replace",),
    ),
    "passes/quant": (
        ("numbers",),
        ("scheme",),
        ("layers", "calibrate"),
        ("read",),
        ("qdq",),
        ("stored", "equivalent"),
    ),
    "targets/tvm": (
        ("loading", "open_sizes"),
        ("blame", "quiet"),
        ("cpu", "legal"),
        ("compute",),
        ("relax",),
        ("schedule",),
        ("artifact",),
        ("remote",),
        ("support", "tuning"),
        ("target",),
    ),
    "storage": (("fingerprint", "workspace"), ("abandoned", "atomic", "spill")),
    "runtime": (
        ("axes", "classes", "columns", "cpu", "first_layer", "kinds", "margins", "noise", "rows", "slices"),
        ("archive", "before_selection", "deviation", "images", "layout", "ort_values", "parallel", "samples", "sums"),
        ("spool", "states"),
        ("identity", "session", "sources"),
        ("agreement", "answers", "latency", "providers", "synthesise", "training"),
    ),
    "report": (
        ("amount", "budget", "layers", "shown", "tables", "weights"),
        ("annotated", "changes", "inspect", "progress", "targets", "verdict"),
        ("junit", "markdown", "model_explorer", "search"),
        ("files", "search_terminal"),
        ("build",),
        ("explain", "page", "terminal"),
    ),
    "compiler": (
        (
            *("constant_inputs", "dimension_names", "finished", "first_answer", "fixed_sizes", "model", "place"),
            *("result", "validate"),
        ),
        ("artifact", "data", "growth", "measure", "option", "student"),
        ("arguments", "locked", "options", "profiling"),
        ("order",),
        ("device", "emission", "reuse", "tuning"),
        ("stages",),
        ("several_targets",),
    ),
    "project": (("lock", "overrides"), ("config",)),
    "searcher": (
        ("knapsack", "space"),
        ("layer_options", "order", "plan"),
        ("activation_options", "block_options", "channel_options", "judge", "record", "replacement_options"),
        ("surrogate", "survey"),
        ("task",),
        ("additive", "pipelines", "relaxed", "repair"),
        ("loop", "reach"),
    ),
    "cli": (("chosen", "console", "flags", "help"), ("completion", "explain", "listing", "values"), ("profile", "run")),
    "targets": (("base", "load_time", "packed", "qlinear", "tuning"), ("table", "tvm")),
    "models": (
        ("builder", "torch_graph"),
        ("inverted_residual", "nasnet", "resnet", "transformer", "weights"),
        ("efficientnet", "mnasnet", "mobilenet", "mobilenet_v3"),
        ("digits",),
    ),
}
"""The floors of a folder from the ground up, by folders and modules in it; what is not listed stands above them all."""
DRIVER = frozenset({"bisection", "cached", "guard", "observers", "pipeline", "runner"})
"""What runs passes, of which no pass knows."""
METHODS = {"ir": frozenset({"attributes", "clone", "graph", "names", "node", "order", "text/dump"})}
"""Modules that are the methods of one class, so that they import each other."""


@functools.cache
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
    assert len(edges) > 3
    assert {part for part in heights if not (ROOT / folder / part).is_dir()} <= {a for edge in edges for a in edge}

    def height(module: str) -> int:
        return heights.get(module, heights.get(module.partition("/")[0], len(FLOORS[folder])))

    assert not [f"{a} imports {b}" for a, b in sorted(edges) if height(b) > height(a)]


def test_no_pass_knows_what_runs_it() -> None:
    rooms = {part for floor in FLOORS["passes"][-2:] for part in floor} | {"distill"}
    assert not [(a, b) for a, b in arrows("passes") if a.partition("/")[0] in rooms and b in DRIVER]


@pytest.mark.parametrize("folder", sorted({path.parent.as_posix() for path in sources()} - {"."}))
def test_no_files_of_a_folder_import_each_other_in_a_circle(folder: str) -> None:
    assert circle({("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")}) == ["a", "b", "c"]
    methods = METHODS.get(folder, frozenset())
    assert not circle({edge for edge in arrows(folder) if not methods.issuperset(edge)})
