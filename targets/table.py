"""Which targets there are: one explicit lazy table, and what other packages add."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from ..errors import SpecError, nearest
from ..passes.spec import given, items, text_of
from .base import Target

GROUP = "optc.targets"
"""Entry-point group: the name is the word after `--target`, the object a `Target` subclass."""

TABLE = {
    "onnx": "optc.targets.onnx:OnnxTarget",
    "host": "optc.targets.tvm.host:HostTarget",
    "arm64": "optc.targets.tvm.arm:Arm64Target",
    "armv7": "optc.targets.tvm.arm:Armv7Target",
}


def names() -> tuple[str, ...]:
    """Every target by its word."""
    return (*TABLE, *sorted(entry.name for entry in entry_points(group=GROUP) if entry.name not in TABLE))


def find(name: str, *, text: str = "", position: int | None = None) -> type[Target]:
    """The target class for a word. Raises `SpecError`, pointing into `text`, where there is none."""
    if name in TABLE:
        module, _, attribute = TABLE[name].partition(":")
        found = getattr(importlib.import_module(module), attribute)
    else:
        entry = next((entry for entry in entry_points(group=GROUP) if entry.name == name), None)
        if entry is None:
            raise SpecError(f"no target is called '{name}'.{nearest(name, names())}", text=text, position=position)
        found = entry.load()
    if not (isinstance(found, type) and issubclass(found, Target)):
        raise SpecError(f"'{name}' comes from {found!r}, which is not a subclass of optc's Target")
    return found


def parse(text: str) -> tuple[Target, ...]:
    """The targets that `text` spells, `onnx:cpu=arm`; several are parted by commas. Raises `SpecError`."""
    found: list[Target] = []
    for item in items(text):
        cls = find(item[0].text, text=text, position=item[0].position)
        found.append(cls(**given(text, cls, item)))
    return tuple(found)


def spec(target: Target) -> str:
    """The text of a target: its word and the options that differ from their defaults."""
    return text_of(target.name, target)
