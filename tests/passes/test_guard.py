"""The guard's floors: the user's holds by any amount, and holds nothing to be right that was not compared."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from optc.compiler.data import held_count
from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, Outcome, Pass, Report, TargetFacts
from optc.passes.guard import Guard
from optc.passes.pipeline import Pipeline
from optc.passes.runner import run
from optc.runtime.sources import load_samples


@dataclass(frozen=True, slots=True)
class Shift(Pass):
    """Adds to the bias of the last layer, so that the samples nearest to the border change their class."""

    name: ClassVar[str] = "shift"
    lossy: ClassVar[bool] = True

    by: float = 0.5

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        node = next(node for node in graph if node.op == "Gemm")
        (width,) = node.inputs[2].shape
        node.set_input(2, graph.constant(np.array([self.by, *np.zeros(width - 1)], np.float32), "b"))
        report.done(node.name, node.op)
        return report


def classifier() -> Graph:
    """Class 0 where the first of two numbers is larger."""
    graph = Graph("c", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 2)))
    weight = graph.constant(np.eye(2, dtype=np.float32), "w")
    y = graph.add("Gemm", [x, weight, graph.constant(np.zeros(2, np.float32), "b")], outputs=["y"], name="layer").output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("N", 2)))
    return graph


def finder() -> Graph:
    """The rows whose first number is above 100."""
    graph = Graph("f", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (8, 2)))
    weight = graph.constant(np.eye(2, dtype=np.float32), "w")
    y = graph.add("Gemm", [x, weight, graph.constant(np.zeros(2, np.float32), "b")], name="layer").output
    y.type = TensorType(DType.FLOAT, (8, 2))
    first = graph.add("Gather", [y, graph.constant(np.array(0), "i")], {"axis": 1}).output
    above = graph.add("Greater", [first, graph.constant(np.float32(100), "t")]).output
    graph.add_output(graph.add("Compress", [y, above], {"axis": 0}, outputs=["found"]).output, "found")
    return graph


def ranker(best: int) -> Graph:
    """The largest of six numbers, and where they stand."""
    graph = Graph("r", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 6)))
    weight = graph.constant(np.eye(6, dtype=np.float32), "w")
    y = graph.add("Gemm", [x, weight, graph.constant(np.zeros(6, np.float32), "b")], name="layer").output
    y.type = TensorType(DType.FLOAT, ("N", 6))
    count = graph.constant(np.array([best]), "k")
    picked = graph.add("TopK", [y, count], {"axis": -1}, outputs=["value", "place"])
    for value, dtype in zip(picked.outputs, (DType.FLOAT, DType.INT64), strict=True):
        value.type = TensorType(dtype, ("N", best))
        graph.add_output(value, value.name)
    return graph


def labeller(places: int) -> Graph:
    """The same class as `classifier` gives, at many places of every sample."""
    graph = Graph("l", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", places, 2)))
    rows, whole = (graph.constant(np.array(shape)) for shape in ((-1, 2), (-1, places, 2)))
    weight, bias = graph.constant(np.eye(2, dtype=np.float32), "w"), graph.constant(np.zeros(2, np.float32), "b")
    y = graph.add("Gemm", [graph.add("Reshape", [x, rows]).output, weight, bias], name="layer").output
    y.type = TensorType(DType.FLOAT, ("rows", 2))
    graph.add_output(graph.add("Reshape", [y, whole], outputs=["labels"]).output, "labels")
    infer(graph)
    return graph


def judged(graph: Graph, x: np.ndarray, by: float, floor: float | None) -> Report:
    samples = load_samples({"x": x}, graph)
    ctx = Context(TargetFacts("test"), fit=samples, held_out=samples, threads=1)
    (report,) = run(Pipeline((Shift(by),)), graph, ctx, guard=Guard(floor))
    return report


def test_a_floor_of_the_user_is_one_however_few_the_samples() -> None:
    x = np.stack([np.linspace(-1.0, 1.0, 19), np.zeros(19)], axis=1).astype(np.float32)
    report = judged(classifier(), x, 0.15, 0.98)  # one or two answers of 19 change
    assert report.count(Outcome.REVERTED) == 1
    said = r"would fall to \d\d\.\d % \(.+\), on 19 samples, below 98 % \(\+- \d\.\d %: so few cannot tell\)"
    assert any(re.search(said, note) for note in report.notes), report.notes
    assert judged(classifier(), x, 0.0, 0.98).count(Outcome.DONE) == 1


def test_the_own_floor_gives_way_to_what_little_cannot_tell_and_not_to_few_samples_of_much() -> None:
    """Two answers of sixteen change, and one in sixteen of the many answers in as many samples."""
    x = np.stack([np.linspace(-3.0, 3.2, 16 * 50), np.zeros(16 * 50)], axis=1).astype(np.float32)
    stays = judged(classifier(), x[::50] * [1, 0] + [0.11, 0], 0.5, None)
    assert (stays.spec, stays.count(Outcome.DONE)) == ("shift", 1)
    x = np.random.default_rng(0).permutation(x).reshape(16, 50, 2)
    undone = judged(labeller(50), x, 0.5, None)
    assert undone.count(Outcome.REVERTED) == 1
    assert any(re.search(r"would fall to 8\d\.\d % \(kappa\), on 16 samples, below 90 %$", n) for n in undone.notes)


@pytest.mark.parametrize("best", [3, 4])
def test_a_floor_of_the_user_is_held_by_what_is_selected(best: int) -> None:
    """The first of all numbers stays what it was, and others that are picked change; four of them are no box."""
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (60, 6)).astype(np.float32)
    x[np.arange(60), 4 + np.arange(60) % 2] = 10
    report = judged(ranker(best), x, 0.3, 0.97)
    assert report.count(Outcome.REVERTED) == 1
    assert any("(rows matched)" in note for note in report.notes), report.notes
    assert judged(ranker(best), x, 0.0, 1.0).count(Outcome.DONE) == 1


@pytest.mark.parametrize("floor", [None, 0.99])
def test_nothing_compared_meets_no_floor_and_is_said(floor: float | None) -> None:
    x = np.random.default_rng(0).standard_normal((20, 8, 2)).astype(np.float32)
    report = judged(finder(), x, 0.5, floor)
    assert report.count(Outcome.REVERTED) == (floor is not None)
    assert any("nothing was compared" in note for note in report.notes)


def test_samples_are_held_back_until_a_floor_can_be_told() -> None:
    assert held_count(100) == 20
    assert held_count(100, 0.9) == 20
    assert held_count(100, 0.98) == 49
    assert held_count(60, 0.98) == 30
    assert held_count(1000, 1.0) == held_count(1000) == 128


@dataclass(frozen=True, slots=True)
class Spell(Pass):
    """Stores the weight in 4 bytes less, behind `nodes` nodes that it takes to read it."""

    name: ClassVar[str] = "spell"
    lossy: ClassVar[bool] = True

    nodes: int = 5

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        node = next(node for node in graph if node.op == "Gemm")
        node.set_input(2, None)  # a bias of zeros
        value = node.inputs[1]
        for _ in range(self.nodes):
            value = graph.add("Identity", [value], types=[None if value is None else value.type]).output
        node.set_input(1, value)
        report.done(node.name, node.op)
        return report


@pytest.mark.parametrize(("nodes", "domain", "stays"), [(5, True, False), (0, True, True), (5, False, True)])
def test_a_file_grows_by_no_nodes_that_outweigh_the_weights(nodes: int, domain: bool, stays: bool) -> None:
    """What other targets write is no file of nodes."""
    x = np.stack([np.linspace(-1.0, 1.0, 19), np.zeros(19)], axis=1).astype(np.float32)
    graph = classifier()
    samples = load_samples({"x": x}, graph)
    ctx = Context(TargetFacts("test", contrib_ops=domain, measurable=False), fit=samples, held_out=samples, threads=1)
    (report,) = run(Pipeline((Spell(nodes),)), graph, ctx, guard=Guard())
    assert report.changed == stays
    assert stays or "the file would grow from" in report.notes[-1]
