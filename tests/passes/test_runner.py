"""Running a pipeline: verified, watched, undone where the guard objects, and reproducible where it crashes."""

from __future__ import annotations

import dataclasses
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from optc.errors import PassError
from optc.ir.graph import Graph
from optc.ir.onnx.reader import load
from optc.ir.types import DType, TensorType
from optc.passes import runner
from optc.passes.base import Context, Outcome, Pass, Report, TargetFacts
from optc.passes.cached import PassCache
from optc.passes.guard import Guard
from optc.passes.observers import Dump, Observer, Reproduce
from optc.passes.pipeline import Pipeline
from optc.passes.quant import Quant
from optc.passes.runner import run
from optc.runtime.sources import load_samples

WEIGHT = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


def graph_of_one_layer() -> Graph:
    graph = Graph("one", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    y = graph.add("MatMul", [x, graph.constant(WEIGHT, "w")], outputs=["y"], name="layer").output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("N", 3)))
    return graph


def context(graph: Graph) -> Context:
    rows = np.random.default_rng(1).standard_normal((64, 4)).astype(np.float32)
    fit, held_out = load_samples({"x": rows}, graph).split(16)
    return Context(TargetFacts("test", contrib_ops=True), fit=fit, held_out=held_out, threads=1)


@dataclass(frozen=True, slots=True)
class Scale(Pass):
    """Multiplies the weights; a factor far from 1 is a bad idea."""

    name: ClassVar[str] = "scale"
    lossy: ClassVar[bool] = True

    factor: float = 1.0
    grow: bool = False

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        node = next(iter(graph))
        noise = np.random.default_rng(2).standard_normal(WEIGHT.shape).astype(np.float32)
        weight = WEIGHT + np.float32(self.factor - 1) * noise
        if self.grow:
            double = graph.constant(np.concatenate([weight, weight]))
            axes = [graph.constant(np.array([n])) for n in (0, 4, 0)]
            node.set_input(1, graph.add("Slice", [double, *axes], before=node).output)
        else:
            node.set_input(1, graph.constant(weight, "w"))
        report.done(node.name, node.op, factor=self.factor)
        return report


@dataclass(frozen=True, slots=True)
class Crash(Pass):
    name: ClassVar[str] = "crash"

    def run(self, graph: Graph, ctx: Context) -> Report:
        next(iter(graph)).name = "half done"
        raise ZeroDivisionError("by zero")


@dataclass(frozen=True, slots=True)
class Break(Pass):
    name: ClassVar[str] = "break"

    def run(self, graph: Graph, ctx: Context) -> Report:
        next(iter(graph)).op = "NoSuchOp"
        return Report()


@dataclass
class Log(Observer):
    said: list[str] = field(default_factory=list)

    def before(self, position: int, one: Pass, graph: Graph) -> None:
        self.said.append(f"before {position} {one.name}")

    def after(self, position: int, one: Pass, graph: Graph, report: Report) -> None:
        self.said.append(f"after {position} {one.name}")

    def crashed(self, position: int, one: Pass, before: Graph, ctx: Context) -> str:
        self.said.append(f"crashed {position} {next(iter(before)).name}")
        return "an observer's word"


def test_observers_see_every_pass_in_order() -> None:
    graph, log = graph_of_one_layer(), Log()
    reports = run(Pipeline((Scale(), Scale())), graph, context(graph), observers=[log])
    assert log.said == ["before 1 scale", "after 1 scale", "before 2 scale", "after 2 scale"]
    assert len(reports) == 2
    assert all(one.spec == "scale" and one.seconds > 0 for one in reports)


def test_the_teacher_is_the_graph_before_the_first_lossy_pass() -> None:
    graph = graph_of_one_layer()
    ctx = context(graph)
    run(Pipeline((Scale(2.0), Scale(3.0))), graph, ctx)
    assert ctx.teacher is not None
    np.testing.assert_array_equal(next(iter(ctx.teacher)).inputs[1].numpy(), WEIGHT)  # type: ignore[union-attr]


def test_a_crash_names_the_pass_and_hands_the_graph_before_it() -> None:
    graph, log = graph_of_one_layer(), Log()
    with pytest.raises(PassError, match=r"pass 2 \(crash\): ZeroDivisionError: by zero; an observer's word") as raised:
        run(Pipeline((Scale(), Crash())), graph, context(graph), observers=[log])
    assert raised.value.exit_status == 1
    assert log.said[-1] == "crashed 2 layer"


def test_an_invalid_graph_is_the_passes_fault() -> None:
    graph = graph_of_one_layer()
    with pytest.raises(PassError, match=r"left an invalid graph: .*NoSuchOp"):
        run(Pipeline((Break(),)), graph, context(graph))


def test_the_reproducer_holds_the_model_and_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    graph = graph_of_one_layer()
    with pytest.raises(PassError) as raised:
        run(Pipeline((Crash(),)), graph, context(graph), observers=[Reproduce()])
    match = re.search(r"to reproduce: (optc .*)", str(raised.value))
    assert match is not None
    words = shlex.split(match[1])
    assert words[2:5] == ["--no-clean", "--passes", "crash"]
    assert next(iter(load(words[1]))).name == "layer", "the graph as the pass was given it"


def test_dump_numbers_its_files(tmp_path: Path) -> None:
    graph = graph_of_one_layer()
    run(Pipeline((Scale(),)), graph, context(graph), observers=[Dump(str(tmp_path))])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000_input.txt", "001_scale.txt"]
    assert "MatMul" in (tmp_path / "001_scale.txt").read_text()


def test_a_pass_on_its_defaults_must_keep_the_answers() -> None:
    graph = graph_of_one_layer()

    @dataclass(frozen=True, slots=True)
    class Ruin(Scale):
        name: ClassVar[str] = "ruin"
        factor: float = 30.0

    (report,) = run(Pipeline((Ruin(),)), graph, context(graph), guard=Guard())
    assert report.count(Outcome.REVERTED) == 1
    assert report.count(Outcome.DONE) == 0
    assert "agreement of output 'y' would fall" in report.layers[0].reason
    np.testing.assert_array_equal(next(iter(graph)).inputs[1].numpy(), WEIGHT)  # type: ignore[union-attr]


def test_a_loss_that_the_user_asked_for_stays_unless_a_floor_is_given() -> None:
    pipeline = Pipeline((Scale(30.0),))
    graph = graph_of_one_layer()
    (report,) = run(pipeline, graph, context(graph), guard=Guard())
    assert report.count(Outcome.DONE) == 1
    graph = graph_of_one_layer()
    (report,) = run(pipeline, graph, context(graph), guard=Guard(floor=0.9))
    assert report.count(Outcome.REVERTED) == 1
    graph = graph_of_one_layer()
    (report,) = run(pipeline, graph, context(graph), guard=None)
    assert report.count(Outcome.DONE) == 1


def test_a_model_that_grew_is_undone() -> None:
    graph = graph_of_one_layer()
    (report,) = run(Pipeline((Scale(1.0, True),)), graph, context(graph), guard=Guard())
    assert "would grow" in report.layers[0].reason
    assert [node.op for node in graph] == ["MatMul"]


def test_a_model_that_became_slower_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    from optc.runtime import latency
    from optc.runtime.latency import Latency

    slow = (Latency(1.0, 1.0, 1.0, 1.0, 9, 1.0, 1.0), Latency(2.0, 2.0, 1.9, 2.1, 9, 2.0, 2.0))
    monkeypatch.setattr(latency, "latency", lambda sessions, feeds, **limits: slow)
    graph = graph_of_one_layer()
    (report,) = run(Pipeline((Scale(1.0),)), graph, context(graph), guard=Guard())
    assert report.layers[0].reason == "it would run 2.00 times as long"


@dataclass(frozen=True, slots=True)
class Asked(Scale):
    """A pass whose options say that its bytes are wanted, whatever a run takes."""

    @property
    def may_be_slower(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Folded(Scale):
    """A pass that has another form for where its own is slow."""

    folded: bool = False

    @property
    def in_float(self) -> Folded | None:
        return None if self.folded else dataclasses.replace(self, folded=True)

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Scale.run(self, graph, ctx)
        next(iter(graph)).name = "folded" if self.folded else "slow"
        return report


def ruled(one: Pass, bytes: int, slow: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> tuple[Graph, Report]:
    """A model of 1000 bytes, of which `one` makes one of `bytes`, as slow as the name of its layer says."""
    from optc.ir import cost
    from optc.passes import guard

    graph = graph_of_one_layer()
    real = cost.cost(graph)

    def cost_of(graph: Graph) -> cost.GraphCost:
        weight = next(iter(graph)).inputs[1]
        assert weight is not None
        return dataclasses.replace(real, bytes=1000 if np.array_equal(weight.numpy(), WEIGHT) else bytes)

    monkeypatch.setattr(cost, "cost", cost_of)
    monkeypatch.setattr(guard, "_slowdown", lambda before, after, *rest: slow[next(iter(after)).name])
    (report,) = run(Pipeline((one,)), graph, context(graph), guard=Guard())
    return graph, report


def test_a_slower_model_of_half_the_bytes_stays_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    _, report = ruled(Scale(1.01), 400, {"layer": 1.04}, monkeypatch)
    assert report.count(Outcome.DONE) == 1
    assert report.notes == ["the result runs 1.04 times as long here, and was kept because it stores 0.40 of the bytes"]
    _, report = ruled(Scale(1.01), 400, {"layer": 1.06}, monkeypatch)
    assert report.notes == ["reverted: it would run 1.06 times as long"]
    _, report = ruled(Scale(1.01), 600, {"layer": 1.04}, monkeypatch)
    assert report.notes == ["reverted: it would run 1.04 times as long"]
    _, report = ruled(Asked(1.01), 400, {"layer": 5.0}, monkeypatch)
    assert report.count(Outcome.DONE) == 1


def test_a_slow_form_gives_way_to_that_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, report = ruled(Folded(1.01), 400, {"slow": 5.0, "folded": 1.0}, monkeypatch)
    assert next(iter(graph)).name == "folded"
    assert report.count(Outcome.DONE) == 1
    assert report.spec == "scale:factor=1.01"
    assert report.notes == [
        "run as scale:factor=1.01:folded=true: it would run 5.00 times as long in integers here "
        "(scale:slower=int8 keeps them)"
    ]
    graph, report = ruled(Folded(1.01), 400, {"slow": 5.0, "folded": 1.2}, monkeypatch)
    assert next(iter(graph)).name == "layer"
    assert report.notes == ["reverted: it would run 5.00 times as long"]
    graph, report = ruled(Folded(1.01), 400, {"slow": 0.5}, monkeypatch)
    assert next(iter(graph)).name == "slow"


def test_a_form_that_loses_too_much_gives_way_to_that_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    from optc.passes import guard

    @dataclass(frozen=True, slots=True)
    class Milder(Folded):
        """Loses nearly all, but in the other form."""

        def run(self, graph: Graph, ctx: Context) -> Report:
            return Scale(1.0001 if self.folded else 30.0).run(graph, ctx)

    monkeypatch.setattr(guard, "_slowdown", lambda *_: 1.0)
    graph = graph_of_one_layer()
    (report,) = run(Pipeline((Milder(),)), graph, context(graph), guard=Guard(0.9))
    assert report.count(Outcome.DONE) == 1
    assert report.notes[0].startswith("run as scale:folded=true: agreement of output 'y' would fall to")
    assert report.notes[0].endswith("below 90 % in integers here")
    np.testing.assert_allclose(next(iter(graph)).inputs[1].numpy(), WEIGHT, atol=1e-3)  # type: ignore[union-attr]


def test_what_changed_nothing_is_not_made_tidy_again(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph("none", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    graph.add_output(graph.add("Cos", [x]).output, "y", TensorType(DType.FLOAT, ("N", 4)))
    tidied: list[Graph] = []
    tidy = runner._tidy
    monkeypatch.setattr(runner, "_tidy", lambda graph: (tidied.append(graph), tidy(graph))[1])
    agreed: list[Graph] = []
    monkeypatch.setattr(Context, "agreement", lambda self, graph: agreed.append(graph))
    before = str(graph)
    cache = PassCache(None)
    run(Pipeline.parse("clean,prune,svd,quant"), graph, context(graph), guard=Guard(), cache=cache)
    assert len(tidied) == 1, "by the first pass, which finds it as it was read"
    assert not agreed, "nothing was lost, so nothing need be asked"
    assert str(graph) == before.replace("y: ?", "y: float[N, 4]")


@dataclass(frozen=True, slots=True)
class Silent(Pass):
    """Edits, and does not say so."""

    name: ClassVar[str] = "silent"

    def run(self, graph: Graph, ctx: Context) -> Report:
        next(iter(graph)).name = "another"
        return Report()


@pytest.mark.parametrize("kind", [Silent, Quant])
def test_what_a_report_does_not_count_stays(kind: type[Pass], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Quant, "run", Silent.run)
    graph = graph_of_one_layer()
    run(Pipeline((*Pipeline.parse("clean"), kind())), graph, context(graph), cache=PassCache(None))
    assert next(iter(graph)).name == "another"


@dataclass(frozen=True, slots=True)
class Hungry(Pass):
    """Loads what there is no memory for."""

    name: ClassVar[str] = "hungry"

    def run(self, graph: Graph, ctx: Context) -> Report:
        raise ImportError("solver.so: failed to map segment from shared object")


def test_what_finds_no_memory_is_no_crash() -> None:
    graph = graph_of_one_layer()
    with pytest.raises(MemoryError, match="solver"):
        run(Pipeline([Hungry()]), graph, context(graph))
