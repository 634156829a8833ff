"""Markdown for a CI page: whole tables whatever the names hold."""

from __future__ import annotations

from optc.passes.base import Report
from optc.report.budget import Budget
from optc.report.build import BuildReport, PassRecord, Size
from optc.report.markdown import code, plain, render, table
from optc.report.verdict import CostlyLayer, Verdict


def cells(line: str) -> int:
    return line.replace("\\|", "").count("|") - 1


def build(name: str = "conv") -> BuildReport:
    record = Report("quant")
    record.done(name, "Conv", error=0.02)
    record.notes.append("mind <this> | *that*")
    before, after = Size(4000, 1000, 300, 5), Size(1000, 0, 300, 8)
    report = BuildReport("m|.onnx", "quant", "onnx", 0, {}, before, after, [PassRecord("quant", record, after)])
    budget = Budget.parse("size=0.1x,macs=1x")
    layers = (CostlyLayer("bytes", name, "Conv", 900, None, None),)
    report.budget = Verdict(budget, budget.judge(report), layers)
    return report


def test_every_row_of_a_table_has_the_same_cells() -> None:
    for name in ("conv", "a|b", "`tick`", "<script>\n|", "\x1b[31m"):
        text = render(build(name))
        for block in text.split("\n\n"):
            if block.startswith("|"):
                assert len({cells(line) for line in block.splitlines()}) == 1, block
        assert "\x1b" not in text
        assert "\n|" in text


def test_the_page_says_what_counts() -> None:
    text = render(build())
    assert "| file | 4 kB | 1 kB | 0.25 |" in text
    assert "### Budget missed" in text
    assert "| size | 0.100x | 0.250x | **missed** |" in text
    assert "| macs | 1.000x | 1.000x | met |" in text
    assert "| bytes | `conv` | Conv | 900 B |  |  |" in text
    assert "| `conv` | Conv | 0.02 |" in text
    assert r"- quant: mind \<this\> \| \*that\*" in text


def test_nothing_breaks_out_of_a_span() -> None:
    assert code("a``b") == "```a``b```"
    assert code("`") == "`` ` ``"
    assert code("a\n\nb") == "`a b`"
    assert plain("[x](y)") == r"\[x\](y)"
    assert table(("a", ">b"), [("1", "2")]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"
