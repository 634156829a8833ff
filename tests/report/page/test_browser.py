"""The page in a browser: it renders by itself, on a phone, in the dark and by keyboard, and is quick."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from written_page import EVIL, Written

from optc.compiler import Data, compile
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.passes.base import Report
from optc.report.build import PassRecord
from optc.runtime.agreement_text import percent

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FIRST_PAINT = 1000
"""Milliseconds."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    library = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no browser is installed: {', '.join(PROGRAMS)}")
    with library.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@dataclass
class Opened:
    """A page in the browser; `complaints` are console messages and errors, `requests` the addresses asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def opened(browser: Browser, path: Path, width: int = 1280, scheme: str = "light", *, scripts: bool = True) -> Opened:
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
        java_script_enabled=scripts,
    )
    opened = Opened(context.new_page())
    opened.page.on("console", lambda message: opened.complaints.append(message.text))
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.goto(path.as_uri(), timeout=120_000)  # milliseconds: two thousand layers take a while on a busy machine
    return opened


def test_it_renders_without_complaints_and_asks_for_nothing(browser: Browser, written: Written) -> None:
    answers = opened(browser, written.path)
    assert answers.page.locator("h1").inner_text() == Path(written.document["model"]).name
    assert answers.page.locator("section").count() == 7
    assert answers.complaints == []
    assert [url for url in answers.requests if not url.startswith("data:")] == [written.path.as_uri()]
    assert answers.page.locator("figure.chart svg").count() >= 4


def test_its_figures_are_those_of_the_record(browser: Browser, written: Written) -> None:
    page = opened(browser, written.path).page
    wrong = page.evaluate(
        """(record) => [...document.querySelectorAll("data[data-json]")].filter((one) => {
            const value = one.dataset.json.split(".").reduce((at, key) => at[key], record);
            return value === null ? one.value !== "" : typeof value === "number" ? Number(one.value) !== value
                : one.value !== String(value);
        }).map((one) => one.dataset.json)""",
        written.document,
    )
    assert wrong == []
    assert json.loads(page.locator("#report").text_content() or "") == written.document
    agreement = written.document["agreement"]["share"]
    assert percent(agreement) in page.locator("#summary .tiles").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_sticks_out(browser: Browser, written: Written, width: int, scheme: str) -> None:
    page = opened(browser, written.path, width, scheme).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = sum(int(part) for part in ground.removeprefix("rgb(").rstrip(")").split(","))
    assert (bright > 3 * 200) if scheme == "light" else (bright < 3 * 60)


def test_nothing_scrolls_within_the_page_on_a_phone(browser: Browser, written: Written) -> None:
    page = opened(browser, written.path, 360).page
    inner = page.evaluate(
        """[...document.querySelectorAll("body *")].filter((one) => {
            const flow = getComputedStyle(one);
            const across = one.scrollWidth > one.clientWidth + 1 && /auto|scroll/.test(flow.overflowX);
            const down = one.scrollHeight > one.clientHeight + 1 && /auto|scroll/.test(flow.overflowY);
            return (across || down) && one.clientWidth > 0;
        }).map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert inner == []


def test_every_colour_of_a_chart_has_a_meaning(browser: Browser, written: Written) -> None:
    page = opened(browser, written.path, scheme="dark").page
    left = page.evaluate(
        """[...document.querySelectorAll(".chart svg [fill], .chart svg [stroke]")].flatMap((one) => {
            const style = getComputedStyle(one);
            return [style.fill, style.stroke].filter((colour) => /^rgb\\((11, 0, \\d+|0, 0, 0)\\)$/.test(colour)
                && one.getAttribute("fill") !== null);
        })"""
    )
    assert left == []


def test_it_is_whole_without_scripts(browser: Browser, written: Written) -> None:
    page = opened(browser, written.path, scripts=False).page
    assert page.locator("#layer-table tbody tr").count() > 5
    assert not page.locator(".filters").is_visible()
    assert page.locator(".view svg").first.is_visible()


def test_the_keyboard_reaches_everything(browser: Browser, written: Written) -> None:
    page = opened(browser, written.path).page
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    assert skip.evaluate("(one) => one === document.activeElement")
    assert (skip.bounding_box() or {"x": -1})["x"] >= 0
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    boxes = page.locator("#graphs .pane").first.locator("a")
    assert [one.get_attribute("tabindex") for one in boxes.all()].count("0") == 1
    boxes.first.focus()
    page.keyboard.press("ArrowDown")
    assert boxes.nth(1).evaluate("(one) => one === document.activeElement")
    page.keyboard.press("Enter")
    row = page.locator(str(boxes.nth(1).get_attribute("href")))
    assert row.evaluate("(one) => one === document.activeElement")


def test_layers_sort_and_filter(browser: Browser, written: Written) -> None:
    page = opened(browser, written.path).page
    rows = page.locator("#layer-table tbody tr")
    shown = [one for one in rows.all() if one.is_visible()]
    assert all("changed" in str(one.get_attribute("data-is")) for one in shown), "it opens on what changed"
    page.get_by_label("Show").select_option("")
    assert not any("empty" in str(one.get_attribute("data-is")) for one in rows.all() if one.is_visible())
    page.get_by_role("button", name="bytes before").click()
    cells = [one.get_attribute("data-v") for one in page.locator('#layer-table td[data-head="bytes before"]').all()]
    figures = [float(one) for one in cells if one]
    assert figures == sorted(figures, reverse=True)
    assert page.locator('th[aria-sort="descending"]').count() == 1
    page.get_by_label("Find").fill("alert")
    assert [one.get_attribute("id") for one in rows.all() if one.is_visible()] == [
        page.locator("#layer-table tr", has_text=EVIL).get_attribute("id")
    ]
    assert page.locator("output").inner_text().startswith("1 of ")
    page.get_by_label("Find").fill("")
    page.get_by_label("Show").select_option("done")
    assert 0 < sum(one.is_visible() for one in rows.all()) < rows.count()


def test_graphs_zoom(browser: Browser, written: Written) -> None:
    page = opened(browser, written.path).page
    svg = page.locator("#graphs svg").first
    before = (svg.bounding_box() or {"width": 0})["width"]
    page.get_by_role("button", name="enlarge the graph before").click()
    assert (svg.bounding_box() or {"width": 0})["width"] == pytest.approx(1.3 * before, rel=0.01)


def test_everything_has_a_name(browser: Browser, written: Written) -> None:
    page = opened(browser, written.path).page
    faults = page.evaluate(
        """() => {
            const faults = [];
            const named = (one) => one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length;
            for (const one of document.querySelectorAll("button, a, input, select, [role], section, nav"))
                if (!named(one)) faults.push(one.outerHTML.slice(0, 80));
            for (const one of document.querySelectorAll("img")) if (!one.alt) faults.push("img without alt");
            for (const one of document.querySelectorAll("th")) if (!one.scope) faults.push("th without scope");
            let level = 0;
            for (const one of document.querySelectorAll("h1, h2, h3, h4")) {
                const next = Number(one.tagName[1]);
                if (next > level + 1) faults.push("heading skips a level: " + one.textContent);
                level = next;
            }
            if (document.querySelectorAll("h1").length !== 1) faults.push("h1");
            if (document.querySelectorAll("main").length !== 1) faults.push("main");
            if (!document.documentElement.lang || !document.title) faults.push("lang or title");
            return faults;
        }"""
    )
    assert faults == []


def test_two_thousand_layers(browser: Browser, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the page draws its charts with matplotlib (optc[html])")
    from optc.report.page import write

    graph = Graph("long", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, (1, 4)))
    for at in range(2000):
        value = graph.add("Relu", [value], name=f"layer_{at}").output
    graph.add_output(value, "y")
    build = compile(graph, "clean", clean=False, check=False)
    report = Report("svd")
    for at in range(2000):
        report.skipped(f"layer_{at}", "Relu", "has no weights")
    build.report.steps.append(PassRecord("svd", report, build.report.after))
    path = tmp_path / "page.html"
    write(build, path)
    assert path.stat().st_size < 3_000_000
    page = opened(browser, path).page
    assert page.locator("#layer-table tbody tr").count() == 2000
    assert "of 2000 nodes are drawn" in page.locator("#graphs").inner_text()
    taken = page.evaluate(
        """() => {
            const start = performance.now();
            document.querySelector("#layer-table button").click();
            document.body.offsetHeight;
            return performance.now() - start;
        }"""
    )
    assert taken < 6000


@pytest.mark.slow
def test_mobilenetv2(browser: Browser, kit: Path, tmp_path: Path) -> None:
    """The page of a real model: under 3 MB, first paint under a second."""
    pytest.importorskip("matplotlib", reason="the page draws its charts with matplotlib (optc[html])")
    import sys

    from optc.report.page import write

    sys.path.insert(0, str(kit))
    try:
        import eval as kit_eval
    finally:
        sys.path.pop(0)
    feeds, _ = kit_eval.load("mobilenetv2", "calib", 32)
    build = compile(str(kit / "models" / "mobilenetv2.onnx"), "quant", data=Data(feeds), trail=True)
    path = tmp_path / "page.html"
    write(build, path)
    assert path.stat().st_size < 3_000_000
    paints = []
    for _ in range(3):
        answers = opened(browser, path)
        entry = answers.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
        paints += [entry] if entry else []
        assert answers.complaints == []
    assert min(paints) < FIRST_PAINT
