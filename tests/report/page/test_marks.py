"""Maps and boxes that an output marks in a picture."""

from __future__ import annotations

import numpy as np
import pytest

from optc.report.page.answers import Answers, Case
from optc.report.page.findings import teacher_and_student
from optc.report.page.marks import boxes_of, map_of
from optc.runtime.kinds import Kind


def test_a_map_of_classes_is_a_picture_in_colours() -> None:
    scores = np.zeros((1, 3, 16, 200), np.float32)
    scores[0, 1, :, 100:] = 1
    picture = map_of(scores, Kind.LOGITS, 1)
    assert picture is not None
    assert picture.shape == (6, 67, 3)
    assert (picture[0, 0] != picture[0, -1]).any()
    grey = map_of(np.full((1, 1, 8, 8), 0.5, np.float32), Kind.DECISIONS, 1)
    assert grey is not None
    assert grey.shape == (8, 8, 1)
    assert grey[0, 0, 0] == 127
    labels = map_of(np.tile(np.arange(8), (1, 8, 1)), Kind.DISCRETE, -1)
    assert labels is not None
    assert len({tuple(one) for one in labels[0]}) == 8


@pytest.mark.parametrize("shape", [(1, 10), (1, 3, 4, 4), (1, 64, 64), (4,)])
def test_what_is_no_map_is_none(shape: tuple[int, ...]) -> None:
    assert map_of(np.zeros(shape, np.float32), Kind.LOGITS, 1) is None


def test_boxes_of_both_forms_are_in_shares_of_the_picture() -> None:
    rows = np.array([[[64, 32, 192, 96, 0.9, 3], [0, 0, 10, 10, 0.1, 1]]], np.float32)
    (box,) = boxes_of(rows, (128, 256))
    assert (box.left, box.top, box.width, box.height) == (0.25, 0.25, 0.5, 0.5)
    yolo = np.zeros((1, 6, 100), np.float32)
    yolo[0, :, 7] = (128, 64, 128, 64, 0.2, 0.8)
    yolo[0, :, 8] = (129, 64, 128, 64, 0.2, 0.7)  # the same object again
    (one,) = boxes_of(yolo, (128, 256))
    assert (one.left, one.top, one.width, one.height) == (0.25, 0.25, 0.5, 0.5)
    assert one.score == pytest.approx(0.8)
    assert boxes_of(np.zeros((1, 10), np.float32), (8, 8)) == ()
    assert boxes_of(np.full((1, 84, 400), np.nan, np.float32), (8, 8)) == ()


def test_the_page_shows_both_maps_and_the_boxes() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    rows = np.array([[0.1, 0.1, 0.5, 0.5, 0.9, 0]], np.float32)
    boxes = boxes_of(rows, (8, 8))
    case = Case(3, 0.1, "a", "b", False, picture, (picture, picture), (boxes, ()))
    compared = Answers("y", Kind.VALUES, samples=1, worst=[case])

    class Evidence:
        answers = compared

    page = str(teacher_and_student(Evidence()))  # type: ignore[arg-type]
    assert page.count("<img") == 3
    assert page.count("<rect") == 1
    assert "the result&#x27;s map of sample 3" in page
