"""All builds of a configuration as one report: one JSON document, one JUnit file, one Markdown table, one page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from ..runtime.agreement_text import percent, whole_text
from ..storage.atomic import write_text
from . import junit
from .amount import amount, ratio
from .build import BuildReport
from .markdown import code, plain, table
from .page.markup import element
from .page.shell import document as html

SCHEMA = "optc.matrix/1"
HEADS = ("build", "", ">before", ">after", ">ratio", "agreement", ">latency", "budget")
_WORDS = {0: "done", 1: "our fault", 2: "input", 3: "budget missed"}


@dataclass(frozen=True, slots=True)
class BuildOutcome:
    """One build: its name, its exit status, the line that it ended with, and its report where there is one."""

    name: str
    status: int
    line: str
    report: BuildReport | None


def write(entries: Sequence[BuildOutcome], path: str) -> None:
    """Write the report of all builds in the form of the extension. Raises `SpecError` and `OutputError`."""
    from .files import PAGE, extension

    text = FORMATS[extension(path, (PAGE,))](entries)
    write_text(path, text)


def _json(entries: Sequence[BuildOutcome]) -> str:
    builds = [
        {
            "name": one.name,
            "status": one.status,
            "said": one.line,
            "report": None if one.report is None else one.report.as_dict(),
        }
        for one in entries
    ]
    return json.dumps({"schema": SCHEMA, "builds": builds}, indent=2, ensure_ascii=False) + "\n"


def _junit(entries: Sequence[BuildOutcome]) -> str:
    root = ElementTree.Element("testsuites", name="optc")
    for one in entries:
        suite = ElementTree.SubElement(root, "testsuite", name=junit.legal(one.name))
        case = ElementTree.SubElement(suite, "testcase", classname="optc.build", name=junit.legal(one.name), time="0")
        if one.status in (1, 2):
            ElementTree.SubElement(case, "error", message=junit.legal(one.line))
        if one.report is not None:
            junit.add(root, one.report, one.name)
    return junit.text(root, sum(one.report.seconds for one in entries if one.report is not None))


def cells(one: BuildOutcome) -> tuple[str, ...]:
    """A row of the table of builds, as a person reads it."""
    word, report = _WORDS.get(one.status, str(one.status)), one.report
    if report is None:
        return one.name, word, "", "", "", one.line, "", ""
    before, after = report.before.bytes, report.after.bytes
    agrees = "" if report.agreement is None else whole_text(report.agreement)
    latency = "" if report.latency is None else percent(report.latency.ratio)
    budget = "" if report.budget is None else "met" if report.budget.met else "missed"
    return one.name, word, amount(before, "B"), amount(after, "B"), ratio(before, after), agrees, latency, budget


def _markdown(entries: Sequence[BuildOutcome]) -> str:
    rows = [(code(name), *map(plain, rest)) for name, *rest in map(cells, entries)]
    done = sum(one.status == 0 for one in entries)
    return f"## {done} of {len(entries)} builds done\n\n{table(HEADS, rows)}\n"


def _page(entries: Sequence[BuildOutcome]) -> str:
    heads = [element("th", head.removeprefix(">"), scope="col") for head in HEADS]
    rows = [element("tr", *(element("td", cell) for cell in cells(one))) for one in entries]
    done = sum(one.status == 0 for one in entries)
    title = f"{done} of {len(entries)} builds done"
    body = element(
        "main",
        element("h1", title),
        element(
            "div",
            element("table", element("thead", element("tr", *heads)), element("tbody", *rows), aria_label="Builds"),
            class_="scroll",
        ),
        element("ul", *(element("li", f"{one.name}: {one.line}") for one in entries), class_="notes"),
        id="main",
    )
    return html(title, body)


FORMATS: Mapping[str, Callable[[Sequence[BuildOutcome]], str]] = {
    ".json": _json,
    ".xml": _junit,
    ".md": _markdown,
    ".html": _page,
}
"""Extension -> how the text of such a file is made."""
