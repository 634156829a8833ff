"""Where a layer went and why: everything that every pass did with it, out of the JSON record of a build.

A layer is known by the name it has in the record, or by a glob over such names. Parts that a pass made of a layer
(`conv/u`, `conv/v`) carry its name and are found by `conv*`.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType

from ..errors import DataError, SpecError, nearest
from ..storage.plain_file import read_text
from .amount import detail_text
from .build import SCHEMA
from .shown import shown
from .tables import table


@dataclass(frozen=True, slots=True)
class Event:
    """What one pass did with one layer."""

    layer: str
    op: str
    position: int
    spec: str
    outcome: str
    reason: str
    detail: dict[str, Any]


def load(path: str) -> dict[str, Any]:
    """The record in a file. Raises `DataError` where there is none, or it is no record of ours."""
    try:
        document: object = json.loads(read_text(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON; give the file that --report NAME.json wrote") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(document, dict) or schema != SCHEMA:
        raise DataError(f"{path}: is no report of this version: its schema is {schema!r}, not '{SCHEMA}'")
    return document


def events(document: dict[str, Any], layer: str) -> tuple[Event, ...]:
    """What happened to `layer`, by its name or by a glob, layer by layer in the order of the passes.

    Raises `SpecError` with the nearest names where no pass looked at such a layer.
    """
    try:
        events_of_node = [
            Event(one["name"], one["op"], i, step["spec"], one["outcome"], one["reason"], dict(one["detail"]))
            for i, step in enumerate(document["passes"], start=1)
            for one in step["layers"]
        ]
    except (KeyError, TypeError) as error:
        raise DataError(f"the report is damaged: {error} is missing or of another kind") from error
    names = list(dict.fromkeys(event.layer for event in events_of_node))
    chosen = [layer] if layer in names else fnmatch.filter(names, layer)
    if not chosen:
        hint = nearest(layer, names) if names else " No pass of this build looked at single layers."
        raise SpecError(f"no layer is called '{layer}'.{hint}")
    order = {name: i for i, name in enumerate(chosen)}
    return tuple(sorted((e for e in events_of_node if e.layer in order), key=lambda e: (order[e.layer], e.position)))


def as_dict(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [asdict(event) for event in events]


def render(events: Sequence[Event]) -> RenderableType:
    """One block a layer, one row a pass."""
    parts: list[RenderableType] = []
    for name in dict.fromkeys(event.layer for event in events):
        mine = [event for event in events if event.layer == name]
        passes = table("", "pass", "", "why, or how")
        for event in mine:
            text = "; ".join(part for part in (event.reason, detail_text(event.detail)) if part)
            style = {"done": "green", "skipped": "yellow", "reverted": "magenta"}.get(event.outcome, "")
            outcome = f"[{style}]{shown(event.outcome)}[/]" if style else shown(event.outcome)
            passes.add_row(str(event.position), shown(event.spec), outcome, shown(text))
        parts += [f"[bold]{shown(name)}[/] ({shown(mine[-1].op)})", passes, ""]
    return Group(*parts[:-1])
