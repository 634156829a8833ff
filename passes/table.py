"""Which passes there are: one explicit table, and what other packages and the user's own files add.

Nothing is imported until its pass is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points

from ..errors import SpecError, nearest
from .base import Pass

GROUP = "optc.passes"
"""Entry-point group: the name is the pass's word in a pipeline, the object a `Pass` subclass."""

TABLE = {
    "clean": "optc.passes.clean:Clean",
    "merge": "optc.passes.merge:Merge",
    "replace": "optc.passes.replace:Replace",
    "prune": "optc.passes.prune:Prune",
    "svd": "optc.passes.svd:Svd",
    "depthwise": "optc.passes.depthwise:Depthwise",
    "distill": "optc.passes.distill:Distill",
    "quant": "optc.passes.quant:Quant",
}


def names() -> tuple[str, ...]:
    """Every pass by its word: ours in the order they are best run, then other packages' by name."""
    return (*TABLE, *sorted(_others()))


def find(name: str, *, text: str = "", position: int | None = None) -> type[Pass]:
    """The pass class for a word. Raises `SpecError`, pointing into `text`, for a word that names none."""
    others = _others()
    if name in TABLE:
        module, _, attribute = TABLE[name].partition(":")
        cls = getattr(importlib.import_module(module), attribute)
    elif name in others:
        cls = others[name].load()
    else:
        raise SpecError(f"no pass is called '{name}'.{nearest(name, names())}", text=text, position=position)
    if not (isinstance(cls, type) and issubclass(cls, Pass)):
        raise SpecError(f"'{name}' comes from {cls!r}, which is not a subclass of optc's Pass")
    return cls


def classes() -> Iterator[type[Pass]]:
    for name in names():
        yield find(name)


def _others() -> dict[str, EntryPoint]:
    others: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in TABLE or entry.name in others:
            raise SpecError(
                f"two packages bring a pass called '{entry.name}' (one is {entry.value}); uninstall one of them"
            )
        others[entry.name] = entry
    return others
