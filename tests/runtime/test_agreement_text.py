"""One number under one name: the terminal, the page, the budget, Markdown, JUnit and JSON say the same."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

import optc
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.report import junit, markdown, terminal
from optc.report.page.summary import summary
from optc.report.verdict import sentence
from optc.runtime.agreement import Agreement
from optc.runtime.agreement_text import percent, text
from optc.runtime.kinds import Kind
from optc.runtime.sums import Sums


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.97734, "97.7 %"), (1.0, "100 %"), (0.9999, "99.99 %"), (0.99996, "99.996 %"), (float("nan"), "no figure")],
)
def test_a_share_never_reads_as_more_than_it_is(share: float, words: str) -> None:
    assert percent(share) == words


def test_an_agreement_says_what_it_is_of_and_on_how_many() -> None:
    assert text(0.977, "kappa", 19) == "97.7 % (kappa), on 19 samples"
    assert text(1.0, "top-1", 1) == "100 % (top-1), on 1 sample"
    assert text(float("nan"), "kappa", 19) == "no figure: nothing was compared"


def segmenter() -> Graph:
    """Four classes at every pixel: an agreement of many decisions a sample."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 3, 8, 8)))
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    conv = graph.add("Conv", [x, graph.constant(weight)], {"pads": [1, 1, 1, 1]})
    soft = graph.add("Softmax", [conv.output], {"axis": 1})
    graph.add_output(soft.output, "y", TensorType(DType.FLOAT, ("N", 4, 8, 8)))
    return graph


def test_every_form_of_a_report_says_the_same() -> None:
    rows = np.random.default_rng(1).standard_normal((40, 3, 8, 8)).astype(np.float32)
    report = optc.compile(
        segmenter(), "quant:weights=int4:activations=int8:slower=int8", data=rows, guard=False, threads=1,
        budget="agreement=100%",
    ).report  # fmt: skip
    met = report.agreement
    assert met is not None
    assert met.measure == "kappa"
    words = text(met.share, "kappa", 16)
    out = io.StringIO()
    terminal.show(report, Console(file=out, width=400), layers=False)
    document = json.loads(report.to_json())
    assert document["agreement"]["measure"] == "kappa"
    assert document["budget"]["limits"][0]["basis"] == "(kappa), on 16 samples"
    assert report.budget is not None
    shown = {
        "terminal": out.getvalue(),
        "markdown": markdown.render(report),
        "junit": junit.render(report),
        "budget": sentence(report.budget.results[0]),
    }
    for name, form in shown.items():
        assert words in form, name
    page = str(summary(document))
    assert percent(met.share) in page
    assert ">kappa<" in page


def test_a_teacher_of_one_class_and_few_samples_are_said() -> None:
    sums = Sums("y", Kind.LOGITS)
    rows = np.tile(np.array([[3.0, 1.0, 0.0]]), (19, 1))
    sums.add(rows, rows)
    assert sums.result().single_class
    other = Sums("y", Kind.LOGITS)
    other.add(np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[0, 1, 2, 0]])
    assert not other.result().single_class
    met = Agreement(19, (sums.result(),))
    assert any("one class for all 19 samples" in remark for remark in met.remarks)
    assert any("too few to tell agreements apart that differ by less than 5 %" in remark for remark in met.remarks)
    many = Agreement(400, (other.result(),))
    assert not many.remarks
