"""What a model takes on its first sample is bounded by what it is made of."""

from __future__ import annotations

import resource
import sys

import numpy as np
import pytest
from bombs import BOMBS

from optc.compiler.first_answer import VARIABLE, FirstRunBounds, TakesTooMuch, first_answer
from optc.ir.graph import Graph
from optc.ir.onnx.reader import from_proto
from optc.models import zoo

X = {"x": np.ones((1, 4), np.float32)}


def answer(graph: Graph) -> None:
    first_answer(graph, X, FirstRunBounds.of(graph, X, {}, 1), 1)


@pytest.mark.parametrize(
    ("name", "what"), [("parts", "makes 60000 values"), ("spread", "writes"), ("squares", "products")]
)
def test_sizes_that_are_known_tell_before_anything_runs(name: str, what: str) -> None:
    graph = from_proto(BOMBS[name]())
    with pytest.raises(TakesTooMuch, match=rf"{what}.*{VARIABLE}=off"):
        FirstRunBounds.of(graph, X, {}, 1)


def test_a_loop_without_an_end_is_ended() -> None:
    with pytest.raises(TakesTooMuch, match="more than 1 seconds"):
        first_answer(from_proto(BOMBS["endless"]()), X, FirstRunBounds(1 << 30, 1.0), 1)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded under Linux alone")
@pytest.mark.parametrize("name", ["ordered", "growing"])
def test_what_takes_more_memory_is_ended_and_the_limit_is_as_it_was(name: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(TakesTooMuch, match="bytes"):
        answer(from_proto(BOMBS[name]()))
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_user_who_knows_better_sets_no_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    assert FirstRunBounds.of(from_proto(BOMBS["squares"]()), X, {}, 1) is None


@pytest.mark.parametrize("name", ["digits_resnet", "digits_transformer"])
def test_a_network_is_far_within_its_bounds(name: str) -> None:
    graph = zoo.load(name)
    (value,) = graph.inputs
    feeds = {value.name: np.zeros([size if isinstance(size, int) else 1 for size in value.shape or ()], np.float32)}
    session = first_answer(graph, feeds, FirstRunBounds.of(graph, feeds, {}, 1), 1)
    assert len(session.run(feeds)) == len(graph.outputs)
