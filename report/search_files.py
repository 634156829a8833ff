"""Writing the record of a search in the form that a file's extension asks for."""

from __future__ import annotations

import os

from ..errors import SpecError
from ..storage.atomic import write_text
from .search import SearchReport

FORMS = (".json", ".html")


def check(path: str) -> str:
    """The extension of `path`. Raises `SpecError` for one that no record of a search has, and `OutputError` where the
    page cannot be drawn here."""
    extension = os.path.splitext(path)[1].lower()
    if extension not in FORMS:
        raise SpecError(f"{path}: the record of a search is written by its extension, one of {', '.join(FORMS)}")
    if extension == ".html":
        from .page.charts import require

        require()
    return extension


def write(report: SearchReport, path: str) -> None:
    """Write `report` to `path`, whole or not at all. Raises `SpecError` as `check` does, and `OutputError`."""
    if check(path) == ".html":
        from .page.search import page

        text = page(report)
    else:
        text = report.to_json()
    write_text(path, text)
