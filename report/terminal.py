"""A build on the terminal: one table of the whole model, one row a pass, and every layer on request."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from ..passes.base import Outcome
from ..runtime.agreement import Agreement
from ..runtime.agreement_text import output_text, whole_text
from .amount import detail_text, size_rows
from .build import BuildReport, PassRecord
from .shown import shown
from .tables import notes, table
from .targets import HEADS, cells
from .verdict import Verdict, limit_cells

_STYLE = {Outcome.DONE: "green", Outcome.SKIPPED: "yellow", Outcome.REVERTED: "magenta"}


def show(report: BuildReport, console: Console, *, layers: bool) -> None:
    """Print `report`; with `layers`, also what became of every layer."""
    console.print(f"[bold]{shown(report.model)}[/]  ->  {shown(report.target)}", soft_wrap=True)
    console.print(_whole(report))
    if report.latency is not None and report.latency.told_apart:
        console.print("latency: the ratio is the median of runs in pairs, not that of the two medians", soft_wrap=True)
    if report.validation is not None:
        style = "green" if report.validation.samples else "yellow"
        console.print(f"check of the artifact: [{style}]{shown(report.validation.text)}[/]", soft_wrap=True)
    for line in () if report.agreement is None else agreement_lines(report.agreement):
        console.print(line, soft_wrap=True)
    if report.steps:
        console.print()
        console.print(_passes(report))
    for step in report.steps:
        for note in step.report.notes:
            console.print(f"[yellow]{shown(step.name)}:[/] {shown(note)}", soft_wrap=True)
    for step in report.steps if layers else ():
        if step.report.layers:
            console.print(f"\n[bold]{shown(step.report.spec)}[/]", soft_wrap=True)
            console.print(_layers(step))
    if report.budget is not None:
        _show_budget(report.budget, console)
    console.print()
    for note in notes(report.notes):
        console.print(note, soft_wrap=True)
    for path in report.artifacts:
        console.print(f"wrote [bold]{shown(path)}[/]", soft_wrap=True)


def beside(report: BuildReport, console: Console) -> None:
    """Print all targets of the command, one a row."""
    targets = table(*HEADS, title="targets side by side")
    for row in report.targets:
        targets.add_row(*map(shown, cells(asdict(row))))
    console.print()
    console.print(targets)


def _whole(report: BuildReport) -> Table:
    whole = table("", ">before", ">after", ">ratio")
    for row in size_rows(report.before, report.after):
        whole.add_row(*row)
    if report.latency is not None:
        latency = report.latency
        spread = f"{latency.ratio:.2f} ({latency.low:.2f}..{latency.high:.2f})"
        whole.add_row("latency", f"{latency.original_ms:.3g} ms", f"{latency.result_ms:.3g} ms", spread)
    return whole


def agreement_lines(agreement: Agreement) -> list[str]:
    """The agreement of the model, and of each output where there are several."""
    outputs = agreement.outputs
    if len(outputs) == 1:
        return [f"[bold]agreement[/] {shown(output_text(outputs[0], agreement.samples))}"]
    lines = [f"[bold]agreement[/] {shown(whole_text(agreement))}"]
    return lines + [f"  of {shown(one.name)}: {shown(output_text(one, agreement.samples))}" for one in outputs]


def _show_budget(verdict: Verdict, console: Console) -> None:
    word = "[green]met[/]" if verdict.met else "[red]missed[/]"
    console.print(f"\n[bold]budget[/] {word}")
    limits = table("", ">wanted", ">got", "")
    for one in verdict.results:
        met = "[green]met[/]" if one.met else "[red]missed[/]"
        limits.add_row(*map(shown, limit_cells(one)), met)
    console.print(limits)
    if verdict.layers:
        console.print(_costliest(verdict))


def _costliest(verdict: Verdict) -> Table:
    layers = table("most", "layer", "op", ">stored", ">MACs", ">error", title="\nlook at these layers first")
    for one in verdict.layers:
        layers.add_row(one.by, shown(one.name), shown(one.op), *one.cells)
    return layers


def _passes(report: BuildReport) -> Table:
    passes = table("pass", ">done", ">skipped", ">reverted", ">nodes", ">parameters", ">MACs", ">weights", ">seconds")
    for step in report.steps:
        seconds = "cached" if step.report.cached else f"{step.report.seconds:.1f}"
        passes.add_row(shown(step.report.spec), *step.counts, str(step.after.nodes), *step.cells, seconds)
    return passes


def _layers(step: PassRecord) -> Table:
    layers = table("layer", "op", "", "why, or how")
    for layer in step.report.layers:
        style = _STYLE[layer.outcome]
        why = "; ".join(text for text in (layer.reason, detail_text(layer.detail)) if text)
        layers.add_row(shown(layer.name), shown(layer.op), f"[{style}]{layer.outcome.value}[/]", shown(why))
    return layers
