"""HTML built from values: whatever is not markup already is escaped, so no name in a model can become a tag."""

from __future__ import annotations

import html
from typing import TypeAlias


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | int | None"

_VOID = frozenset({"meta", "img", "input", "br", "rect", "path", "line"})


def element(tag: str, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """`<tag attributes>children</tag>`. In attribute names a trailing `_` is dropped and `_` becomes `-`; `None` and
    `False` leave the attribute out, `True` gives one without a value. Children of `None` are left out."""
    parts = [f"<{tag}"]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        key = name.rstrip("_").replace("_", "-")
        parts.append(f" {key}" if value is True else f' {key}="{html.escape(str(value))}"')
    if tag in _VOID:
        return Markup("".join((*parts, "/>")))
    return Markup("".join((*parts, ">", join(*children), f"</{tag}>")))


def join(*children: Child) -> Markup:
    """The children one after another, escaped where they are plain text."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(str(c)) for c in children if c is not None))
