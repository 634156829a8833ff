"""The head of the page: what changed in four figures, the budget, and the passes one by one.

All figures are read from the report's JSON document, and each says where it stands there (`data-json`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ...runtime.agreement_text import percent
from ...runtime.first_run import FirstRun
from ..amount import amount
from ..targets import HEADS, cells
from ..verdict import figure as words
from . import charts
from .markup import Child, Markup, element, join
from .waterfall import waterfall

Document = Mapping[str, Any]
Starts: TypeAlias = "tuple[FirstRun, FirstRun]"


_MEASURES: Sequence[tuple[str, str, Callable[[Any], str]]] = (
    ("top1", "top-1", percent),
    ("kappa", "kappa", "{:.4f}".format),
    ("expected", "expected elsewhere", percent),
    ("equal", "equal", percent),
    ("matched", "rows matched", percent),
    ("worst", "worst part", percent),
    ("part", "which part", str),
    ("kl", "KL, nats", "{:.3g}".format),
    ("sqnr_db", "SQNR, dB", "{:.1f}".format),
    ("cosine", "cosine", "{:.5f}".format),
    ("broken", "broken", "{:g}".format),
)
"""What the record may know of an output: its key, a title, and how a person reads it."""


def figure(document: Document, path: str, text: str) -> Markup:
    """`text` for the figure at `path` of the document (`after.bytes`, `passes.1.seconds`), which it carries along."""
    value: Any = document
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, Sequence) else value[part]
    return element("data", text, value="" if value is None else str(value), data_json=path)


def section(name: str, title: str, *children: Child) -> Markup:
    return element("section", element("h2", title), *children, id=name, aria_label=title)


def table(heads: Sequence[Child], rows: Sequence[Sequence[Child]], label: str, *, words: int = 1) -> Markup:
    """A table whose first `words` columns are text and whose others are figures. It scrolls where it is wide."""
    head = [element("th", one, scope="col", class_="num" if at >= words else None) for at, one in enumerate(heads)]
    body = [
        element(
            "tr",
            *(
                element("td", one, class_="num" if at >= words else None, data_head=str(heads[at]) if at else None)
                for at, one in enumerate(row)
            ),
        )
        for row in rows
    ]
    markup = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    return element("div", markup, class_="scroll", tabindex=0, role="region", aria_label=label)


def header(document: Document) -> Markup:
    name = os.path.basename(str(document["model"])) or "model"
    return element(
        "header",
        element("p", "optc build report", class_="kicker"),
        element("h1", name),
        element("p", element("code", document["pipeline"]), " for target ", element("code", document["target"])),
        _verdict(document.get("budget")),
    )


def summary(document: Document, starts: Starts | None = None) -> Markup:
    """Four figures, two charts, the budget and what the user should know."""
    return section(
        "summary",
        "Summary",
        element("div", *_tiles(document), class_="tiles"),
        element("div", *_charts(document), class_="charts"),
        _sheet(document, starts),
        _targets(document["targets"]),
        _budget(document),
        _outputs(document),
        _notes(document["notes"]),
    )


def _sheet(document: Document, starts: Starts | None) -> Markup | None:
    """What whoever ships the result writes down of it; `starts` are those of the original and the result."""
    latency = document["latency"]
    rows: list[tuple[str, Child]] = [
        ("file", figure(document, "after.bytes", amount(document["after"]["bytes"], "B"))),
        ("target", figure(document, "target", document["target"])),
    ]
    if latency is not None:
        low, high = (
            figure(document, f"latency.{key}", f"{latency[key]:.2f}x") for key in ("low", "high") if latency[key]
        )
        median = figure(document, "latency.result_ms", f"{latency['result_ms']:.3g} ms")
        threads = latency["threads"] or "all"
        table_note = next((note for note in document["notes"] if note.startswith("latency is estimated")), "")
        rows.append(("p50 of a run", join(median, f", batch {latency['batch']}, {threads} threads")))
        rows.append(("quartiles of the ratio", join(low, " to ", high)))
        rows.append(("measured or estimated", table_note or "measured on the machine that built it"))
    if starts is not None:
        before, after = starts
        varies = f"{1e3 * after.p90:.3g} ms, {after.p90 / after.p50:.2f} times the p50 of the same runs"
        opens = f"{1e3 * after.seconds:.0f} ms to the first answer (original {1e3 * before.seconds:.0f} ms)"
        rows += [("p90 of a run", varies), ("cold start", opens)]
        if after.memory:
            rows.append(("peak memory", f"{amount(after.memory, 'B')} more than before the model was opened"))
        rows.append(("the lines since p90", "measured on the machine that drew the page"))
    versions = document["versions"]
    if "onnxruntime" in versions:
        rows.append(
            ("runtime", join("ONNX Runtime ", figure(document, "versions.onnxruntime", versions["onnxruntime"])))
        )
    items = [part for name, value in rows for part in (element("dt", name), element("dd", value))]
    return join(element("h3", "For the phone"), element("dl", *items))


def _targets(rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    """All targets of the command, where there were several."""
    if not rows:
        return None
    # The artifact's name is text, as the target's is.
    moved = [(cells(row)[0], cells(row)[-1], *cells(row)[1:-1]) for row in rows]
    heads = [head.removeprefix(">") for head in (HEADS[0], HEADS[-1], *HEADS[1:-1])]
    return element("div", element("h3", "Targets side by side"), table(heads, moved, "Targets side by side", words=2))


def passes(document: Document) -> Markup:
    """What each pass did and left, in the order in which they ran."""
    heads = (
        "pass",
        "done",
        "skipped",
        "reverted",
        "rewrites",
        "nodes",
        "parameters",
        "MACs",
        "weights",
        "agreement",
        "s",
    )
    rows: list[Sequence[Child]] = []
    for at, one in enumerate(document["passes"]):
        where = f"passes.{at}"
        share = one.get("agreement")
        rows.append(
            (
                element("code", one["spec"]),
                *(figure(document, f"{where}.{key}", str(one[key] or "")) for key in ("done", "skipped", "reverted")),
                sum(one["rewrites"].values()) or "",
                figure(document, f"{where}.after.nodes", f"{one['after']['nodes']:,}"),
                figure(document, f"{where}.after.params", amount(one["after"]["params"])),
                figure(document, f"{where}.after.macs", amount(one["after"]["macs"])),
                figure(document, f"{where}.after.bytes", amount(one["after"]["bytes"], "B")),
                None if share is None else figure(document, f"{where}.agreement.share", percent(share["share"])),
                figure(document, f"{where}.seconds", f"{one['seconds']:.1f}"),
            )
        )
    said = [
        element("li", element("code", one["name"]), f": {note}") for one in document["passes"] for note in one["notes"]
    ]
    curves = [
        charts.curve(f"Training, {one['name']}", [(m["step"], m["fit"], m["held_out"]) for m in one["curve"]])
        for one in document["passes"]
        if one.get("curve")
    ]
    return section(
        "passes",
        "Passes",
        waterfall(document),
        table(heads, rows, "Passes"),
        element("div", *curves, class_="charts") if curves else None,
        element("ul", *said, class_="notes") if said else None,
    )


def _verdict(budget: Mapping[str, Any] | None) -> Markup | None:
    if budget is None:
        return None
    met = budget["met"]
    return element("p", "budget met" if met else "budget missed", class_="verdict met" if met else "verdict missed")


def _tiles(document: Document) -> list[Markup]:
    before, after = document["before"], document["after"]
    tiles = []
    for title, key, unit in (
        ("Size", "bytes", "B"),
        ("Multiply-accumulates", "macs", ""),
        ("Parameters", "params", ""),
    ):
        old = figure(document, f"before.{key}", amount(before[key], unit))
        tiles.append(
            _tile(
                title,
                figure(document, f"after.{key}", amount(after[key], unit)),
                _share_of(before[key], after[key]),
                old,
            )
        )
    latency = document["latency"]
    if latency is not None:
        old = figure(document, "latency.original_ms", f"{latency['original_ms']:.3g} ms")
        new = figure(document, "latency.result_ms", f"{latency['result_ms']:.3g} ms")
        ratio, low, high = (
            figure(document, f"latency.{key}", "unknown" if latency[key] is None else f"{100 * latency[key]:.1f}")
            for key in ("ratio", "low", "high")
        )
        tiles.append(_tile("Latency", new, ratio, " % of ", old, " run by run, quartiles ", low, " to ", high, " %"))
    agreement = document["agreement"]
    if agreement is not None:
        tiles.append(
            _tile(
                "Agreement",
                figure(document, "agreement.share", percent(agreement["share"])),
                "(",
                figure(document, "agreement.measure", agreement["measure"]),
                "), on ",
                figure(document, "agreement.samples", str(agreement["samples"])),
                " samples",
            )
        )
    validation = document["validation"]
    if validation is not None:
        ran = f"on {validation['samples']} samples, it answers as the graph that it was built from"
        tiles.append(
            _tile(
                "Artifact checked",
                figure(document, "validation.samples", "yes" if validation["samples"] else "not run"),
                ran if validation["samples"] else validation["reason"],
            )
        )
    return tiles


def _tile(title: str, large: Markup, *small: Child) -> Markup:
    return element(
        "div", element("h3", title), element("p", large, class_="large"), element("p", *small), class_="tile"
    )


def _share_of(before: int, after: int) -> str:
    if before == after:
        return "unchanged from "
    return f"{100 * after / before:.1f} % of " if before else "from "


def _outputs(document: Document) -> Markup | None:
    """How far each output agrees, by every measure that its kind has."""
    agreement = document["agreement"]
    if agreement is None or not agreement["outputs"]:
        return None
    outputs = agreement["outputs"]
    measures = [one for one in _MEASURES if any(output.get(one[0]) is not None for output in outputs)]
    rows: list[Sequence[Child]] = []
    for at, output in enumerate(outputs):
        cells: list[Child] = [element("code", output["name"]), output["kind"]]
        for key, _, spell in measures:
            value = output.get(key)
            cells.append(None if value is None else figure(document, f"agreement.outputs.{at}.{key}", spell(value)))
        rows.append(cells)
    heads = ("output", "judged as", *(title for _, title, _ in measures))
    return join(element("h3", "Agreement of the outputs"), table(heads, rows, "Agreement of the outputs", words=2))


def _charts(document: Document) -> list[Markup]:
    before, after, latency = document["before"], document["after"], document["latency"]
    bars: list[tuple[str, float, tuple[float, float] | None]] = [
        (name, after[key] / before[key], None)
        for name, key in (("size", "bytes"), ("parameters", "params"), ("MACs", "macs"))
        if before[key]
    ]
    if latency is not None and latency["ratio"] is not None:
        bars.append(("latency", latency["ratio"], (latency["low"], latency["high"])))
    drawn = [charts.ratios(bars)] if bars else []
    points = [("original", float(before["bytes"]), 1.0)]
    points += [
        (one["name"], float(one["after"]["bytes"]), one["agreement"]["share"])
        for one in document["passes"]
        if one.get("agreement") is not None and one["agreement"]["share"] is not None
    ]
    if len(points) > 1:
        drawn.append(charts.front(points))
    return drawn


def _budget(document: Document) -> Markup | None:
    budget = document.get("budget")
    if budget is None:
        return None
    rows: list[Sequence[Child]] = []
    for at, one in enumerate(budget["limits"]):
        relative = one["unit"] == "x"
        got = "not known" if one["got"] is None else words(one["metric"], one["got"], relative=relative)
        rows.append(
            (
                element("code", one["limit"]),
                element("span", "met" if one["met"] else "missed", class_="met" if one["met"] else "missed"),
                figure(document, f"budget.limits.{at}.wanted", words(one["metric"], one["wanted"], relative=relative)),
                join(figure(document, f"budget.limits.{at}.got", got), f" {one['basis']}" if one["basis"] else None),
            )
        )
    return join(element("h3", "Budget"), table(("limit", "", "wanted", "got"), rows, "Budget", words=2))


def _notes(notes: Sequence[str]) -> Markup | None:
    return element("ul", *(element("li", note) for note in notes), class_="notes") if notes else None
