"""What no judge may pass: a table of sabotages for every kind of output, each of which must cost agreement.

An honest student, whose every number is a little off, must keep its agreement on the same outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.runtime.agreement import AnswerJudge
from optc.runtime.kinds import Kind
from optc.runtime.rows import Rows, selected
from optc.runtime.sums import Sums

Array = np.ndarray
FLOOR = 0.98
"""What an honest student keeps, and no sabotage does."""


def detector() -> Array:
    """Boxes of pixels beside scores, (16, 4 + 6, 400): what a detector without a selection answers."""
    rng = np.random.default_rng(0)
    table = np.concatenate([rng.uniform(0, 320, (16, 2, 400)), rng.uniform(8, 160, (16, 2, 400)),
                            rng.beta(0.05, 6.0, (16, 6, 400)) * 0.02], axis=1)  # fmt: skip
    hit = rng.random((16, 400)) < 0.05
    sample, row = np.nonzero(hit)
    table[sample, 4 + rng.integers(0, 6, len(row)), row] = rng.uniform(0.3, 0.95, len(row))
    return table


def mask() -> Array:
    y, x = np.mgrid[:48, :48]
    rng = np.random.default_rng(1)
    middle, size = rng.uniform(16, 32, (10, 2, 1, 1)), rng.uniform(5, 12, (10, 1, 1))
    inside = size - np.hypot(y - middle[:, 0], x - middle[:, 1])
    return (1 / (1 + np.exp(-2 * inside)))[:, None]


def waveform() -> Array:
    rng = np.random.default_rng(2)
    time = np.arange(4096) / 4096
    tones = [a * np.sin(2 * np.pi * (f * time + rng.random((6, 1)))) for f, a in ((40, 1.0), (300, 0.3), (1500, 0.1))]
    return np.sum(tones, axis=0)[:, None]


def segmentation() -> Array:
    return np.random.default_rng(3).standard_normal((6, 5, 24, 24)).repeat(2, 2) * np.arange(1, 6)[:, None, None]


def attributes() -> Array:
    return np.random.default_rng(4).beta(0.2, 0.6, (40, 30, 5))


def regression() -> Array:
    return np.random.default_rng(5).normal(40, 6, (64, 1))


def logits() -> Array:
    return 3 * np.random.default_rng(6).standard_normal((200, 10))


def dense() -> Array:
    """Probabilities of three classes at many places, nearly all of the first."""
    rng = np.random.default_rng(7)
    answers = rng.choice(3, (20, 100), p=(0.9, 0.05, 0.05))
    return 0.85 * np.eye(3)[answers] + 0.05


def stereo() -> Array:
    rng = np.random.default_rng(8)
    time = np.arange(2048) / 2048
    tones = [a * np.sin(2 * np.pi * (f * time + rng.random((6, 2, 1)))) for f, a in ((20, 1.0), (150, 0.3), (700, 0.1))]
    return np.sum(tones, axis=0) * np.array([1, 0.2])[:, None]


def chunk() -> Array:
    """What a model that hears a few milliseconds at a time answers."""
    rng = np.random.default_rng(9)
    time = np.arange(256) / 256
    return np.sin(2 * np.pi * (8 * time + rng.random((40, 1)))) + 0.1 * np.sin(
        2 * np.pi * (60 * time + rng.random((40, 1)))
    )


def spectrogram() -> Array:
    """(10, 80 bins, 120 frames), each bin fainter than the one below it."""
    return np.random.default_rng(10).standard_normal((10, 80, 120)) * np.exp(-np.arange(80) / 12)[:, None]


def gains() -> Array:
    """(8, 80 bins, 60 frames): how much of each bin a denoiser lets through."""
    return 1 / (1 + np.exp(-np.random.default_rng(17).standard_normal((8, 80, 60)).cumsum(2) / 2))


def heatmaps() -> Array:
    """A peak for each of 17 joints."""
    y, x = np.mgrid[:32, :24]
    rng = np.random.default_rng(11)
    at = rng.uniform(4, 20, (2, 24, 17, 1, 1))
    return np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 8) * rng.uniform(0.5, 1, (24, 17, 1, 1))


def embedding(width: int) -> Callable[[], Array]:
    return lambda: np.random.default_rng(12).standard_normal((100, width))


def letters() -> Array:
    """Logits of 30 letters at 40 places, most of them blank."""
    rng = np.random.default_rng(13)
    letter = np.where(rng.random((200, 40)) < 0.85, 0, rng.integers(1, 30, (200, 40)))
    return 6 * np.eye(30)[letter] + rng.standard_normal((200, 40, 30))


def image() -> Array:
    return np.clip(0.5 + 0.05 * np.random.default_rng(14).standard_normal((6, 3, 48, 48)).cumsum(2), 0, 1)


def corners() -> Array:
    rng = np.random.default_rng(15)
    corner = rng.uniform(0, 0.8, (16, 100, 2))
    return np.concatenate([corner, corner + rng.uniform(0.05, 0.2, (16, 100, 2))], axis=2)


def depth() -> Array:
    return np.abs(np.random.default_rng(16).standard_normal((8, 1, 48, 64)).cumsum(2).cumsum(3)) + 2


def without(*at: object) -> Callable[[Array], Array]:
    def zero(x: Array) -> Array:
        x[at] = 0
        return x

    return zero


def swapped(axis: int, one: int, other: int) -> Callable[[Array], Array]:
    def swap(x: Array) -> Array:
        order = np.arange(x.shape[axis])
        order[[one, other]] = other, one
        return x.take(order, axis)

    return swap


def shifted(by: float, *at: object) -> Callable[[Array], Array]:
    def shift(x: Array) -> Array:
        x[at] += by
        return x

    return shift


def muted(low: int, high: int, *at: object) -> Callable[[Array], Array]:
    def mute(x: Array) -> Array:
        spectrum = np.fft.rfft(x[at], axis=-1)
        spectrum[..., low:high] = 0
        x[at] = np.fft.irfft(spectrum, x.shape[-1], axis=-1)
        return x

    return mute


def rows_last(change: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: change(x.transpose(0, 2, 1)).transpose(0, 2, 1)


every = slice(None)
OUTPUTS: dict[str, tuple[Kind, Callable[[], Array], float]] = {
    "detector": (Kind.VALUES, detector, 1e-3),
    "detector, rows first": (Kind.VALUES, lambda: detector().transpose(0, 2, 1), 1e-3),
    "mask as values": (Kind.VALUES, mask, 2e-3),
    "mask": (Kind.DECISIONS, mask, 2e-3),
    "waveform": (Kind.VALUES, waveform, 1e-2),
    "segmentation": (Kind.VALUES, segmentation, 2e-2),
    "attributes": (Kind.DECISIONS, attributes, 1e-3),
    "regression": (Kind.VALUES, regression, 1e-2),
    "logits": (Kind.LOGITS, logits, 1e-2),
    "dense": (Kind.PROBABILITIES, dense, 1e-2),
    "stereo": (Kind.VALUES, stereo, 1e-2),
    "chunk": (Kind.VALUES, chunk, 1e-2),
    "chunk of one channel": (Kind.VALUES, lambda: chunk()[:, None], 1e-2),
    "spectrogram": (Kind.VALUES, spectrogram, 1e-2),
    "gains": (Kind.DECISIONS, gains, 2e-3),
    "heatmaps": (Kind.VALUES, heatmaps, 2e-3),
    "embedding": (Kind.VALUES, embedding(64), 1e-2),
    "wide embedding": (Kind.VALUES, embedding(512), 1e-2),
    "letters": (Kind.LOGITS, letters, 2e-2),
    "image": (Kind.VALUES, image, 5e-3),
    "corners": (Kind.VALUES, corners, 1e-3),
    "depth": (Kind.VALUES, depth, 5e-3),
}
SABOTAGES: list[tuple[str, str, Callable[[Array], Array]]] = [
    ("detector", "all scores zero", without(every, slice(4, None))),
    ("detector", "one class zero", without(every, 7)),
    ("detector", "boxes shifted by a stride", shifted(8, every, slice(0, 2))),
    ("detector", "two classes swapped", swapped(1, 5, 8)),
    ("detector", "scores halved", lambda x: np.where(np.arange(10)[:, None] < 4, x, x / 2)),
    ("detector", "scores cut off", lambda x: np.where(np.arange(10)[:, None] < 4, x, np.minimum(x, 0.5))),
    ("detector", "no sizes", without(every, slice(2, 4))),
    ("detector, rows first", "all scores zero", rows_last(without(every, slice(4, None)))),
    ("detector, rows first", "one class zero", rows_last(without(every, 7))),
    ("detector, rows first", "boxes shifted by a stride", rows_last(shifted(8, every, slice(0, 2)))),
    ("detector, rows first", "two classes swapped", rows_last(swapped(1, 5, 8))),
    ("mask as values", "emptied", without()),
    ("mask as values", "shifted", lambda x: np.roll(x, 3, -1)),
    ("mask", "emptied", without()),
    ("mask", "full", lambda x: np.ones_like(x)),
    ("waveform", "muted at the lowest band", muted(16, 64)),
    ("waveform", "muted at a middle band", muted(256, 512)),
    ("waveform", "muted at the highest band", muted(1024, 2049)),
    ("segmentation", "a channel zero", without(every, 2)),
    ("segmentation", "the faintest channel zero", without(every, 0)),
    ("segmentation", "two channels swapped", swapped(1, 1, 2)),
    ("attributes", "all zero", without()),
    ("attributes", "one class zero", without(every, every, 3)),
    ("attributes", "two classes swapped", swapped(2, 0, 1)),
    ("regression", "always the mean", lambda x: np.full_like(x, x.mean())),
    ("regression", "half a deviation too high", shifted(3)),
    ("logits", "all zero", without()),
    ("logits", "one class zero", without(every, 3)),
    ("logits", "two classes swapped", swapped(1, 0, 1)),
    ("dense", "background alone", lambda x: np.broadcast_to(np.array([1.0, 0, 0]), x.shape)),
    ("dense", "two classes swapped", swapped(2, 1, 2)),
    ("stereo", "a channel muted", without(every, 1)),
    ("stereo", "the channels swapped", swapped(1, 0, 1)),
    ("stereo", "muted at the highest band", muted(512, 1025, ...)),
    ("stereo", "one channel muted at the highest band", muted(512, 1025, every, 1)),
    ("chunk", "muted at the highest band", muted(40, 129, ...)),
    ("chunk of one channel", "muted at the highest band", muted(40, 129, ...)),
    ("spectrogram", "middle bins empty", without(every, slice(30, 40))),
    ("spectrogram", "highest bins empty", without(every, slice(50, 80))),
    ("spectrogram", "a frame late", lambda x: np.roll(x, 1, 2)),
    ("gains", "bins closed", without(every, slice(10, 20))),
    ("gains", "all open", lambda x: np.ones_like(x)),
    ("heatmaps", "one emptied", without(every, 3)),
    ("heatmaps", "two swapped", swapped(1, 2, 3)),
    ("heatmaps", "two places aside", lambda x: np.roll(x, 2, -1)),
    ("embedding", "a column zero", without(every, 5)),
    ("embedding", "two columns swapped", swapped(1, 4, 5)),
    ("embedding", "of another sample", lambda x: x[::-1]),
    ("wide embedding", "a column zero", without(every, 5)),
    ("wide embedding", "two columns swapped", swapped(1, 4, 5)),
    ("letters", "a letter never", lambda x: np.where(np.arange(30) == 7, -9, x)),
    ("letters", "two letters swapped", swapped(2, 3, 4)),
    ("letters", "a place late", lambda x: np.roll(x, 1, 1)),
    ("image", "two colours swapped", swapped(1, 0, 2)),
    ("image", "grey", lambda x: np.broadcast_to(x.mean(1, keepdims=True), x.shape)),
    ("image", "dark", lambda x: x / 2),
    ("corners", "x and y swapped", lambda x: x[..., [1, 0, 3, 2]]),
    ("corners", "no sizes", lambda x: x[..., [0, 1, 0, 1]]),
    ("corners", "in another order", lambda x: x[:, ::-1]),
    ("depth", "the inverse", lambda x: 1 / x),
    ("depth", "tenfold", lambda x: 10 * x),
    ("depth", "flat", lambda x: np.full_like(x, x.mean())),
]


def share(kind: Kind, teacher: Array, student: Array) -> float:
    sums = Sums("y", kind)
    for t, s in zip(np.array_split(teacher, 4), np.array_split(student, 4), strict=True):
        sums.add(t, s)
    return sums.result().share


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_honest_student_keeps_its_agreement(output: str) -> None:
    kind, make, noise = OUTPUTS[output]
    teacher = make()
    spread = np.where(np.abs(teacher).max() > 1 + teacher * 0, np.maximum(np.abs(teacher), 0.1), 1.0)
    student = teacher + noise * spread * np.random.default_rng(9).standard_normal(teacher.shape)
    assert share(kind, teacher, student) >= FLOOR
    assert share(kind, teacher, teacher) == pytest.approx(1)


@pytest.mark.parametrize(("output", "sabotage", "change"), SABOTAGES, ids=[f"{o}: {s}" for o, s, _ in SABOTAGES])
def test_every_sabotage_costs_agreement(output: str, sabotage: str, change: Callable[[Array], Array]) -> None:
    kind, make, _ = OUTPUTS[output]
    assert share(kind, make(), change(make().copy())) < FLOOR


def test_the_worst_part_is_named() -> None:
    sums = Sums("y", Kind.VALUES)
    sums.add(detector(), without(every, 7)(detector()))
    agreed = sums.result()
    assert (agreed.part.split(" at ")[0], agreed.worst) == ("[:, 7]", 0)
    assert agreed.share == 0
    assert agreed.cosine is not None
    assert agreed.cosine > 0.999  # which is why it is not judged by


def test_nothing_compared_is_no_figure() -> None:
    for kind, empty in (
        (Kind.VALUES, np.zeros((0, 4), np.float32)), (Kind.DISCRETE, np.zeros((0,), np.int64)),
        (Kind.DECISIONS, np.full((5, 100), 0.01)), (Kind.VALUES, np.zeros((5, 100), np.float32)),
        (Kind.DISCRETE, np.zeros((5, 1), np.int64)), (Kind.DISCRETE, np.zeros((5, 9), bool)),
    ):  # fmt: skip
        sums = Sums("y", kind)
        sums.add(empty, empty)
        agreed = sums.result()
        assert np.isnan(agreed.share)
        assert "nothing was compared" in agreed.remark


def test_what_is_answered_where_nothing_should_be_costs_agreement() -> None:
    for kind, empty in ((Kind.VALUES, np.zeros((5, 100), np.float32)), (Kind.DISCRETE, np.zeros((5, 9), np.int64))):
        other = empty.copy()
        other[0, 0] = 1
        assert share(kind, empty, other) < FLOOR


def boxes(rng: np.random.Generator) -> list[Array]:
    corner = rng.uniform(0, 200, (9, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(20, 60, (9, 2))], axis=1)
    return [boxes, np.sort(rng.uniform(0.3, 1, 9))[::-1].copy(), rng.integers(0, 3, 9)]


def matched(change: Callable[[list[Array]], list[Array]]) -> float | None:
    rows = Rows()
    for seed in range(8):
        teacher = boxes(np.random.default_rng(seed))
        rows.add(teacher, change([a.copy() for a in teacher]))
    return rows.share


def reordered(arrays: list[Array]) -> list[Array]:
    order = np.random.default_rng(0).permutation(len(arrays[0]))
    return [a[order] for a in arrays]


@pytest.mark.parametrize(
    ("change", "least", "most"),
    [
        (reordered, 1.0, 1.0),
        (lambda a: [a[0] + 1.0, a[1] - 0.01, a[2]], 1.0, 1.0),
        (lambda a: [x[:8] for x in a], 16 / 17, 16 / 17),
        (lambda a: [a[0] + 40.0, a[1], a[2]], 0.0, 0.6),
        (lambda a: [a[0], a[1], a[2] + 1], 0.0, 0.6),
        (lambda a: [x[:0] for x in a], 0.0, 0.0),
    ],
)
def test_rows_are_matched_not_compared_by_place(
    change: Callable[[list[Array]], list[Array]], least: float, most: float
) -> None:
    agreed = matched(change)
    assert agreed is not None
    assert least - 1e-9 <= agreed <= most + 1e-9


def test_rows_without_boxes_are_matched_by_integers_or_by_nearness() -> None:
    rows = Rows()
    rows.add([np.array([[5, 2, 9]])], [np.array([[2, 5, 7]])])
    assert rows.share == pytest.approx(2 / 3)
    rows = Rows()
    picked = np.random.default_rng(0).standard_normal((12, 5))
    rows.add([picked], [picked[::-1] + 0.01])
    assert rows.share == 1
    assert Rows().share is None
    rows = Rows()
    points = np.repeat(np.random.default_rng(0).uniform(0, 9, (5, 2)), 2, axis=0).reshape(5, 4)
    rows.add([points], [points.copy()])
    assert rows.share == 1, "boxes without an area"


def picking(last: str) -> Graph:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 40)))
    k = graph.constant(np.array([5]))
    values, indices = graph.add("TopK", [x, k], outputs=["values", "indices"]).outputs
    if last == "MatMul":
        values = graph.add("MatMul", [values, graph.constant(np.ones((5, 3), np.float32))]).output
    graph.add_output(values, "y")
    graph.add_output(indices, "i")
    return graph


def test_outputs_of_a_selection_are_known_by_the_graph() -> None:
    assert selected(picking("TopK")) == (0, 1)
    assert selected(picking("MatMul")) == (1,)
    judge = AnswerJudge(picking("TopK"))
    judge.add([np.array([[3.0, 2, 1]]), np.array([[7, 1, 4]])], [np.array([[3.0, 2, 1]]), np.array([[1, 7, 4]])])
    assert [one.kind for one in judge.results()] == [Kind.ROWS, Kind.ROWS]
    assert judge.results()[0].share == 1


def places(*, cast: bool = False) -> Graph:
    """x [6, 6] -> where it is above zero, as NonZero gives it: a column a place."""
    graph = Graph("places", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (6, 6)))
    at = graph.add("NonZero", [graph.add("Greater", [x, graph.constant(np.float32(0))]).output]).output
    at.type = TensorType(DType.INT64, (2, "found"))
    if cast:
        at = graph.add("Cast", [at], {"to": int(DType.INT32)}, types=[TensorType(DType.INT32, (2, "found"))]).output
    graph.add_output(at, "places")
    return graph


@pytest.mark.parametrize("cast", [False, True])
def test_places_are_columns_and_none_of_them_is_no_agreement(cast: bool) -> None:
    at = np.array([[0, 2, 5], [1, 3, 4]])
    for student, share in ((at, 1.0), (at[:, :2], 0.8), (at[:, [0]], 0.5), (at[:, :0], 0.0), (at[::-1], 0.0)):
        judge = AnswerJudge(places(cast=cast))
        judge.add([at], [student])
        assert judge.results()[0].share == pytest.approx(share)
    nothing = AnswerJudge(places(cast=cast))
    nothing.add([at[:, :0]], [at[:, :0]])
    assert np.isnan(nothing.results()[0].share)
