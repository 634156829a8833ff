"""Two models on one page: their graphs side by side, aligned by origin or name, and where they differ layer by layer.

For any two models, also ones that were not compiled here; nothing is run.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...ir.graph import Graph
from ...ir.shapes.infer import infer
from ...runtime.agreement_text import whole_text
from ...storage.atomic import write_text
from ..amount import size_rows
from ..build import BuildReport
from .charts import require
from .evidence import Evidence
from .findings import graphs
from .layers import layers
from .markup import Markup, element
from .rows import rows
from .shell import resource, whole
from .summary import section, table

if TYPE_CHECKING:
    from ..diff import Diff


def write(first: Graph, second: Graph, diff: Diff, path: str) -> None:
    """Write the page of two models and their difference to `path`, whole or not at all. Raises `OutputError`."""
    require()
    text = page(first, second, diff)
    write_text(path, text)


def page(first: Graph, second: Graph, diff: Diff) -> str:
    """The page as text."""
    before, after = first.clone(), second.clone()
    for graph in (before, after):
        infer(graph)
    report = BuildReport(diff.names[1], "", "", 0, {}, *diff.sizes)
    evidence = Evidence(before, after, rows(before, after, report, {}))
    names = [os.path.basename(name) or name for name in diff.names]
    main = element("main", _summary(diff), layers(evidence, report), graphs(evidence), id="main")
    links = [element("a", word.capitalize(), href=f"#{word}") for word in ("summary", "layers", "graphs")]
    body = element(
        "body",
        element("a", "Skip to the summary", href="#main", class_="skip"),
        element("header", element("p", "optc diff", class_="kicker"), element("h1", f"{names[0]} and {names[1]}")),
        element("nav", *links, aria_label="Sections"),
        main,
        element("script", Markup(resource("page.js"))),
    )
    return whole(f"{names[0]} and {names[1]}: optc diff", body)


def _summary(diff: Diff) -> Markup:
    ops = [[op, str(a), str(b)] for op, (a, b) in diff.ops.items() if a != b]
    agrees = f"not run side by side: {diff.reason}" if diff.agreement is None else whole_text(diff.agreement)
    return section(
        "summary",
        "Summary",
        table(("", "before", "after", "ratio"), size_rows(*diff.sizes, "weights"), "Sizes"),
        element("p", f"agreement {agrees}" if diff.agreement is not None else agrees),
        table(("operator", "before", "after"), ops, "Operators that differ in number") if ops else None,
        element("ul", *(element("li", note) for note in diff.notes), class_="notes") if diff.notes else None,
    )
