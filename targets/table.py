"""Which targets there are: one explicit lazy table, and what other packages add."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from ..errors import TargetError, nearest
from .base import Target

GROUP = "optc.targets"
"""Entry-point group: the name is the word after `--target`, the object a `Target` subclass."""

TABLE = {"onnx": "optc.targets.onnx:OnnxTarget"}


def names() -> tuple[str, ...]:
    """Every target by its word."""
    return (*TABLE, *sorted(entry.name for entry in entry_points(group=GROUP) if entry.name not in TABLE))


def find(name: str) -> Target:
    """The target for a word. Raises `TargetError` with the nearest word where there is none."""
    if name in TABLE:
        module, _, attribute = TABLE[name].partition(":")
        cls: type[Target] = getattr(importlib.import_module(module), attribute)
        return cls()
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            loaded: type[Target] = entry.load()
            return loaded()
    raise TargetError(f"no target is called '{name}'.{nearest(name, names())}")
