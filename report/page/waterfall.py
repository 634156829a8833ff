"""What each pass took and cost: size, work and agreement after it, one row a pass, and why one was undone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...runtime.agreement_text import percent
from ..amount import amount
from .markup import Markup, element

_WIDTH, _ROW, _NAME, _FIGURES = 640, 26, 150, 150


def waterfall(document: Mapping[str, Any]) -> Markup | None:
    """Bars of bytes of the original, then after each pass; the part that a pass took is light. `None` of no passes."""
    steps = document["passes"]
    most = max([document["before"]["bytes"], *(one["after"]["bytes"] for one in steps)])
    if not steps or not most:
        return None
    scale = (_WIDTH - _NAME - _FIGURES) / most
    parts: list[Markup] = []
    said: list[str] = []
    before = document["before"]["bytes"]
    for at, one in enumerate(steps):
        after, y = one["after"]["bytes"], at * _ROW
        undone = _undone(one)
        agreement = one.get("agreement")
        share = "" if agreement is None else f", {percent(agreement['share'])}"
        words = f"{amount(after, 'B')}{share}, {one['seconds']:.1f} s"
        title = f"{one['spec']}: {words}" + (f"; undone: {undone}" if undone else "")
        said.append(title)
        parts += [
            element("text", element("title", title), _fitted(one["spec"]), x=0, y=y + 17, class_="name"),
            _bar(_NAME, y, before * scale, "gone"),
            _bar(_NAME, y, after * scale, "undone" if undone else "left"),
            element("text", words, x=_WIDTH, y=y + 17, class_="figures"),
        ]
        before = after
    height = len(steps) * _ROW
    drawn = element(
        "svg",
        *parts,
        viewBox=f"0 0 {_WIDTH} {height}",
        class_="waterfall",
        role="img",
        aria_label="Bytes, agreement and seconds pass by pass: " + "; ".join(said),
    )
    reasons = [
        element("li", element("code", one["spec"]), f" was undone: {_undone(one)}") for one in steps if _undone(one)
    ]
    caption = element("figcaption", "Bytes after each pass; light is what it took, grey a pass that was undone")
    return element("figure", drawn, caption, element("ul", *reasons, class_="notes") if reasons else None)


def _undone(one: Mapping[str, Any]) -> str:
    """Why the whole pass was undone; empty where something of it is left."""
    reverted = [layer for layer in one["layers"] if layer["outcome"] == "reverted"]
    return str(reverted[0]["reason"]) if reverted and not one["done"] and not sum(one["rewrites"].values()) else ""


def _bar(x: float, y: float, width: float, kind: str) -> Markup:
    return element("rect", x=f"{x:.1f}", y=f"{y + 5:.1f}", width=f"{max(width, 0):.1f}", height=_ROW - 10, class_=kind)


def _fitted(text: str) -> str:
    return text if len(text) <= 22 else f"{text[:21]}…"
