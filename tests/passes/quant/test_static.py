"""The stages of static quantization, one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from facts import facts_of
from quantized import cleaned
from walked import context, distance, residual_net

from optc.ir.graph import Graph, Value
from optc.ir.types import DType, TensorType
from optc.models import zoo
from optc.passes.base import Context, Report
from optc.passes.quant import Quant, calibrate, static
from optc.passes.quant.calibrate import Calibration
from optc.passes.quant.numbers.histogram import Histogram
from optc.passes.quant.plan import plan
from optc.passes.quant.scheme import Scheme
from optc.passes.quant.static import STAGES, Ranges, Work, quantize_static
from optc.passes.quant.trial import Trial
from optc.passes.walk.linear import Linear
from optc.runtime.sources import load_samples


def work(graph: Graph, one: Quant | None = None) -> Work:
    ctx = dataclasses.replace(context(graph), target=facts_of(measurable=False))
    return Work(graph, plan(graph, one or Quant(), ctx), ctx, Report())


def through(one: Work, names: Sequence[str]) -> Work:
    for name in names:
        STAGES[name](one)
    return one


def until(one: Work, last: str) -> Work:
    names = list(STAGES)
    return through(one, names[: names.index(last) + 1])


FREE = ["pool", "spell", "encode inputs", "rotate", "equalise", "absorb", "fill", "smooth"]


@pytest.mark.parametrize("name", FREE)
def test_the_first_stages_keep_the_function(name: str) -> None:
    graph = residual_net()
    teacher = graph.clone()
    one = through(work(graph), [name])
    assert distance(teacher, graph, one.ctx) < 1e-9
    assert not any(node.op == "QuantizeLinear" for node in graph)


def test_changes_that_keep_the_function_see_channels_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[object] = []
    measure = calibrate.channel_statistics

    def counted(*args: Any) -> list[calibrate.Channels]:
        runs.append(args)
        return measure(*args)

    monkeypatch.setattr(calibrate, "channel_statistics", counted)
    monkeypatch.setattr(Trial, "_measured", lambda self: 1.0)  # nothing gains, so all is as it was
    one = work(residual_net())
    one.ctx = dataclasses.replace(one.ctx, held_out=one.ctx.fit)
    through(one, ["rotate", "equalise", "absorb"])
    assert len(runs) == 1


def test_what_takes_the_place_of_a_node_has_its_scheme() -> None:
    graph = Graph("mean", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 6, 6)))
    mean = graph.add("ReduceMean", [x], {"axes": [2, 3], "keepdims": 0}, types=[TensorType(DType.FLOAT, ("N", 8))])
    graph.add_output(mean.output, "y")
    one = work(graph)
    one.schemes = {**one.schemes, mean: Scheme(reason="kept by name")}
    through(one, ["pool"])
    assert [(node.op, one.schemes[node].reason) for node in graph] == [
        ("GlobalAveragePool", "kept by name"),
        ("Flatten", "kept by name"),
    ]


def test_ranges_cover_what_was_seen_and_exact_inputs_have_their_own() -> None:
    graph = residual_net()
    one = work(graph)
    one.ranges = Ranges("minmax")
    until(one, "ranges")
    assert set(one.params_of) == set(one.plan.sources())
    for value, params in one.params_of.items():
        low, high = params.bounds
        seen = one.seen.histograms[value]
        step = float(params.scale)
        assert low <= min(seen.low, 0.0) + step
        assert high >= max(seen.high, 0.0) - step


def test_what_no_sample_reaches_is_set_apart() -> None:
    graph = residual_net()
    one = until(work(graph), "calibrate")
    node, layer = next(iter(one.layers.items()))
    one.seen.histograms[layer.source].high = np.inf
    through(one, ["set apart"])
    assert node not in one.layers
    assert [(entry.name, entry.reason) for entry in one.report.layers] == [
        (layer.name, "what it reads is not finite, or too large to tell anything of")
    ]


@pytest.mark.parametrize(
    ("rule", "reached", "counts"), [("mse", True, [128]), ("minmax", True, [200]), ("mse", False, [128, 200])]
)
def test_ranges_by_errors_take_some_of_many_samples(
    rule: str, reached: bool, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = residual_net()
    one = work(graph)
    one.ctx = dataclasses.replace(one.ctx, fit=context(graph, 200).fit)
    one.ranges = Ranges(rule)
    through(one, ["smooth"])
    seen: list[int] = []

    def counted(graph: Graph, values: Sequence[Value], layers: Sequence[Linear], ctx: Context) -> Calibration:
        assert ctx.fit is not None
        seen.append(ctx.fit.count)
        calibration = calibrate.calibrate(graph, values, layers, ctx)
        return calibration if reached or len(seen) > 1 else Calibration({values[0]: Histogram()}, calibration.energy)

    monkeypatch.setattr(static, "deciding", lambda *args: {})
    monkeypatch.setattr(static, "calibrate", counted)
    through(one, ["calibrate"])
    assert seen == counts
    assert not any(histogram.empty for histogram in one.seen.histograms.values())


def test_weights_are_written_after_activations() -> None:
    graph = residual_net()
    one = until(work(graph), "write")
    assert any(node.op == "QuantizeLinear" for node in graph)
    assert all(layer.weight.constant is not None for node, layer in one.layers.items() if node not in one.rounded)
    through(one, ["reconstruct"])
    assert set(one.rounded) == set(one.layers)
    assert all(layer.weight.producer is not None for layer in one.layers.values())
    biases = [layer.node.input(2) for layer in one.layers.values()]
    assert all(bias is not None and bias.dtype is DType.FLOAT and bias.constant is not None for bias in biases)
    through(one, ["correct"])
    assert all(layer.node.input(2).producer.op == "DequantizeLinear" for layer in one.layers.values())  # type: ignore[union-attr]


def test_all_stages_are_the_whole() -> None:
    graph = cleaned("digits_dscnn")
    samples = load_samples(zoo.samples("digits_dscnn", "calib"), graph)
    ctx = dataclasses.replace(context(graph), fit=samples, held_out=samples, target=facts_of(measurable=False))
    report = Report()
    quantize_static(Work(graph, plan(graph, Quant(), ctx), ctx, report))
    assert len(report.layers) == sum(node.op in ("Conv", "Gemm") for node in graph)
    assert Quant.stages().keys() == STAGES.keys()
    assert all(text.endswith(".") for text in Quant.stages().values())
