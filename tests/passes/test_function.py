"""A user's own function over a graphsurgeon graph as a pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from optc.errors import SpecError
from optc.models import zoo
from optc.passes.base import Context, TargetFacts
from optc.passes.function import FunctionPass
from optc.passes.pipeline import Pipeline
from optc.passes.runner import run

SOURCE = """
def drop_relu(graph):
    for node in graph.nodes:
        if node.op == "Relu":
            node.outputs[0].inputs[0].inputs[0].outputs[0].name
            break
    graph.nodes[0].name = "touched"

def replace(graph):
    graph.nodes[0].name = "replaced"
    return graph

def nothing(graph):
    return graph
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(SOURCE)
    return str(tmp_path / "mine.py")


@pytest.mark.parametrize(("function", "name"), [("drop_relu", "touched"), ("replace", "replaced")])
def test_in_place_and_returned_graphs_both_count(path: str, function: str, name: str) -> None:
    graph = zoo.load("digits_resnet")
    pipeline = Pipeline.parse(f"{path}:{function}")
    assert Pipeline.parse(str(pipeline)) == pipeline
    (report,) = run(pipeline, graph, Context(TargetFacts("test")))
    assert report.rewrites == {function: 1}
    assert next(iter(graph)).name == name
    assert [o.name for o in graph.outputs] == ["logits"]


def test_a_function_that_changes_nothing_is_told(path: str) -> None:
    graph = zoo.load("digits_resnet")
    (report,) = run(Pipeline.parse(f"{path}:nothing"), graph, Context(TargetFacts("test")))
    assert not report.changed
    assert "changed nothing" in report.notes[0]


@pytest.mark.parametrize(
    ("file", "function", "words"),
    [
        ("none.py", "f", "there is no file"),
        ("mine.py", "replac", "Did you mean 'replace'"),
        ("broken.py", "f", "fails on import: SyntaxError"),
    ],
)
def test_mistakes(tmp_path: Path, path: str, file: str, function: str, words: str) -> None:
    (tmp_path / "broken.py").write_text("def f(:")
    with pytest.raises(SpecError, match=words):
        FunctionPass(str(tmp_path / file), function).requires(zoo.load("digits_resnet"), Context(TargetFacts("test")))
