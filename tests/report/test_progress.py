"""One bar a pass on a terminal, and one line a pass in a log."""

from __future__ import annotations

import io
import re

from rich.console import Console

from optc.compiler import compile
from optc.passes.pipeline import Pipeline
from optc.report.pass_lines import PassLines
from optc.report.progress import TerminalProgress, pass_line


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120)


def text(console: Console) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())  # type: ignore[attr-defined]


def test_a_pass_has_one_bar_whatever_it_does() -> None:
    from optc.ir.graph import Graph

    out = console(terminal=True)
    (one,) = Pipeline.parse("quant")
    with TerminalProgress(out) as progress:
        progress.before(1, one, Graph("g"))
        with progress.task("first", 4) as advance:
            advance(1)
            with progress.task("within", 100) as inner:
                inner(99)
            progress._bars.refresh()
            assert len(progress._bars.tasks) == 1
            assert progress._bars.tasks[0].percentage == 25
        with progress.task("second", 2) as advance:
            progress._bars.refresh()
            assert progress._bars.tasks[0].percentage == 0
        progress.after(1, one, Graph("g"), None)  # type: ignore[arg-type]
        assert not progress._bars.tasks
        with progress.task("check"):
            assert len(progress._bars.tasks) == 1
            progress._bars.refresh()
        assert not progress._bars.tasks
    shown = text(out)
    for part in ("quant: first", " 25 %", "quant: second", "check"):
        assert part in shown
    assert "within" not in shown


def test_a_build_on_a_terminal_and_in_a_log() -> None:
    bars, logged = console(terminal=True), list[str]()
    with TerminalProgress(bars) as progress:
        compile(
            "zoo:digits_dscnn",
            "clean,quant",
            threads=1,
            check=False,
            guard=False,
            progress=progress,
            observers=[progress, PassLines(logged.append)],
        )
        assert not progress._bars.tasks
    line = next(
        line for line in text(bars).splitlines() if line.lstrip().startswith("quant") and "of the bytes" in line
    )
    assert len(line) <= 80
    assert "░" in line, "a part of the bytes is gone"
    assert [line.partition(":")[0] for line in logged] == ["clean", "quant", "load-time"]
    assert "done" in logged[1]


def test_the_line_of_a_pass_fits_a_terminal() -> None:
    assert pass_line("quant", 25, 100, 1.25) == f"{'quant':<28} ██░░░░░░░░  25 % of the bytes, 25 B, 1.2 s"
    long = pass_line("prune:kind=channels:ratio=0.25:scope=global", 123_456_789, 1_000_000_000, 1234.5, ascii_only=True)
    assert len(long) <= 80
    assert long.isascii()
    assert "#........." in long


def test_nothing_is_drawn_where_nobody_looks() -> None:
    out = console(terminal=False)
    with TerminalProgress(out) as progress, progress.task("check", 3) as advance:
        advance(1)
    assert text(out) == ""
