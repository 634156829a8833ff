"""Charts as inline SVG, drawn by matplotlib at build time, so that the page needs neither scripts nor fonts for them.

Colours are drawn as markers and given their meaning by the style sheet, in the light and in the dark; text is text, in
the page's own font. Each chart is small enough for a phone; several stand side by side where there is room.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...errors import OutputError
from ..amount import amount
from .markup import Markup, element

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .answers import Answers
    from .drift import BinShares

BEFORE, AFTER, INK, GRID, ALARM = "#0b0001", "#0b0002", "#0b0003", "#0b0004", "#0b0005"
"""Markers that `page.css` turns into colours."""

_STYLE: dict[Any, Any] = {  # matplotlib's own type for the keys is younger than what is asked for here
    "svg.fonttype": "none",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,
}
_GROUP = re.compile(r"(<g) id=\"[^\"]*\"")
_CSS = re.compile(r' style="([^"]*)"')
_FONT = re.compile(r"font:\s*(?:\w+ )*([\d.]+)px")


def require() -> None:
    """Raises `OutputError` where matplotlib is not installed."""
    if find_spec("matplotlib") is None:  # importing it takes longer than a build out of the cache
        raise OutputError("an .html report draws its charts with matplotlib; pip install 'optc[html]'")


def ratios(bars: Sequence[tuple[str, float, tuple[float, float] | None]]) -> Markup:
    """What is left of each figure, as a share of the original's; quartiles as a whisker where there are some."""

    def draw(axes: Axes) -> None:
        names = [name for name, _, _ in bars]
        shares = [100 * share for _, share, _ in bars]
        axes.barh(names, shares, color=AFTER, height=0.55)
        for at, (_, share, quartiles) in enumerate(bars):
            end = 100 * share
            if quartiles is not None:
                low, high = (100 * q for q in quartiles)
                below = at + 0.4
                axes.plot([low, high], [below, below], color=INK, linewidth=1)
                axes.plot([low, high], [below, below], linestyle="none", marker="|", color=INK, markersize=4)
                end = max(end, high)
            axes.annotate(f"{100 * share:.1f} %", (end, at), (5, 0), textcoords="offset points", va="center")
        axes.axvline(100, color=BEFORE, linewidth=1, linestyle=(0, (3, 2)))
        axes.set_xlim(0, 1.25 * max(100.0, *shares))
        axes.invert_yaxis()
        axes.set_xlabel("% of the original (dashed)")
        axes.tick_params(length=0)

    said = "; ".join(f"{name} {100 * share:.1f} % of the original" for name, share, _ in bars)
    return _figure(draw, "What is left of the original", said, height=0.55 + 0.36 * len(bars))


def front(points: Sequence[tuple[str, float, float]]) -> Markup:
    """Size in bytes against agreement (a share of 1) after each pass, in the order in which they ran."""

    def draw(axes: Axes) -> None:
        sizes = [size / 1e6 for _, size, _ in points]
        shares = [100 * share for _, _, share in points]
        axes.plot(sizes, shares, color=GRID, linewidth=1, zorder=1)
        axes.scatter(sizes, shares, color=[BEFORE, *[AFTER] * (len(points) - 1)], s=28, zorder=2)
        for at, (name, _, _) in enumerate(points):
            up = 7 if at % 2 == 0 else -13
            axes.annotate(name, (sizes[at], shares[at]), (0, up), textcoords="offset points", ha="center")
        axes.set_xlim(0, 1.15 * max(sizes))
        low, high = min(shares), max(shares)
        room = max(0.3 * (high - low), 0.5)
        axes.set_ylim(low - room, min(high + room, 100 + 0.3 * (100 - low + room)))
        axes.set_xlabel("weights, MB")
        axes.set_ylabel("agreement, %")
        axes.grid(True, axis="y")
        axes.tick_params(length=0)

    said = "; ".join(f"{name}: {amount(size, 'B')}, agreement {100 * share:.2f} %" for name, size, share in points)
    return _figure(draw, "Size against agreement", said, height=2.5)


def where(title: str, unit: str, layers: Sequence[tuple[str, float, float]]) -> Markup:
    """Of each layer a figure before and after; `layers` are those with the largest figures."""

    def draw(axes: Axes) -> None:
        at = [float(i) for i in range(len(layers))]
        axes.barh([y - 0.19 for y in at], [one for _, one, _ in layers], height=0.36, color=BEFORE, label="before")
        axes.barh([y + 0.19 for y in at], [one for _, _, one in layers], height=0.36, color=AFTER, label="after")
        axes.set_yticks(at, [_fitted(name) for name, _, _ in layers])
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        _legend(axes)
        axes.tick_params(length=0)

    said = "; ".join(f"{name} {one:.3g} before, {other:.3g} after" for name, one, other in layers)
    return _figure(draw, title, f"{unit}: {said}", height=0.7 + 0.26 * len(layers))


def curve(title: str, moments: Sequence[tuple[int, float | None, float | None]]) -> Markup:
    """A training: step, the loss on what is learned from, and that on held-out samples, least of which is marked."""

    def draw(axes: Axes) -> None:
        fit = [(step, loss) for step, loss, _ in moments if loss is not None]
        judged = [(step, loss) for step, _, loss in moments if loss is not None]
        for points, colour, label in ((fit, BEFORE, "fit"), (judged, AFTER, "held out")):
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, color=colour, linewidth=1.2, marker="o", markersize=2.5, label=label)
        if judged:
            step, least = min(judged, key=lambda point: point[1])
            axes.scatter([step], [least], s=36, facecolors="none", edgecolors=INK, linewidths=1, zorder=3)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("steps (the best is ringed)")
        axes.set_ylabel("loss")
        axes.grid(True, axis="y")
        if fit or judged:
            _legend(axes)
        axes.tick_params(length=0)

    losses = [loss for _, _, loss in moments if loss is not None]
    said = (
        f"{moments[-1][0]} steps; held-out loss {losses[0]:.4g} at first, {min(losses):.4g} at best" if losses else ""
    )
    return _figure(draw, title, said, height=2.2)


def histogram(title: str, counted: BinShares) -> Markup:
    """How elements lie, before and after, as shares of each."""

    def draw(axes: Axes) -> None:
        if counted.before is not None:
            axes.stairs(100 * counted.before, counted.edges, color=BEFORE, fill=True, alpha=0.6, label="before")
        if counted.after is not None:
            axes.stairs(100 * counted.after, counted.edges, color=AFTER, linewidth=1.1, label="after")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("% of elements")
        _legend(axes)
        axes.tick_params(length=0)

    said = f"from {counted.edges[0]:.4g} to {counted.edges[-1]:.4g} in {len(counted.edges) - 1} bins"
    return _figure(draw, title, said, height=1.7)


def scatter(answers: Answers, what: str) -> Markup:
    """The student's answers over the teacher's; on the diagonal they are equal."""

    def draw(axes: Axes) -> None:
        groups = ((False, AFTER, "o", "same answer"), (True, ALARM, "D", "another answer"))
        several = any(answers.moved)
        for moved, colour, marker, label in groups:
            points = [p for p, m in zip(answers.points, answers.moved, strict=True) if m == moved]
            if points:
                one, other = zip(*points, strict=True)
                axes.scatter(one, other, s=9, color=colour, marker=marker, alpha=0.6, linewidths=0, label=label)
        flat = [x for point in answers.points for x in point]
        ends = [min(flat), max(flat)]
        axes.plot(ends, ends, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=0)
        if several:
            _legend(axes)
        axes.set_xlabel(f"{what}, original")
        axes.set_ylabel(f"{what}, result")
        axes.tick_params(length=0)

    said = f"{len(answers.points)} points of output {answers.output}, {sum(answers.moved)} with another answer"
    return _figure(draw, "Result against original", said, height=3.0)


def search_front(
    metric: str,
    points: Sequence[tuple[float, float, str, bool]],
    chosen: tuple[float, float | None],
    cap: float | None,
    floor: float | None,
) -> Markup:
    """Candidates by a cost (a share of the original) and agreement (a share of 1), those that keep the budget filled;
    the budget's lines, and the answer ringed."""

    def draw(axes: Axes) -> None:
        for kept in (False, True):
            some = [(100 * cost, 100 * share) for cost, share, _, met in points if met == kept]
            if some:
                across, up = zip(*some, strict=True)
                face = AFTER if kept else "none"
                label = "keeps the budget" if kept else "does not"
                axes.scatter(across, up, s=18, facecolors=face, edgecolors=AFTER, linewidths=0.8, label=label)
        if cap is not None:
            axes.axvline(100 * cap, color=ALARM, linewidth=1, linestyle=(0, (3, 2)))
        if floor is not None:
            axes.axhline(100 * floor, color=ALARM, linewidth=1, linestyle=(0, (3, 2)))
        if chosen[1] is not None:
            axes.scatter([100 * chosen[0]], [100 * chosen[1]], s=90, facecolors="none", edgecolors=INK, linewidths=1.2)
        _legend(axes)
        axes.set_xlabel(f"{metric}, % of the original")
        axes.set_ylabel("agreement, %")
        axes.tick_params(length=0)

    each = (f"{name}: {metric} {100 * cost:.1f} %, agreement {100 * share:.2f} %" for cost, share, name, _ in points)
    said = "; ".join(each)
    return _figure(draw, "Candidates, the budget (dashed) and the answer (ringed)", said, height=3.2)


def over_time(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    """The least loss of a candidate that keeps the budget, by who proposed it, over seconds."""
    marks = ("o", "s", "^", "D", "v", "P", "X")

    def draw(axes: Axes) -> None:
        for mark, (name, curve) in zip(marks, curves.items(), strict=False):
            times, losses = zip(*curve, strict=True)
            axes.step(times, losses, where="post", color=AFTER, linewidth=1, marker=mark, markersize=4, label=name)
        if curves:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:.3g}")
            axes.yaxis.set_minor_formatter("{x:.2g}")
            _legend(axes)
        axes.set_xlabel("seconds")
        axes.set_ylabel("loss of the answers")
        axes.tick_params(length=0)

    said = "; ".join(f"{name}: {curve[-1][1]:.3g} after {curve[-1][0]:.0f} s" for name, curve in curves.items())
    return _figure(draw, "The best so far that keeps the budget", said or "none kept it", height=2.6)


def _legend(axes: Axes) -> None:
    """In a line above the picture, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, handlelength=1.2, columnspacing=1.2)


def _figure(draw: Callable[[Axes], None], title: str, said: str, *, height: float) -> Markup:
    with _styled(title + said):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3.9, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return element(
        "figure",
        _tidy(buffer.getvalue(), f"{title}: {said}"),
        element("figcaption", title),
        class_="chart",
    )


@contextmanager
def _styled(salt: str) -> Iterator[None]:
    import matplotlib

    # The salt makes ids the same in every run and different in every chart of the page.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        yield


def _tidy(svg: str, label: str) -> Markup:
    """Only the picture: no ids of groups, no style attributes, which a strict content policy forbids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r" font-family=\"[^\"]*\"", "", svg)
    svg = _GROUP.sub(r"\1", svg)
    svg = _CSS.sub(lambda match: _attributes(match[1]), svg)
    opening = element("svg", role="img", aria_label=label)[: -len("></svg>")]
    svg = re.sub(r"<svg", opening, svg, count=1)
    return Markup(re.sub(r"\s*\n\s*", "\n", svg))


def _attributes(css: str) -> str:
    """The declarations of a style attribute as attributes of their own."""
    parts = []
    for declaration in css.split(";"):
        name, _, value = declaration.partition(":")
        if name.strip() == "font":
            size = _FONT.match(declaration.strip())
            parts.append(f' font-size="{size[1] if size else 8}"')
        elif name.strip():
            parts.append(f' {name.strip()}="{value.strip()}"')
    return "".join(parts)


def _fitted(name: str, room: int = 22) -> str:
    """The end of a long name, which tells layers apart better than its beginning."""
    return name if len(name) <= room else "…" + name[-room + 1 :]
