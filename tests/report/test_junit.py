"""JUnit XML: one case a limit and a pass, failures that say what to look at."""

from __future__ import annotations

from xml.etree import ElementTree

from optc.passes.base import Report
from optc.report.budget import Budget
from optc.report.build import BuildReport, PassRecord, Size
from optc.report.junit import render
from optc.report.verdict import CostlyLayer, Verdict


def parsed(name: str = "conv", budget: str | None = "size=0.1x,macs=1x,kl=0.1") -> ElementTree.Element:
    kept, undone = Report("quant", seconds=1.5), Report("svd:ratio=0.5", seconds=0.25)
    kept.done(name, "Conv", error=0.02)
    undone.done(name, "Conv")
    undone.revert("it would run 1.20 times as long")
    before, after = Size(4000, 1000, 300, 5), Size(1000, 0, 300, 8)
    steps = [PassRecord("quant", kept, after), PassRecord("svd", undone, after)]
    report = BuildReport(f"{name}.onnx", "quant", "onnx", 0, {}, before, after, steps)
    if budget is not None:
        limits = Budget.parse(budget)
        layers = (
            CostlyLayer("bytes", name, "Conv", 900, 100, None),
            CostlyLayer("error", name, "Conv", None, None, 0.1),
        )
        report.budget = Verdict(limits, limits.judge(report), layers)
    return ElementTree.fromstring(render(report).encode())


def test_a_case_a_limit_and_a_pass() -> None:
    root = parsed()
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert names == [
        ("optc.budget", "size=0.1x"),
        ("optc.budget", "macs=1x"),
        ("optc.budget", "kl=0.1"),
        ("optc.passes", "quant"),
        ("optc.passes", "svd:ratio=0.5"),
    ]
    assert {key: root.get(key) for key in ("tests", "failures", "skipped", "errors")} == {
        "tests": "5",
        "failures": "2",
        "skipped": "1",
        "errors": "0",
    }
    size, kl = root.iter("failure")
    assert size.get("message") == "size: wanted at most 0.100x, got 0.250x"
    assert size.text is not None
    assert size.text.splitlines()[1:] == ["  by bytes: conv (Conv): bytes 900, MACs 100"]
    assert kl.get("message") == "kl: wanted at most 0.1 nats, not measured"
    (skipped,) = root.iter("skipped")
    assert skipped.get("message") == "reverted: it would run 1.20 times as long"
    assert [suite.get("time") for suite in root] == ["0.000", "1.750"]


def test_without_a_budget_there_are_only_passes() -> None:
    root = parsed(budget=None)
    assert [suite.get("name") for suite in root] == ["passes on conv.onnx"]
    assert root.get("failures") == "0"


def test_names_that_xml_cannot_hold() -> None:
    root = parsed('<a> & "b" \x1b[31m\x00 \ud800')
    failure = next(root.iter("failure"))
    assert failure.text is not None
    assert '<a> & "b" \\x1b[31m\\x00 \\ud800' in failure.text
