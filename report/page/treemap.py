"""Measured time as a map: an area a layer, before and after; where channels do not fill the target's vectors is marked.

The squarified layout of Bruls, Huizing and van Wijk (2000): layers by falling time, in rows along the shorter side, a
new row where one more would make the row's areas less square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Markup, element
from .rows import PageRow, PartCost

_WIDTH, _HEIGHT = 480.0, 240.0
_LEAST = 0.002
"""Share of the whole below which a layer is drawn with the others."""


@dataclass(frozen=True, slots=True)
class Area:
    x: float
    y: float
    width: float
    height: float


def squarified(sizes: Sequence[float], whole: Area) -> list[Area]:
    """An area a size, of falling sizes above 0, which fill `whole`."""
    areas: list[Area] = []
    left, rest = whole, list(sizes)
    scale = whole.width * whole.height / max(sum(rest), 1e-30)
    while rest:
        side = min(left.width, left.height)
        row = [rest[0] * scale]
        while len(row) < len(rest) and _worst([*row, rest[len(row)] * scale], side) <= _worst(row, side):
            row.append(rest[len(row)] * scale)
        rest = rest[len(row) :]
        thick, at = sum(row) / max(side, 1e-9), 0.0
        for size in row:
            long = size / max(thick, 1e-9)
            upright = left.width >= left.height
            areas.append(Area(left.x, left.y + at, thick, long) if upright else Area(left.x + at, left.y, long, thick))
            at += long
        left = (
            Area(left.x + thick, left.y, left.width - thick, left.height)
            if left.width >= left.height
            else Area(left.x, left.y + thick, left.width, left.height - thick)
        )
    return areas


def _worst(row: Sequence[float], side: float) -> float:
    """The ratio of the sides of the least square area of a row."""
    total = sum(row)
    return max(max(side**2 * size / total**2, total**2 / (side**2 * size)) for size in row)


def treemaps(rows: Sequence[PageRow], alignment: int) -> list[Markup]:
    """The maps before and after, to one scale of area; none where no time was measured."""
    totals = [sum(part.seconds or 0.0 for part in parts) for parts in _sides(rows)]
    if not all(totals):
        return []
    return [
        _map(rows, parts, total / max(totals), title, alignment)
        for parts, total, title in zip(_sides(rows), totals, ("Time before", "Time after"), strict=True)
    ]


def _sides(rows: Sequence[PageRow]) -> tuple[list[PartCost], list[PartCost]]:
    return [row.before for row in rows], [row.after for row in rows]


def _map(rows: Sequence[PageRow], parts: Sequence[PartCost], share: float, title: str, alignment: int) -> Markup:
    timed = sorted(
        ((part.seconds, row, part) for row, part in zip(rows, parts, strict=True) if part.seconds), key=lambda o: -o[0]
    )
    total = sum(seconds for seconds, _, _ in timed)
    shown = [one for one in timed if one[0] >= _LEAST * total]
    others = total - sum(seconds for seconds, _, _ in shown)
    sizes = [seconds for seconds, _, _ in shown] + ([others] if others > 0 else [])
    # The same area is the same time in both maps.
    whole = Area(0.0, 0.0, _WIDTH * share**0.5, _HEIGHT * share**0.5)
    boxes: list[Markup] = []
    marked = 0
    for at, area in enumerate(squarified(sizes, whole)):
        if at < len(shown):
            seconds, row, part = shown[at]
            odd = unaligned(part, alignment)
            marked += odd
            words = f"{row.name}: {1e6 * seconds:.0f} µs, {100 * seconds / total:.1f} %" + (
                f"; its channels are no multiple of {alignment}" if odd else ""
            )
            content = _box(area, row.name, words, "odd" if odd else "even")
            boxes.append(element("a", *content, href=f"#layer-{row.index}", aria_label=words))
        else:
            boxes.append(element("g", *_box(area, "others", f"all others: {1e6 * others:.0f} µs", "even")))
    said = f"{title}: {1e6 * total:.0f} µs in {len(timed)} layers"
    caption = said + (f"; red: channels are no multiple of {alignment}" if marked else "")
    drawn = element(
        "svg", *boxes, viewBox=f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}", class_="treemap", role="group", aria_label=said
    )
    return element("figure", drawn, element("figcaption", caption), class_="chart")


def unaligned(part: PartCost, alignment: int) -> bool:
    """Whether a layer's output channels leave vectors of the target unfilled."""
    if alignment <= 1:
        return False
    for node in part.work:
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        shape = None if weight is None else weight.shape
        if node.op == "Conv" and shape and isinstance(shape[0], int) and shape[0] % alignment:
            return True
    return False


def _box(area: Area, name: str, words: str, kind: str) -> list[Markup]:
    room = int(area.width / 6.2)
    text = name if len(name) <= room else f"{name[: max(room - 1, 0)]}…"
    label = (
        element("text", text, x=f"{area.x + 3:.1f}", y=f"{area.y + 12:.1f}") if room > 3 and area.height > 15 else None
    )
    corner = {"x": f"{area.x:.1f}", "y": f"{area.y:.1f}", "width": f"{area.width:.1f}", "height": f"{area.height:.1f}"}
    parts = [element("title", words), element("rect", class_=kind, **corner)]
    return [*parts, *([label] if label is not None else [])]
