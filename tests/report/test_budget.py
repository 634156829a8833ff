"""Budgets: their text, and how a build fares against them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import optc
from optc.errors import SpecError
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.passes.base import Report
from optc.report.budget import METRICS, Budget, nearest_misses
from optc.report.build import BuildReport, LatencyFigure, PassRecord, Size
from optc.report.verdict import judge, sentence
from optc.runtime.agreement import Agreement
from optc.runtime.kinds import Kind
from optc.runtime.sums import OutputAgreement


def report(**changed: object) -> BuildReport:
    figures: dict[str, object] = {
        "agreement": Agreement(100, (OutputAgreement("y", Kind.LOGITS, 31.5, 0.99, 0.57, 0.02),)),
        "latency": LatencyFigure(2.0, 1.3, 0.6, 0.55, 0.65, 1, 1),
        **changed,
    }
    before, after = Size(4_000_000, 1_000_000, 300_000_000, 50), Size(1_000_000, 900_000, 150_000_000, 80)
    return BuildReport("m.onnx", "quant", "onnx", 0, {}, before, after, **figures)  # type: ignore[arg-type]


def small() -> Graph:
    graph = Graph("small", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 8, 8)))
    value = graph.add("Conv", [x, graph.constant(np.ones((4, 3, 3, 3), np.float32))], name="first").output
    value = graph.add("Flatten", [value]).output
    value = graph.add("MatMul", [value, graph.constant(np.ones((144, 5), np.float32))], name="last").output
    graph.add_output(value, "y", TensorType(DType.FLOAT, ("N", 5)))
    return graph


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("size=1MB", True),
        ("size=999999B", False),
        ("size=977KiB", True),
        ("size=976KiB", False),
        ("size=25%", True),
        ("size=.2499x", False),
        ("macs=150M", True),
        ("macs=0.15g", True),
        ("macs=149999k", False),
        ("macs=50%", True),
        ("params=900000", True),
        ("params=0.89x", False),
        ("latency=1.3ms", True),
        ("latency=1299us", False),
        ("latency=0.6x", True),
        ("latency=59%", False),
        ("agreement=57%", True),
        ("agreement=0.5701", False),
        ("kl=0.02", True),
        ("kl=0.0199nats", False),
        ("snr=31.5dB", True),
        ("snr=32", False),
    ],
)
def test_every_metric_absolute_and_relative(text: str, met: bool) -> None:
    (result,) = Budget.parse(text).judge(report())
    assert result.met is met
    assert (result.miss == 0) is met


def test_a_latency_ratio_is_the_measured_one_not_that_of_the_medians() -> None:
    (result,) = Budget.parse("latency=0.62x").judge(report())
    assert result.got == 0.6  # the medians say 0.65


def test_what_was_not_measured_meets_no_limit() -> None:
    bare = report(agreement=None, latency=None)
    results = Budget.parse("latency=10s,agreement=0,kl=9,snr=0,size=1x").judge(bare)
    assert [one.met for one in results] == [False, False, False, False, True]
    assert sentence(Budget.parse("size=2MB").judge(bare)[0]) == "size: wanted at most 2 MB, got 1 MB"
    assert sentence(results[0]) == "latency: wanted at most 1e+04 ms, not measured"
    values = Agreement(9, (OutputAgreement("y", Kind.VALUES, 30.0, 1.0),))
    (result,) = Budget.parse("kl=9").judge(report(agreement=values))
    assert not result.met
    assert result.reason == "no output of this model has one"
    nan = Agreement(9, (OutputAgreement("y", Kind.VALUES, float("nan"), 1.0),))
    assert not Budget.parse("snr=1").judge(report(agreement=nan))[0].met
    nothing = Agreement(9, (OutputAgreement("y", Kind.ROWS, remark="nothing was compared"),))
    assert not Budget.parse("agreement=1%").judge(report(agreement=nothing))[0].met
    assert nothing.remarks == ["of 'y' nothing was compared"]
    assert report(agreement=nothing).as_dict()["agreement"]["share"] is None


def test_the_nearest_miss_comes_first() -> None:
    results = Budget.parse("size=0.1x,macs=149M,params=1M,agreement=60%").judge(report())
    assert [one.limit.metric for one in nearest_misses(results)] == ["macs", "agreement", "size"]


@pytest.mark.parametrize(
    ("text", "words", "column"),
    [
        ("sise=4MB", "Did you mean 'size'?", 0),
        ("size=4MB,,kl=1", "a limit is missing", 9),
        ("", "a limit is missing", 0),
        ("size=4MB,", "a limit is missing", 9),
        ("size=4MB,size=2MB", "'size' is limited twice", 9),
        ("macs=1M, size=4 furlongs", "'size' has no unit 'furlongs'", 14),
        ("size=4", "'size' needs a unit", 5),
        ("size", "'size' takes a number", 4),
        ("size=", "'size' takes a number", 5),
        ("size=big", "'size' takes a number", 5),
        ("size=-4MB", "'size' takes a number", 5),
        ("size=0MB", "more than 0", 5),
        ("size=nan", "'size' takes a number", 5),
        ("size=1e999MB", "finite", 5),
        ("macs=0.5", "0.5x", 5),
        ("agreement=99", "at most 1 or 100%", 10),
        ("agreement=0.9x", "has no unit 'x'", 10),
        ("kl=0.1dB", "has no unit 'dB'", 3),
    ],
)
def test_bad_text_gets_a_caret(text: str, words: str, column: int) -> None:
    with pytest.raises(SpecError) as caught:
        Budget.parse(text)
    assert words in str(caught.value)
    assert caught.value.position == column
    assert str(caught.value).splitlines()[-1] == "  " + " " * column + "^"


@given(
    st.dictionaries(
        st.sampled_from(sorted(METRICS)), st.floats(1e-6, 1.0, allow_nan=False) | st.integers(1, 1), min_size=1
    ),
    st.data(),
)
def test_a_budget_is_text_and_back(bounds: dict[str, float], data: st.DataObject) -> None:
    parts = []
    for name, value in bounds.items():
        metric = METRICS[name]
        units = [*metric.units, *(["x", "%"] if metric.relative else [])]
        units = [unit for unit in units if not (metric.relative and unit == "")]
        parts.append(f"{name}={value!r}{data.draw(st.sampled_from(units))}")
    budget = Budget.parse(",".join(parts))
    assert Budget.parse(str(budget)) == budget


def test_a_missed_budget_names_the_layers_to_look_at() -> None:
    whole = report()
    record = Report("quant")
    record.done("last", "MatMul", error=0.02)
    record.done("first", "Conv", error=0.3)
    record.skipped("other", "Conv", "too small", error=9.0)
    whole.steps.append(PassRecord("quant", record, whole.after))
    graph = small()
    assert judge(Budget.parse("size=1x"), whole, graph).layers == ()
    verdict = judge(Budget.parse("size=0.1x,macs=0.1x,agreement=99%"), whole, graph)
    by = {key: [one.name for one in verdict.layers if one.by == key] for key in ("bytes", "macs", "error")}
    assert by == {"bytes": ["last", "first"], "macs": ["first", "last"], "error": ["first", "last"]}
    document = verdict.as_dict()
    assert document["met"] is False
    assert document["nearest_misses"] == ["agreement", "size", "macs"]
    assert document["limits"][0] == {
        "metric": "size",
        "limit": "size=0.1x",
        "unit": "x",
        "wanted": 0.1,
        "got": 0.25,
        "met": False,
        "miss": pytest.approx(1.5),
        "basis": "",
        "reason": "",
    }


def test_a_library_build_with_a_missed_budget_does_not_raise() -> None:
    build = optc.compile("zoo:digits_dscnn", "clean", budget=optc.Budget.parse("size=1B,macs=1x"), check=False)
    assert not build.met
    assert build.report.budget is not None
    assert [one.met for one in build.report.budget.results] == [False, True]
    assert optc.compile("zoo:digits_dscnn", "clean", check=False).met
    with pytest.raises(SpecError, match="latency needs the check"):
        optc.compile("zoo:digits_dscnn", "clean", budget="latency=1x", check=False)
