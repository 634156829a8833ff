"""Writing the page: one file that needs no network, and forbids itself any.

The content policy allows exactly the page's own style sheet and script, by their hashes, and images in `data:` form.
The report's JSON document is in the page as well, under the id `report`.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
from importlib.metadata import version

from ...storage.atomic import Replacement
from ...storage.fingerprint import Fingerprint
from ...storage.store import Store
from .charts import require
from .evidence import BuildEvidence, Evidence, gather
from .findings import distributions, graphs, reproduce, teacher_and_student
from .layers import layers
from .markup import Markup, element, join
from .shell import resource, whole
from .summary import Document, header, passes, summary

__all__ = ["require", "write"]


def write(build: BuildEvidence, path: str | os.PathLike[str], command: str = "", store: Store | None = None) -> None:
    """Write the page of `build` to `path`, whole or not at all.

    Runs both graphs on the held-out samples where there are some. `command` is how the build was asked for; without it
    the page names the command that would. A page that `store` knows is the one that was made when the build was. Raises
    `OutputError` where matplotlib is missing or the file cannot be written.
    """
    require()
    key = _key(build, command) if store is not None and build.key else ""
    document = _kept(store, key)
    if document is None:
        document = page(build, gather(build), command).encode(errors="backslashreplace")
        if store is not None and key:
            store.put(key, document)
    with Replacement(path) as files:
        files.open().write(document)


def _kept(store: Store | None, key: str) -> bytes | None:
    return None if store is None or not key else store.get(key)


def _key(build: BuildEvidence, command: str) -> str:
    """What a page is known by: the build, and what of its record the build's own key leaves out."""
    report = build.report
    budget = None if report.budget is None else report.budget.as_dict()
    parts = [report.model, report.artifacts, budget, _machine(), version("matplotlib")]
    return Fingerprint("page", build.key, command, json.dumps(parts, sort_keys=True)).text


def page(build: BuildEvidence, evidence: Evidence, command: str = "") -> str:
    """The page as text."""
    report = build.report
    document = report.as_dict()
    sections = [
        summary(document, evidence.starts),
        passes(document),
        layers(evidence, report),
        distributions(evidence),
        teacher_and_student(evidence),
        graphs(evidence),
        reproduce(document, command or _command(document), _machine()),
    ]
    notes = [element("li", note) for note in evidence.notes]
    main = element("main", *sections, element("ul", *notes, class_="notes") if notes else None, id="main")
    body = element(
        "body",
        element("a", "Skip to the summary", href="#main", class_="skip"),
        header(document),
        element("nav", *_links(sections), aria_label="Sections"),
        main,
        _scripts(document),
    )
    title = f"{os.path.basename(str(document['model']))}: optc build report"
    return whole(title, body)


def _scripts(document: Document) -> Markup:
    # Within a script element `<` alone could begin a tag, so JSON spells it out.
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return join(
        element("script", Markup(text), type="application/json", id="report"),
        element("script", Markup(resource("page.js"))),
    )


def _links(sections: list[Markup | None]) -> list[Markup]:
    names = ("summary", "passes", "layers", "distributions", "answers", "graphs", "reproduce")
    return [
        element("a", name.capitalize(), href=f"#{name}")
        for name, section in zip(names, sections, strict=True)
        if section is not None
    ]


def _command(document: Document) -> str:
    words = ["optc", str(document["model"]), "--passes", str(document["pipeline"]), "--target", str(document["target"])]
    samples = document["samples"]
    if samples is not None and samples["source"]:
        words += ["--data", samples["source"]]
    return shlex.join([*words, "--seed", str(document["seed"])])


def _machine() -> dict[str, str]:
    return {
        "Python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()}",
    }
