"""Before a pass is undone as a whole, the layers that break it are found and kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from optc.ir.graph import Graph, Value
from optc.ir.onnx.opset import convert
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, Outcome, Pass, Report, TargetFacts, option
from optc.passes.guard import Guard
from optc.passes.pipeline import Pipeline
from optc.passes.quant import Quant
from optc.passes.runner import run
from optc.passes.walk.walk import walk
from optc.runtime.session import Session
from optc.runtime.sources import load_samples

LAYERS = 6


def chain() -> Graph:
    rng = np.random.default_rng(0)
    graph = Graph("chain", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8)))
    for number in range(LAYERS):
        weight = graph.constant((np.eye(8) + 0.2 * rng.standard_normal((8, 8))).astype(np.float32), f"w{number}")
        x = graph.add("MatMul", [x, weight], outputs=[f"v{number}"], name=f"layer{number}").output
        x.type = TensorType(DType.FLOAT, ("N", 8))
    graph.add_output(x, x.name)
    return graph


@dataclass(frozen=True, slots=True)
class Blur(Pass):
    """Changes every weight a little, and ruins those of some layers."""

    name: ClassVar[str] = "blur"
    lossy: ClassVar[bool] = True

    ruined: str = "24"

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        rng = np.random.default_rng(1)
        for number, node in enumerate(list(graph)):
            value = node.inputs[1]
            assert value is not None
            if reason := ctx.kept(self, node):
                report.skipped(node.name, node.op, reason)
                continue
            weight = np.asarray(value.numpy()) + 1e-3 * rng.standard_normal((8, 8))
            weight = -weight[::-1] if str(number) in self.ruined else weight
            node.set_input(1, graph.constant(weight.astype(np.float32), value.name))
            report.done(node.name, node.op)
        return report


@dataclass(frozen=True, slots=True)
class BlurOrMark(Blur):
    """The same, with a form that only marks a layer."""

    name: ClassVar[str] = "blur-or-mark"

    form: str = option("blur", "", layer=True)

    @property
    def in_float(self) -> Pass | None:
        return replace(self, form="mark")

    def run(self, graph: Graph, ctx: Context) -> Report:
        marked = [node.name for node in graph if ctx.options(self, node).form == "mark"]
        if not marked:
            return Blur.run(self, graph, ctx)
        report = Report()
        for node in graph:
            report.done(node.name, node.op, form="mark" if node.name in marked else "blur")
        return report


@dataclass(frozen=True, slots=True)
class BlurInCodes(Blur):
    """The same, with weights in a form that came with opset 13."""

    name: ClassVar[str] = "blur-in-codes"

    def requires(self, graph: Graph, ctx: Context) -> None:
        convert(graph, 13)

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Blur.run(self, graph, ctx)
        for node in [node for node in graph if node.name in {layer.name for layer in report.layers}]:
            weight = np.asarray(node.inputs[1].numpy())  # type: ignore[union-attr]
            scale = (np.abs(weight).max(0) / 127).astype(np.float32)
            codes = [graph.constant(a) for a in (np.rint(weight / scale).astype(np.int8), scale)]
            node.set_input(1, graph.add("DequantizeLinear", codes, {"axis": 1}).output)
        return report


@dataclass(frozen=True, slots=True)
class ScaleAndBlur(Blur):
    """The same, after every channel between two layers got a scale of its own, which changes no answer."""

    name: ClassVar[str] = "scale-and-blur"

    def run(self, graph: Graph, ctx: Context) -> Report:
        scales = 4.0 ** np.random.default_rng(3).integers(-2, 3, (LAYERS + 1, 8, 1))
        scales[[0, LAYERS]] = 1.0
        for number, node in enumerate(graph):
            weight = np.asarray(node.inputs[1].numpy())  # type: ignore[union-attr]
            scaled = (weight / scales[number] * scales[number + 1].T).astype(np.float32)
            node.set_input(1, graph.constant(scaled, f"w{number}"))
        ctx.rewritten = graph.clone()
        return Blur.run(self, graph, ctx)


@dataclass(frozen=True, slots=True)
class BlurAndMove(Blur):
    """The same for layer 4; a channel between layers 2 and 3 becomes 400 times as large and is divided by as much."""

    name: ClassVar[str] = "blur-and-move"

    ruined: str = "4"

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Blur.run(self, graph, ctx)
        done = {layer.name for layer in report.layers if layer.outcome is Outcome.DONE}
        for node in graph:
            if node.name in done and node.name in ("layer2", "layer3"):
                weight = np.array(node.inputs[1].numpy())  # type: ignore[union-attr]
                if node.name == "layer2":
                    weight[:, 7] *= 400
                else:
                    weight[7] /= 400
                node.set_input(1, graph.constant(weight, node.inputs[1].name))  # type: ignore[union-attr]
        return report


@dataclass(frozen=True, slots=True)
class BlurAndRepair(Blur):
    """The same for layer 1, and what comes behind it makes up for that, unless it is not to repair anything."""

    name: ClassVar[str] = "blur-and-repair"

    ruined: str = "1"

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Blur.run(self, graph, ctx)
        done = [layer.name for layer in report.layers if layer.outcome is Outcome.DONE]
        for node in graph if ctx.repairs and "layer1" in done else ():
            if node.name in done and node.name > "layer1":
                weight = np.asarray(node.inputs[1].numpy())  # type: ignore[union-attr]
                node.set_input(1, graph.constant(-weight[::-1], node.inputs[1].name))  # type: ignore[union-attr]
        return report


def blurred(one: Blur, floor: float | None = None, opset: int = 17, graph: Graph | None = None) -> tuple[Graph, Report]:
    graph = graph or chain()
    graph.opsets[""] = opset
    rows = np.random.default_rng(2).standard_normal((96, 8)).astype(np.float32)
    fit, held_out = load_samples({"x": rows}, graph).split(32)
    ctx = Context(TargetFacts("test", measurable=False), fit=fit, held_out=held_out, threads=1)
    (report,) = run(Pipeline((one,)), graph, ctx, guard=Guard(floor))
    return graph, report


@pytest.mark.parametrize("floor", [None, 0.95])
def test_the_layers_that_break_a_pass_are_kept_and_the_others_done(floor: float | None) -> None:
    graph, report = blurred(Blur(), floor)
    outcomes = {layer.name: layer.outcome for layer in report.layers}
    assert outcomes == {f"layer{n}": Outcome.REVERTED if n in (2, 4) else Outcome.DONE for n in range(LAYERS)}
    assert any("kept 2 layer(s)" in note and "'layer2'" in note and "'layer4'" in note for note in report.notes)
    kept = next(layer for layer in report.layers if layer.name == "layer2")
    assert "alone leaves an agreement of" in kept.reason
    before = chain()
    for old, new, number in zip(before, graph, range(LAYERS), strict=True):
        same = np.array_equal(old.inputs[1].numpy(), new.inputs[1].numpy())  # type: ignore[union-attr]
        assert same == (number in (2, 4))


def test_the_layers_that_break_a_pass_take_the_form_that_computes_in_float() -> None:
    _, report = blurred(BlurOrMark())
    assert [layer.detail["form"] for layer in report.layers] == [
        "mark" if n in (2, 4) else "blur" for n in range(LAYERS)
    ]
    assert any("kept 2 layer(s) in the form of blur-or-mark:form=mark" in note for note in report.notes)


def test_a_layer_that_breaks_the_pass_alone_and_not_beside_others_is_given_back() -> None:
    """Layer 2 loses most by itself, as layer 3 alone divides what it made larger; both together lose nothing."""
    graph = chain()
    reader = next(node for node in graph if node.name == "layer3")
    weight = np.array(reader.inputs[1].numpy())  # type: ignore[union-attr]
    weight[7] *= 0.02
    reader.set_input(1, graph.constant(weight, "w3"))
    _, report = blurred(BlurAndMove(), 0.9, graph=graph)
    assert [layer.name for layer in report.layers if layer.outcome is Outcome.REVERTED] == ["layer4"]


def test_layers_are_tried_in_the_opset_that_the_pass_needs() -> None:
    _, report = blurred(BlurInCodes(), opset=11)
    assert any("kept 2 layer(s)" in note and "'layer2'" in note for note in report.notes)


def test_layers_are_tried_in_the_model_as_the_pass_rewrote_it() -> None:
    _, report = blurred(ScaleAndBlur())
    assert any("kept 2 layer(s)" in note and "'layer2'" in note and "'layer4'" in note for note in report.notes)


def test_quant_tells_the_model_that_it_scaled() -> None:
    graph = Graph("scaled", opsets={"": 17})
    rng = np.random.default_rng(0)
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 4, 4)))
    sizes = 4.0 ** np.arange(-2, 6) / 64
    for number, (rows, columns) in enumerate(((1.0, sizes), (1 / sizes, 1.0), (1.0, 1.0))):
        weight = (rng.standard_normal((8, 8)) * np.reshape(rows, (-1, 1)) * columns).T[:, :, None, None]
        constants = [graph.constant(np.asarray(a, np.float32)) for a in (weight, np.zeros(8))]
        x = graph.add("Conv", [x, *constants], outputs=[f"v{number}"], name=f"layer{number}").output
        x.type = TensorType(DType.FLOAT, ("N", 8, 4, 4))
        x = graph.add("Relu", [x], outputs=[f"r{number}"], types=[x.type]).output if number < 2 else x
    graph.add_output(x, x.name)
    before = graph.clone()
    rows = rng.standard_normal((96, 8, 4, 4)).astype(np.float32)
    fit, held_out = load_samples({"x": rows}, graph).split(32)
    ctx = Context(TargetFacts("test", measurable=False), before, fit, held_out, threads=1)
    report = Quant().run(graph, ctx)
    assert any("scaled" in note for note in report.notes)
    assert ctx.rewritten is not None

    def inner(model: Graph) -> np.ndarray:
        value = next(node.output for node in model if node.output.name == "v0")
        return np.asarray(Session(model, outputs=[value], threads=1).run({"x": rows})[0])

    ours, theirs = inner(ctx.rewritten), inner(graph)
    assert np.abs(ours - inner(before)).max() > 0.5 * np.abs(ours).max()
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(ours).max()
    answers = [np.asarray(Session(model, threads=1).run({"x": rows})[0]) for model in (before, ctx.rewritten)]
    np.testing.assert_allclose(*answers, rtol=1e-3, atol=1e-3 * np.abs(answers[0]).max())


def test_a_pass_that_every_layer_breaks_is_undone() -> None:
    graph, report = blurred(Blur("012345"), 0.95)
    assert report.count(Outcome.REVERTED) == LAYERS
    assert np.array_equal(next(iter(graph)).inputs[1].numpy(), next(iter(chain())).inputs[1].numpy())  # type: ignore[union-attr]


def spectrum() -> Graph:
    """Two filters and the logarithm of their power, over many orders of magnitude, less its mean, before a network."""
    rng = np.random.default_rng(0)
    graph = Graph("spectrum", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 16)))
    kind = TensorType(DType.FLOAT, ("N", 16))

    def gemm(x: Value, rows: int, columns: int, name: str) -> Value:
        weight = (rng.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
        bias = (0.1 * rng.standard_normal(columns)).astype(np.float32) * (name[:4] != "band")
        constants = [graph.constant(weight, f"{name}.w"), graph.constant(bias, f"{name}.b")]
        value = graph.add("Gemm", [x, *constants], outputs=[name], name=name).output
        value.type = TensorType(DType.FLOAT, ("N", columns))
        return value

    parts = [gemm(x, 16, 16, f"band{number}") for number in range(2)]
    power = graph.add("Add", [graph.add("Mul", [p, p], types=[kind]).output for p in parts], types=[kind]).output
    floor, unit = (graph.constant(np.asarray(number, np.float32)) for number in (1e-20, 0.2))
    logarithm = graph.add("Log", [graph.add("Add", [power, floor], types=[kind]).output], types=[kind]).output
    mean = graph.add("ReduceMean", [logarithm], {"axes": [1]}, types=[TensorType(DType.FLOAT, ("N", 1))]).output
    shape = graph.add("Sub", [logarithm, mean], types=[kind]).output
    y = graph.add("Mul", [shape, unit], outputs=["level"], types=[kind]).output
    for number in range(4):
        y = gemm(y, 16 if number == 0 else 32, 32, f"net{number}")
        y = graph.add("Relu", [y], outputs=[f"relu{number}"], types=[y.type]).output
    y = gemm(y, 32, 6, "answer")
    graph.add_output(y, "answer")
    return graph


def test_layers_are_tried_without_what_they_repair() -> None:
    _, report = blurred(BlurAndRepair())
    assert [layer.name for layer in report.layers if layer.outcome is Outcome.REVERTED] == ["layer1"]


@pytest.mark.parametrize("count", [64, 160, 400])
def test_filters_before_a_logarithm_stay_float_whatever_the_number_of_samples(count: int) -> None:
    rng = np.random.default_rng(3)
    rows = (rng.standard_normal((count, 16)) * 10.0 ** rng.uniform(-8, 0, (count, 1))).astype(np.float32)
    graph = spectrum()
    fit, held_out = load_samples({"x": rows}, graph).split(count // 4)
    ctx = Context(TargetFacts("test", measurable=False), fit=fit, held_out=held_out, threads=1)
    (report,) = run(Pipeline((Quant(),)), graph, ctx, guard=Guard(0.9))
    assert report.changed
    assert {n.inputs[0].producer.op for n in graph if n.name[:3] == "net"} == {"DequantizeLinear"}  # type: ignore[union-attr]
    assert any("kept 2 layer(s)" in note and "'band0'" in note and "'band1'" in note for note in report.notes)


def test_a_layer_that_repairs_nothing_keeps_to_its_weights() -> None:
    graph = chain()
    rows = np.random.default_rng(2).standard_normal((96, 8)).astype(np.float32)
    for repairs in (True, False):
        student = graph.clone()
        first = next(iter(student))
        first.set_input(1, student.constant(np.diag(np.ones(8)).astype(np.float32)))
        ctx = Context(TargetFacts("test"), graph, load_samples({"x": rows}, graph), threads=1, repairs=repairs)
        steps = {step.layer.name: step for step in walk(student, ctx)}
        same = [np.allclose(steps[f"layer{n}"].target.weight, steps[f"layer{n}"].layer.weights()) for n in (1, 2)]
        assert same == [not repairs] * 2
