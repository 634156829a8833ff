"""The page of a search: whole by itself, its figures those of the record, and nothing in a name becomes a tag."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from written_page import EVIL

from optc.report.budget import Budget, LimitResult
from optc.report.page.search import best_so_far, metric_of, page
from optc.report.search import Candidate, OptionRow, SearchReport, SiteRow
from optc.report.search_files import write
from optc.report.verdict import Verdict

pytest.importorskip("matplotlib", reason="the page draws its charts with matplotlib (optc[html])")


def record() -> SearchReport:
    budget = Budget.parse("size=10%,agreement=98%")
    size, agreement = budget.limits
    verdict = Verdict(budget, (LimitResult(size, 0.1, 0.09), LimitResult(agreement, 0.98, 0.985)))

    def candidate(at: float, strategy: str, cost: float, loss: float, *, met: bool) -> Candidate:
        return Candidate(at, strategy, "quant", {"size": cost, "macs": 1.0}, loss, 1 - loss, met, False)

    options = tuple(OptionRow(f"int{bits}", 10.0**-bits, 1.0, 1.0, 1.0, bits != 8) for bits in (8, 4, 3))
    return SearchReport(
        model="net.onnx",
        target="onnx",
        wanted=str(budget),
        strategy="knapsack",
        allowed=60.0,
        seconds=58.0,
        candidates=[
            candidate(5, "as it is", 1.0, 0.0, met=False),
            candidate(9, "knapsack", 0.09, 0.03, met=True),
            candidate(12, "knapsack", 0.095, 0.05, met=True),
            candidate(20, "knapsack", 0.09, 0.015, met=True),
        ],
        sites=[SiteRow(EVIL, "bits", options, "int4"), SiteRow("stem", "bits", options, "int8")],
        chosen=3,
        budget=verdict,
        notes=["a note <b>"],
    )


def test_it_shows_the_front_the_time_and_every_option() -> None:
    text = page(record())
    assert text.count('class="heat') == 6
    assert text.count('class="heat chosen"') == 2
    for name in ("summary", "front", "time", "options"):
        assert f'<section id="{name}">' in text
    assert EVIL not in text
    assert "a note &lt;b&gt;" in text
    document = re.search(r'<script type="application/json" id="report">(.*?)</script>', text)
    assert document is not None
    assert json.loads(document[1]) == record().as_dict()


def test_the_best_so_far_only_falls() -> None:
    assert best_so_far(record()) == {"knapsack": [(9, 0.03), (20, 0.015)]}
    assert metric_of(record()) == "size"


def test_it_renders_without_complaints_and_nothing_sticks_out(tmp_path: Path) -> None:
    library = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    programs = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, programs)), None)
    if program is None:
        pytest.skip(f"no browser is installed: {', '.join(programs)}")
    path = tmp_path / "search.html"
    write(record(), str(path))
    with library.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for width in (360, 1280):
            complaints: list[str] = []
            view = browser.new_page(viewport={"width": width, "height": 800})
            view.on("console", lambda message, into=complaints: into.append(message.text))
            view.on("pageerror", lambda error, into=complaints: into.append(str(error)))
            view.goto(path.as_uri(), timeout=120_000)  # milliseconds
            assert complaints == []
            assert view.locator("figure.chart svg").count() == 2
            assert view.evaluate("document.documentElement.scrollWidth") <= width
            strip = view.locator(".strip rect.chosen").first
            assert strip.evaluate("(one) => getComputedStyle(one).stroke") != "none"
        browser.close()
