"""A snapshot gives back everything, and a graph that was read back is the one that was edited in memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from corpus import cases
from everything import everything

from optc.errors import ModelError
from optc.ir.graph import Graph, Value
from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import to_bytes
from optc.ir.tensor import BroadcastTensor, FillTensor, LazyTensor
from optc.ir.text import snapshot
from optc.ir.text.dump import dump
from optc.ir.text.parse import parse
from optc.ir.types import DType
from optc.models import zoo


def round_trip(graph: Graph, path: Path) -> Graph:
    with path.open("wb") as file:
        snapshot.write(graph, file)
    return snapshot.read(path)


def uses(graph: Graph) -> list[list[tuple[str, int]]]:
    """The reads of every value in their order, by the names of the readers' first outputs."""

    def word(user: object) -> str:
        outputs: tuple[Value, ...] = getattr(user, "outputs", ())
        return outputs[0].name if outputs and isinstance(outputs[0], Value) else ""

    values = [v for g in graph.graphs() for v in (*g.inputs, *g.constants, *(o for n in g for o in n.outputs))]
    return [[(word(user), index) for user, index in value.uses] for value in values]


@pytest.mark.parametrize("name", ["digits_resnet", "digits_transformer"])
def test_a_settled_graph_comes_back_equal(name: str, tmp_path: Path) -> None:
    graph = zoo.load(name)
    for node in itertools.islice(graph, 4):  # names twice, and reads in another order than the nodes'
        node.outputs[0].name = "twice"
    first = graph.inputs[0]
    for user, index in list(first.uses)[:1]:
        user.set_input(index, None)  # type: ignore[union-attr]
        user.set_input(index, first)  # type: ignore[union-attr]
    snapshot.settle(graph)
    back = round_trip(graph, tmp_path / "s")
    snapshot.settle(back)
    assert dump(back, tensors="inline") == dump(graph, tensors="inline")
    assert to_bytes(back) == to_bytes(graph)
    assert uses(back) == uses(graph)
    assert snapshot.digest(back) == snapshot.digest(graph)


def test_every_field_comes_back(tmp_path: Path) -> None:
    graph = from_proto(everything())
    assert dump(round_trip(graph, tmp_path / "s"), tensors="inline") == dump(graph, tensors="inline")


@pytest.mark.parametrize("kind", ["simple", "pytorch-converted", "light"])
def test_the_corpus_comes_back(kind: str, tmp_path: Path) -> None:
    corpus = cases(kind)
    assert len(corpus) > 5
    for case in corpus:
        graph = from_proto(case.model)
        back = round_trip(graph, tmp_path / "s")
        assert dump(back, tensors="inline") == dump(graph, tensors="inline"), case.name
        assert snapshot.digest(back) == snapshot.digest(graph), case.name


def test_tensors_that_are_held_once_stay_so(tmp_path: Path) -> None:
    graph = parse("graph(x: float[1000, 100]) -> (y) { y = Add(x, x) }")
    row = np.arange(100, dtype=np.float32)[None]
    kinds = [
        graph.constant(FillTensor(np.float32(3), (1000, 100)), "fill"),
        graph.constant(BroadcastTensor(row, (1000, 100)), "rows"),
        graph.constant(LazyTensor(DType.FLOAT, (100,), lambda: row[0]), "lazy"),
    ]
    path = tmp_path / "s"
    back = round_trip(graph, path)
    assert path.stat().st_size < 4000
    for value, other in zip(kinds, back.constants, strict=True):
        np.testing.assert_array_equal(value.numpy(), other.numpy())  # type: ignore[arg-type]
    types = [type(v.constant).__name__ for v in back.constants]
    assert types == ["FillTensor", "BroadcastTensor", "FileTensor"]


def test_a_change_of_anything_is_another_graph() -> None:
    digests = set()
    for edit in range(5):
        graph = zoo.load("digits_dscnn")
        node = next(iter(graph))
        if edit == 1:
            node.name = "other"
        elif edit == 2:
            node.origin = type(node.origin)(("elsewhere",))
        elif edit == 3:
            node.outputs[0].type = None
        elif edit == 4:
            weight = node.inputs[1]
            assert weight is not None
            data = np.array(weight.numpy())
            data.reshape(-1)[-1] += 1
            node.set_input(1, graph.constant(data, weight.name))
        digests.add(snapshot.digest(graph))
    assert len(digests) == 5


@pytest.mark.parametrize("data", [b"", b"junk", b"optc snapshot 1\n" + (99).to_bytes(8, "little") + b"\xff\xfe"])
def test_what_is_no_snapshot_is_said_to_be_none(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        snapshot.read(path)
