"""The page of a search: the front with the budget's lines, the options of every layer by what they lose, and what each
way of proposing came to over time."""

from __future__ import annotations

import json
import math
import os

from ..search import SearchReport, SiteRow
from ..verdict import got_text
from .charts import over_time, search_front
from .markup import Markup, element
from .shell import whole

_CELL, _ROW, _NAME, _MOST = 46, 18, 200, 400
"""Sizes of the strip, and the rows that it has at most: those where most is to choose between come first."""
METRICS = ("size", "macs", "latency", "params")


def page(report: SearchReport) -> str:
    """The page as text. Raises `OutputError` where matplotlib is missing."""
    sections = [_summary(report), _front(report), _time(report), _strip(report)]
    notes = [element("li", note) for note in report.notes]
    title = f"{os.path.basename(report.model)}: optc search"
    body = element(
        "body",
        element("a", "Skip to the summary", href="#main", class_="skip"),
        element("header", element("h1", title)),
        element("main", *sections, element("ul", *notes, class_="notes") if notes else None, id="main"),
        _record(report),
    )
    return whole(title, body)


def metric_of(report: SearchReport) -> str:
    """The cost that the front is drawn over: the first that the budget limits, else the size."""
    limited = [one.limit.metric for one in report.budget.results]
    return next((metric for metric in METRICS if metric in limited), "size")


def _summary(report: SearchReport) -> Markup:
    answer = report.candidates[report.chosen]
    rows = [
        element(
            "tr",
            element("th", str(one.limit), scope="row"),
            element("td", got_text(one)),
            element("td", "kept" if one.met else "missed"),
        )
        for one in report.budget.results
    ]
    said = f"{len(report.candidates)} candidates in {report.seconds:.0f} s, proposed by {report.strategy}"
    return element(
        "section",
        element("h2", "Summary"),
        element("p", f"{said}; the answer: ", element("code", answer.passes)),
        element("table", element("tbody", *rows)),
        id="summary",
    )


def _front(report: SearchReport) -> Markup:
    metric = metric_of(report)
    points = [
        (one.costs[metric], one.agreement, one.strategy, one.met)
        for one in report.candidates
        if not one.failed and metric in one.costs and one.agreement is not None
    ]
    answer = report.candidates[report.chosen]
    caps = [one.wanted for one in report.budget.results if one.limit.metric == metric and one.limit.relative]
    floors = [one.wanted for one in report.budget.results if one.limit.metric == "agreement"]
    chart = search_front(
        metric,
        points,
        (answer.costs.get(metric, math.nan), answer.agreement),
        caps[0] if caps else None,
        floors[0] if floors else None,
    )
    return element("section", element("h2", "Front"), chart, id="front")


def _time(report: SearchReport) -> Markup:
    return element("section", element("h2", "Over time"), over_time(best_so_far(report)), id="time")


def best_so_far(report: SearchReport) -> dict[str, list[tuple[float, float]]]:
    """By strategy: (seconds, loss) whenever one of its candidates within the budget was better than all before."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for one in report.candidates:
        if one.met and one.loss is not None and math.isfinite(one.loss):
            curve = curves.setdefault(one.strategy, [])
            if not curve or one.loss < curve[-1][1]:
                curve.append((one.at, one.loss))
    return curves


def _strip(report: SearchReport) -> Markup:
    """Every site a row, every option a cell, shaded by the logarithm of what it loses; framed where it was chosen."""
    sites = sorted((one for one in report.sites if len(one.options) > 1), key=lambda one: -_spread(one))[:_MOST]
    losses = [option.loss for one in sites for option in one.options if option.loss > 0]
    low, high = (math.log10(min(losses)), math.log10(max(losses))) if losses else (0.0, 1.0)
    parts: list[Markup] = []
    for row, site in enumerate(sites):
        y = row * _ROW
        label = f"{site.name} ({site.kind})"
        parts.append(element("text", element("title", label), _fitted(label), x=0, y=y + 13, class_="name"))
        for column, option in enumerate(site.options):
            share = 0.0 if option.loss <= 0 else (math.log10(option.loss) - low) / max(high - low, 1e-9)
            chosen = option.word == site.chosen
            said = f"{label}: {option.word}, loss {option.loss:.3g}"
            said += "" if option.measured else ", between two that were measured"
            parts.append(
                element(
                    "rect",
                    element("title", said + (", chosen" if chosen else "")),
                    x=_NAME + column * _CELL,
                    y=y + 2,
                    width=_CELL - 4,
                    height=_ROW - 4,
                    fill_opacity=f"{0.08 + 0.92 * share:.2f}",
                    class_="heat chosen" if chosen else "heat",
                )
            )
    most = max((len(one.options) for one in sites), default=1)
    drawn = element(
        "svg",
        *parts,
        viewBox=f"0 0 {_NAME + most * _CELL} {max(len(sites), 1) * _ROW}",
        class_="strip",
        role="img",
        aria_label=f"What each option of {len(sites)} places loses alone, darker is more; the chosen ones are framed",
    )
    words = (
        "What the answers lose by each option alone, darker is more, on a logarithmic scale; framed is what was chosen"
    )
    figure = element("figure", drawn, element("figcaption", words))
    return element("section", element("h2", "Options"), figure, id="options")


def _spread(site: SiteRow) -> float:
    return max(option.loss for option in site.options)


def _fitted(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:29]}…"


def _record(report: SearchReport) -> Markup:
    """The record of the search, for programs; within a script element `<` alone could begin a tag."""
    text = json.dumps(report.as_dict(), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return element("script", Markup(text), type="application/json", id="report")
