"""A search on the terminal: the answer beside the best that each way of proposing came to, and the budget."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ..runtime.agreement_text import percent
from .search import Candidate, SearchReport
from .shown import shown
from .tables import notes, table
from .verdict import got_text

METRICS = ("size", "macs", "latency")


def show(report: SearchReport, console: Console, *, layers: bool) -> None:
    """Print `report`; with `layers`, also which option each site takes."""
    console.print(f"[bold]{shown(report.model)}[/]  ->  {shown(report.target)}", soft_wrap=True)
    console.print(
        f"{len(report.candidates)} candidates in {report.seconds:.0f} s ({report.strategy}), "
        f"{report.recalled} of them judged before",
        soft_wrap=True,
        highlight=False,
    )
    console.print(_candidates(report))
    if layers:
        for site in report.sites:
            if site.chosen not in ("", "keep"):
                console.print(f"{shown(site.name)} ({site.kind}): {shown(site.chosen)}", soft_wrap=True)
    for one in report.budget.results:
        style = "green" if one.met else "red"
        console.print(f"budget {shown(str(one.limit))}: [{style}]{shown(got_text(one))}[/]", soft_wrap=True)
    for note in notes(report.notes):
        console.print(note, soft_wrap=True)
    for path in report.artifacts:
        console.print(f"wrote [bold]{shown(path)}[/]", soft_wrap=True)


def _candidates(report: SearchReport) -> Table:
    best = table("", ">at", *(f">{metric}" for metric in METRICS), ">agreement", ">loss", "budget")
    answer = report.candidates[report.chosen]
    rows: dict[str, Candidate] = {"answer": answer}
    for one in report.candidates:
        name = f"best {one.strategy}"
        better = (not one.met, one.loss or 0.0)
        if not one.failed and (name not in rows or better < (not rows[name].met, rows[name].loss or 0.0)):
            rows[name] = one
    for name, one in rows.items():
        costs = [f"{one.costs[metric]:.3f}x" if metric in one.costs else "-" for metric in METRICS]
        loss = "-" if one.loss is None else f"{one.loss:.3g}"
        best.add_row(name, f"{one.at:.0f} s", *costs, percent(one.agreement), loss, "kept" if one.met else "missed")
    return best
