"""What was seen when both models ran: how values lie, which answers moved, the graphs, and how to do it all again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...runtime.columns import Array
from ...runtime.kinds import Kind
from . import charts
from .answers import Answers, Case
from .drawing import draw
from .drift import SAMPLES
from .evidence import Evidence
from .markup import Child, Markup, element, join
from .png import data_address
from .summary import Document, figure, section, table

_MATRIX = 20
"""Classes up to which the whole confusion matrix is shown."""
_MOVES = 20


def distributions(evidence: Evidence) -> Markup | None:
    """Weights and activations of the layers whose outputs are furthest from the original's."""
    if not evidence.spreads:
        return None
    groups = []
    for one in evidence.spreads:
        said = f"SNR {one.row.snr_db:.1f} dB" if one.row.snr_db is not None else "not comparable value by value"
        parts = [
            charts.histogram(f"{what} of {one.row.name}", histogram)
            for what, histogram in (("Weights", one.weights), ("Output", one.activations))
            if histogram is not None
        ]
        title = element("h3", element("a", one.row.name, href=f"#layer-{one.row.index}"), " ", element("small", said))
        groups.append(element("div", title, *parts, class_="spread"))
    words = (
        f"The changed layers with the lowest signal-to-noise ratio at their output, over {SAMPLES} held-out samples."
    )
    return section("distributions", "Distributions", element("p", words), element("div", *groups, class_="charts"))


def teacher_and_student(evidence: Evidence) -> Markup | None:
    """Which answers moved, and the samples on which the two disagree most."""
    said = evidence.answers
    if said is None:
        return None
    parts: list[Child] = [element("p", _sentence(said))]
    left: list[Child] = []
    if said.points:
        what = "value" if said.kind is Kind.VALUES else "probability"
        left.append(charts.scatter(said, what))
    moves = _moves(said)
    if moves is not None:
        left.append(moves)
    parts.append(element("div", *left, class_="charts"))
    if said.worst:
        parts.append(element("h3", "Samples that disagree most"))
        parts.append(element("ol", *(_case(case, said) for case in said.worst), class_="cases"))
    return section("answers", "Answers", *parts)


def graphs(evidence: Evidence) -> Markup:
    """Both graphs, side by side where there is room."""
    panes = []
    for graph, side, title in ((evidence.original, "before", "Before"), (evidence.result, "after", "After")):
        drawn = draw(graph, evidence.rows, side)
        bar = element(
            "div",
            *(
                element("button", sign, type="button", data_zoom=zoom, aria_label=f"{words} the graph {side}")
                for sign, zoom, words in (("−", "out", "shrink"), ("+", "in", "enlarge"), ("fit", "fit", "fit"))
            ),
            class_="zoom",
            hidden=True,
        )
        label = f"The graph {side}; scroll with the arrow keys, enlarge with + and -"
        view = element("div", drawn.svg, class_="view", tabindex=0, role="region", aria_label=label)
        note = element("p", drawn.note, class_="hint") if drawn.note else None
        panes.append(element("div", element("h3", title), bar, view, note, class_="pane"))
    keys = [
        element("span", words, class_=f"key {mark}")
        for mark, words in (
            ("changed", "changed"),
            ("lost", "gone"),
            ("new", "new"),
            ("coded", "carried as integers"),
            *((word, word) for word in ("pruned", "split", "rewritten", "quantized", "reverted")),
        )
    ]
    return section(
        "graphs",
        "Graphs",
        element("p", *(one for key in keys for one in (key, " ")), class_="keys"),
        element("div", *panes, class_="panes"),
    )


def reproduce(document: Document, command: str, machine: Mapping[str, str]) -> Markup:
    """The command, and everything that decides what it gives."""
    facts: list[tuple[str, Child]] = [
        ("seed", figure(document, "seed", str(document["seed"]))),
        *(
            (name, figure(document, f"versions.{name}", version))
            for name, version in document["versions"].items()
            if "." not in name  # such a name would not be found again as a path
        ),
        *machine.items(),
    ]
    samples = document["samples"]
    if samples is not None:
        source = "made up" if samples["synthetic"] else samples["source"] or "given in memory"
        fit, held_out = (figure(document, f"samples.{key}", str(samples[key])) for key in ("fit", "held_out"))
        facts.append(("samples", join(source, ": ", fit, " to fit on, ", held_out, " held out to judge by")))
    for key, words in (("hashes", "digest of the {}"), ("outputs", "digest of {}")):
        facts += [(words.format(name), element("code", digest)) for name, digest in document[key].items() if digest]
    facts.append(("build time", figure(document, "seconds", f"{document['seconds']:.1f} s")))
    items = [part for name, value in facts for part in (element("dt", name), element("dd", value))]
    return section(
        "reproduce",
        "Reproduce",
        element("pre", element("code", command), tabindex=0, role="region", aria_label="Command"),
        element("dl", *items),
    )


def _sentence(said: Answers) -> str:
    if said.kind is Kind.DISCRETE or said.kind is Kind.VALUES:
        return f"Output {said.output} on {said.samples} held-out samples."
    return (
        f"Output {said.output} on {said.samples} held-out samples: {said.agreed:,} of {said.rows:,} answers are equal, "
        f"{said.rows - said.agreed:,} moved."
    )


def _moves(said: Answers) -> Markup | None:
    """The confusion matrix where it is small, else the pairs that occur."""
    if not said.moves:
        return None
    classes = max(max(pair) for pair in said.moves) + 1
    if classes <= _MATRIX:
        return _matrix(said, classes)
    moved = [(count, pair) for pair, count in said.moves.items() if pair[0] != pair[1]]
    if not moved:
        return element("p", "No answer moved to another class.")
    rows: list[Sequence[Child]] = [
        (str(one), str(other), count) for count, (one, other) in sorted(moved, key=lambda item: (-item[0], item[1]))
    ]
    title = "Classes that move" if len(rows) <= _MOVES else f"The {_MOVES} commonest moves of {len(rows)}"
    shown = table(("original's class", "result's class", "answers"), rows[:_MOVES], title, words=0)
    return element("div", element("h3", title), shown, class_="moves")


def _matrix(said: Answers, classes: int) -> Markup:
    most = max(said.moves.values())
    head = element("tr", element("th", "", scope="col"), *(element("th", c, scope="col") for c in range(classes)))
    rows = []
    for one in range(classes):
        cells = []
        for other in range(classes):
            count = said.moves.get((one, other), 0)
            shade = -(-8 * count // most)
            cells.append(element("td", count or "", class_=f"{'same' if one == other else 'other'} heat{shade}"))
        rows.append(element("tr", element("th", one, scope="row"), *cells))
    caption = element("caption", "Classes: the original's down, the result's across")
    table = element("table", caption, element("thead", head), element("tbody", *rows), class_="matrix")
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label="Top-1 confusion")


def _image(picture: Array, words: str) -> Markup:
    height, width = picture.shape[:2]
    return element("img", src=data_address(picture), alt=words, title=words, width=width, height=height)


def _boxes(case: Case) -> Markup:
    """The boxes of both models over a picture whose sides are 1."""
    drawn = [
        element(
            "rect",
            x=f"{box.left:.4f}",
            y=f"{box.top:.4f}",
            width=f"{box.width:.4f}",
            height=f"{box.height:.4f}",
            class_=side,
            vector_effect="non-scaling-stroke",
        )
        for side, boxes in zip(("before", "after"), case.boxes, strict=True)
        for box in boxes
    ]
    words = f"boxes: {len(case.boxes[0])} of the original, {len(case.boxes[1])} of the result"
    return element("svg", *drawn, viewBox="0 0 1 1", preserveAspectRatio="none", role="img", aria_label=words)


def _case(case: Case, said: Answers) -> Markup:
    pictures = []
    if case.picture is not None:
        picture = _image(case.picture, f"held-out sample {case.index}")
        pictures.append(element("div", picture, _boxes(case), class_="marked") if case.boxes else picture)
    sides = zip(("original", "result"), case.maps, strict=False)
    pictures += [_image(one, f"the {side}'s map of sample {case.index}") for side, one in sides]
    deciding = said.kind in (Kind.LOGITS, Kind.PROBABILITIES)
    gap = f"KL {case.gap:.3g}" if deciding else f"off by {100 * case.gap:.3g} %"
    moved = deciding and case.moved
    words = [f"sample {case.index}, {gap}", f"original: {case.teacher}", f"result: {case.student}"]
    lines = [element("span", one) for one in words]
    if case.boxes:
        lines.append(element("span", "boxes: the original's whole, the result's dashed"))
    return element("li", *pictures, element("p", *lines), class_="moved" if moved else None)
