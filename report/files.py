"""Writing the record of a build in the form that a file's extension asks for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import SpecError

if TYPE_CHECKING:
    from .build import BuildReport


def _json(report: BuildReport) -> str:
    return report.to_json()


def _markdown(report: BuildReport) -> str:
    from .markdown import render

    return render(report)


def _junit(report: BuildReport) -> str:
    from .junit import render

    return render(report)


def _nodes(report: BuildReport) -> str:
    from .model_explorer import render

    return render(report)


ENDING = "nodes.json"
"""How the name of a file ends that Model Explorer reads beside a model."""

FORMATS: Mapping[str, Callable[[BuildReport], str]] = {".json": _json, ".md": _markdown, ".xml": _junit}
"""Extension -> how the text of such a file is made."""

PAGE = ".html"
ANNOTATED = ".onnx"
WHOLE = (PAGE, ANNOTATED)
"""The forms that show more than the record holds, and are made of the whole build (`page.write`, `annotated.write`)."""


def extension(path: str, whole: Sequence[str] = ()) -> str:
    """The extension of `path`, one of `FORMATS` or of `whole`, some of `WHOLE`. Raises `SpecError` for any other."""
    ending = os.path.splitext(path)[1].lower()
    if ending not in FORMATS and ending not in whole:
        endings = [*FORMATS, *whole]
        raise SpecError(f"{path}: a report is written by its extension, one of {', '.join(endings)} (.xml is JUnit)")
    return ending


def write(report: BuildReport, path: str) -> None:
    """Write `report` to `path`, whole or not at all. Raises `SpecError` and `OutputError`."""
    from ..storage.atomic import write_text

    text = _nodes(report) if path.endswith(ENDING) else FORMATS[extension(path)](report)
    write_text(path, text)
