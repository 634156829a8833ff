"""A build on the terminal: one table of the whole model, one row a pass, and every layer on request."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from ..passes.base import Layer, Outcome
from ..runtime.agreement import Agreement
from ..runtime.agreement_text import output_text, whole_text
from .amount import amount
from .build import BuildReport, Size, Step
from .shown import shown
from .targets import HEADS, cells
from .verdict import Verdict, figure, got_text

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
    for note in report.notes:
        console.print(f"[yellow]note:[/] {shown(note)}", soft_wrap=True)
    for path in report.artifacts:
        console.print(f"wrote [bold]{shown(path)}[/]", soft_wrap=True)


def beside(report: BuildReport, console: Console) -> None:
    """Print all targets of the command, one a row."""
    table = Table(title="targets side by side", title_justify="left", box=None, pad_edge=False)
    for head in HEADS:
        words = head in ("target", "artifact")
        table.add_column(head, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for row in report.targets:
        table.add_row(*map(shown, cells(asdict(row))))
    console.print()
    console.print(table)


def _whole(report: BuildReport) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("", "before", "after", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    before, after = report.before, report.after
    _row(table, "file", before.bytes, after.bytes, "B")
    _row(table, "parameters", before.params, after.params)
    _row(table, "MACs", before.macs, after.macs)
    _row(table, "nodes", before.nodes, after.nodes)
    if report.latency is not None:
        latency = report.latency
        spread = f"{latency.ratio:.2f} ({latency.low:.2f}..{latency.high:.2f})"
        table.add_row("latency", f"{latency.original_ms:.3g} ms", f"{latency.result_ms:.3g} ms", spread)
    return table


def _row(table: Table, name: str, before: int, after: int, unit: str = "") -> None:
    ratio = f"{after / before:.2f}" if before else "-"
    table.add_row(name, amount(before, unit), amount(after, unit), ratio)


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
    table = Table(box=None, pad_edge=False)
    for column in ("", "wanted", "got", ""):
        table.add_column(column, justify="right" if column else "left")
    for one in verdict.results:
        metric, relative = one.limit.metric, one.limit.relative
        got = shown(one.reason) if one.got is None else got_text(one)
        met = "[green]met[/]" if one.met else "[red]missed[/]"
        table.add_row(metric, figure(metric, one.wanted, relative=relative), got, met)
    console.print(table)
    if verdict.layers:
        console.print(_costliest(verdict))


def _costliest(verdict: Verdict) -> Table:
    table = Table(title="\nlook at these layers first", title_justify="left", box=None, pad_edge=False)
    for column in ("most", "layer", "op", "stored", "MACs", "error"):
        table.add_column(column, justify="right" if column in ("stored", "MACs", "error") else "left", overflow="fold")
    for one in verdict.layers:
        table.add_row(
            one.by,
            shown(one.name),
            shown(one.op),
            "" if one.bytes is None else amount(one.bytes, "B"),
            "" if one.macs is None else amount(one.macs),
            "" if one.error is None else f"{one.error:.3g}",
        )
    return table


def _passes(report: BuildReport) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("pass", "done", "skipped", "reverted", "nodes", "parameters", "MACs", "weights", "seconds"):
        table.add_column(column, justify="left" if column == "pass" else "right")
    for step in report.steps:
        counts = [str(step.report.count(outcome) or "") for outcome in Outcome]
        if step.report.rewrites:
            counts[0] = str(sum(step.report.rewrites.values()))
        table.add_row(shown(step.report.spec), *counts, *_size(step.after), _seconds(step))
    return table


def _seconds(step: Step) -> str:
    return "cached" if step.report.cached else f"{step.report.seconds:.1f}"


def _size(size: Size) -> tuple[str, str, str, str]:
    return str(size.nodes), amount(size.params), amount(size.macs), amount(size.bytes, "B")


def _layers(step: Step) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("layer", "op", "", "why, or how"):
        table.add_column(column, overflow="fold")
    for layer in step.report.layers:
        style = _STYLE[layer.outcome]
        table.add_row(shown(layer.name), shown(layer.op), f"[{style}]{layer.outcome.value}[/]", shown(_why(layer)))
    return table


def _why(layer: Layer) -> str:
    detail = ", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in
                       layer.detail.items())  # fmt: skip
    return "; ".join(text for text in (layer.reason, detail) if text)
