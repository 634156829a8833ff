"""The layers of the model: where size and time were and are, and what each pass did to each of them.

The table is whole without scripts; with them its columns sort and its rows filter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...passes.base import Outcome
from ..amount import amount, detail_text
from ..build import BuildReport
from . import charts
from .evidence import Evidence
from .markup import Child, Markup, element, join
from .rows import Fate, PageRow, PartCost
from .summary import section
from .treemap import treemaps

_TOP = 10

_ORDER = (Outcome.DONE, Outcome.REVERTED, Outcome.SKIPPED)
"""What stands for a layer where passes did different things to it: the first of these."""


def layers(evidence: Evidence, report: BuildReport) -> Markup:
    rows = [row for row in evidence.rows.all if not _empty(row)]
    hidden = len(evidence.rows.all) - len(rows)
    heads = ["layer", "bytes before", "after", "MACs before", "after"]
    if evidence.timed:
        heads += ["µs before", "after"]
    heads += ["SNR, dB", "passes"]
    head = [
        element(
            "th",
            element("button", one, type="button") if at not in (len(heads) - 1,) else one,
            scope="col",
            class_="num" if 0 < at < len(heads) - 1 else None,
            aria_label=_said(heads, at),
        )
        for at, one in enumerate(heads)
    ]
    body = [_row(row, report, timed=evidence.timed) for row in evidence.rows.all]
    left = f"; {hidden} more hold neither bytes nor work" if hidden else ""
    table = element(
        "table",
        element("caption", f"{len(rows)} layers, in the order of the model{left}"),
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_="layers",
        id="layer-table",
    )
    return section(
        "layers",
        "Layers",
        element(
            "div",
            *_charts(rows, timed=evidence.timed),
            *treemaps(evidence.rows.all, evidence.alignment),
            class_="charts",
        ),
        _filters(opening="changed" if any(row.changed for row in rows) else ""),
        element("div", table, class_="scroll", tabindex=0, role="region", aria_label="Layers"),
        element("p", _legend(timed=evidence.timed), class_="hint"),
    )


def _said(heads: Sequence[str], at: int) -> str:
    """A head in full: "after" alone tells nobody after what of what."""
    return heads[at - 1].replace("before", "after") if heads[at] == "after" else heads[at]


def _charts(rows: Sequence[PageRow], *, timed: bool) -> list[Markup]:
    drawn = []

    def add(title: str, unit: str, value: Callable[[PartCost], float]) -> None:
        ranked = sorted(rows, key=lambda row: (-max(value(row.before), value(row.after)), row.index))[:_TOP]
        top = [(row.name, value(row.before), value(row.after)) for row in ranked]
        if top and any(one or other for _, one, other in top):
            drawn.append(charts.where(title, unit, top))

    add("Where the bytes are", "kB", lambda part: part.bytes / 1e3)
    add("Where the work is", "million MACs", lambda part: part.macs / 1e6)
    if timed:
        add("Where the time goes", "µs", lambda part: 1e6 * (part.seconds or 0.0))
    return drawn


def _empty(row: PageRow) -> bool:
    """Whether there is nothing to see: a constant that was folded, or a node without bytes, work or time."""
    parts = (row.before, row.after)
    return not row.fates and not any(part.bytes or part.macs or part.seconds for part in parts)


def _filters(*, opening: str) -> Markup:
    options = [
        ("", "all layers"),
        ("changed", "changed"),
        *((one.value, one.value) for one in Outcome),
        ("every", "every node"),
    ]
    return element(
        "form",
        element("label", "Find ", element("input", type="search", id="find", autocomplete="off", spellcheck="false")),
        element(
            "label",
            "Show ",
            element(
                "select",
                *(element("option", words, value=value, selected=value == opening) for value, words in options),
                id="show",
            ),
        ),
        element("output", "", id="count", for_="find show"),
        class_="filters",
        hidden=True,
    )


def _legend(*, timed: bool) -> str:
    times = (
        " Times are ONNX Runtime's own for one sample; what it fuses counts at the layer it is fused with."
        if timed
        else ""
    )
    return (
        "Figures after are of everything that the layer became. SNR compares the layer's output in both models, up to "
        "a factor a channel, errors "
        "of the layers before it included." + times
    )


def _row(row: PageRow, report: BuildReport, *, timed: bool) -> Markup:
    before, after = row.before, row.after
    cells = [
        element("th", element("span", row.name, class_="layer"), " ", element("small", row.op), scope="row"),
        _cell("bytes before", before.bytes if before.nodes else None, amount),
        _cell("bytes after", after.bytes if after.nodes else None, amount),
        _cell("MACs before", before.macs if before.nodes else None, amount),
        _cell("MACs after", after.macs if after.nodes else None, amount),
    ]
    if timed:
        cells.append(_cell("µs before", before.seconds, lambda s: f"{1e6 * s:.0f}"))
        cells.append(_cell("µs after", after.seconds, lambda s: f"{1e6 * s:.0f}"))
    cells.append(_cell("SNR, dB", row.snr_db, lambda db: f"{db:.1f}"))
    cells.append(element("td", _fates(row, report), class_="fates"))
    outcomes = {fate.layer.outcome for fate in row.fates}
    words = [*(one.value for one in _ORDER if one in outcomes), *(["changed"] if row.changed else [])]
    words += ["empty"] if _empty(row) else []
    # The cells of a layer that is only passed through are of no interest on a phone.
    return element("tr", *cells, id=f"layer-{row.index}", data_is=" ".join(words), tabindex=-1, hidden=_empty(row))


def _cell(head: str, value: float | None, words: Callable[[float], str]) -> Markup:
    if value is None:
        return element("td", "", class_="num")
    return element("td", words(value), class_="num", data_head=head, data_v=f"{value:.6g}")


def _fates(row: PageRow, report: BuildReport) -> Markup | None:
    if not row.fates:
        return None
    short = [
        element("span", f"{fate.name} {fate.layer.outcome.value}", class_=f"fate {fate.layer.outcome.value}")
        for fate in row.fates
    ]
    long = [
        element("li", element("code", report.steps[fate.step].report.spec), " ", _story(fate)) for fate in row.fates
    ]
    return element("details", element("summary", join(*_spaced(short))), element("ul", *long))


def _story(fate: Fate) -> str:
    layer = fate.layer
    details = detail_text({key.replace("_", " "): value for key, value in layer.detail.items()}, 4)
    return ": ".join(part for part in (layer.outcome.value, "; ".join(p for p in (layer.reason, details) if p)) if part)


def _spaced(parts: Sequence[Markup]) -> Sequence[Child]:
    return [one for part in parts for one in (", ", part)][1:]
