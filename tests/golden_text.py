"""Graphs as text before and after a change: a file holds a graph, a line `---`, and the graph after it.

`--update-golden` writes what comes out now; read the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.text.dump import dump
from optc.ir.text.parse import parse
from optc.ir.verify.verify import verify

FOLDER = Path(__file__).parent / "golden"


def cases(name: str) -> pytest.MarkDecorator:
    """Runs a test on every file of the folder `name`, as `path`."""
    paths = sorted((FOLDER / name).glob("*.txt"), key=lambda path: path.stem)
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def text(graph: Graph) -> str:
    return dump(graph, tensors="inline", origin=False)


def compare(path: Path, before: str, after: str, expected: str, request: pytest.FixtureRequest) -> None:
    """Holds the text `after` against the `expected` one, or writes it into the file."""
    if request.config.getoption("--update-golden"):
        path.write_text(f"{before}---\n{after}")
    else:
        assert after == expected


def check(path: Path, request: pytest.FixtureRequest, change: Callable[[Graph], None]) -> tuple[Graph, Graph]:
    """The graph of the file, and what `change` makes of it, which is as the file says."""
    before, mark, expected = path.read_text().partition("---\n")
    assert mark, f"{path.name} has no line ---"
    graph = parse(before)
    infer(graph)
    source = graph.clone()
    change(graph)
    infer(graph, fresh=True)
    verify(graph)
    compare(path, before, text(graph), expected, request)
    return source, graph
