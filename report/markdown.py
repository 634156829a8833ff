"""A build as Markdown, for the summary page of a CI run: the model before and after, the budget, the passes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..runtime.agreement_text import output_text, whole_text
from .amount import size_rows
from .targets import HEADS, cells
from .verdict import layer_errors, limit_cells

if TYPE_CHECKING:
    from .build import BuildReport
    from .verdict import Verdict

_WORST = 5


def render(report: BuildReport) -> str:
    """The page, ending in a newline."""
    parts = [f"## {code(report.model)} for {code(report.target)}", _whole(report)]
    if report.targets:
        parts += ["### Targets", beside(report)]
    if report.budget is not None:
        parts += _budget(report.budget)
    if report.steps:
        parts += ["### Passes", _passes(report)]
    worst = sorted(layer_errors(report).items(), key=lambda item: -item[1][1])[:_WORST]
    if worst:
        rows = [(code(name), op, f"{error:.3g}") for name, (op, error) in worst]
        parts += ["### Most damaged layers", table(("layer", "op", ">error"), rows)]
    notes = [f"{step.name}: {note}" for step in report.steps for note in step.report.notes] + report.notes
    if notes:
        parts.append("\n".join(f"- {plain(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def beside(report: BuildReport) -> str:
    """All targets of the command, one a row."""
    rows = [cells(asdict(row)) for row in report.targets]
    return table(HEADS, [(code(first), *middle, code(last)) for first, *middle, last in rows])


def code(text: str) -> str:
    """A name as a code span that no name can break out of, in a table either."""
    text = " ".join(text.split())
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{ticks}{pad}{text.replace('|', chr(92) + '|')}{pad}{ticks}"


def plain(text: str) -> str:
    """A sentence of which no part is taken for markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a column whose heading begins with `>` is set to the right."""
    titles = [title.removeprefix(">") for title in head]
    rules = ["---:" if title.startswith(">") else "---" for title in head]
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, rules, *rows))


def _whole(report: BuildReport) -> str:
    rows = size_rows(report.before, report.after)
    if report.latency is not None:
        one = report.latency
        pairs = ", the median of runs in pairs" if one.told_apart else ""
        spread = f"{one.ratio:.2f} ({one.low:.2f} to {one.high:.2f}{pairs})"
        rows.append(("latency", f"{one.original_ms:.3g} ms", f"{one.result_ms:.3g} ms", spread))
    if report.validation is not None:
        rows.append(("check of the artifact", "", plain(report.validation.text), ""))
    if report.agreement is not None:
        outputs, samples = report.agreement.outputs, report.agreement.samples
        rows.append(("agreement", "", whole_text(report.agreement), ""))
        rows += [(f"agreement of {code(one.name)}", "", plain(output_text(one, samples)), "") for one in outputs]
    return table(("", ">before", ">after", ">ratio"), rows)


def _budget(verdict: Verdict) -> list[str]:
    rows = [(*limit_cells(one), "met" if one.met else "**missed**") for one in verdict.results]
    parts = [f"### Budget {'met' if verdict.met else 'missed'}", table(("metric", ">wanted", ">got", ""), rows)]
    if verdict.layers:
        cells = [(one.by, code(one.name), one.op, *one.cells) for one in verdict.layers]
        parts.append(table(("most", "layer", "op", ">stored", ">MACs", ">error"), cells))
    return parts


def _passes(report: BuildReport) -> str:
    rows = [(code(s.report.spec), *s.counts, *s.cells, f"{s.report.seconds:.1f}") for s in report.steps]
    head = ("pass", ">done", ">skipped", ">reverted", ">parameters", ">MACs", ">weights", ">seconds")
    return table(head, rows)
