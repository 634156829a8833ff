"""Views of images: what they do to pixels, and for which models they are taken."""

from __future__ import annotations

import numpy as np
import pytest

from optc.compiler import read
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.models import zoo
from optc.passes.distill.views import MIXED, Views, crop, fitting_views, mirror, mix, shift
from optc.runtime.sources import load_samples


def ramp(count: int, height: int = 16, width: int = 12) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Images whose pixels say where they are: row in the first channel, column in the second."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.broadcast_to(np.stack([rows, columns, rows * 0]), (count, 3, height, width)).astype(np.float32)


def test_a_mirrored_image_is_the_image_or_its_mirror_image() -> None:
    x = ramp(40)
    turned = mirror(x, np.random.default_rng(0))
    kinds = {"plain" if np.array_equal(one, x[0]) else "mirrored" for one in turned}
    assert kinds == {"plain", "mirrored"}
    assert all(np.array_equal(one, x[0]) or np.array_equal(one, x[0, ..., ::-1]) for one in turned)


def test_a_shifted_image_keeps_its_pixels_and_repeats_its_border() -> None:
    moved = shift(ramp(40), np.random.default_rng(0))
    assert moved.min() == 0.0
    assert moved[:, 0].max() == 15.0
    assert moved[:, 1].max() == 11.0
    steps = np.diff(moved[:, 1], axis=2)
    assert set(np.unique(steps)) == {0.0, 1.0}
    assert len({float(one[0, 8, 0]) for one in moved}) > 2


def test_a_crop_is_a_part_enlarged() -> None:
    parts = crop(ramp(40), np.random.default_rng(0))
    assert parts.dtype == np.float32
    assert parts.shape == (40, 3, 16, 12)
    span = parts[:, 0].max(axis=(1, 2)) - parts[:, 0].min(axis=(1, 2))
    assert (span <= 15.0).all()
    assert (span >= np.sqrt(0.6) * 16 - 2).all()
    assert span.std() > 0.1


def test_a_mixture_holds_pixels_of_two_images() -> None:
    x = np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1) * np.ones((1, 1, 16, 16), np.float32)
    rng = np.random.default_rng(1)
    assert any(len(np.unique(one)) == 2 for _ in range(4) for one in mix(x, rng))
    assert 0.0 < MIXED < 1.0


def test_views_that_the_teacher_answers_otherwise_are_left_out() -> None:
    teacher = read("zoo:digits_resnet")
    samples = load_samples(zoo.samples("digits_resnet", "calib"), teacher)
    views = fitting_views(teacher, samples)
    assert "mirror" not in str(views)
    assert "shift" in str(views)


def test_what_is_no_image_has_no_views() -> None:
    graph = Graph("tokens", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8)))
    graph.add_output(graph.add("Relu", [x]).output, "y", TensorType(DType.FLOAT, ("N", 8)))
    samples = load_samples({"x": np.zeros((4, 8), np.float32)}, graph)
    views = fitting_views(graph, samples)
    assert str(views) == "none"
    feeds = next(samples.batches(4))
    assert views(feeds, np.random.default_rng(0)) == feeds


@pytest.mark.parametrize("axis", [1, 3])
def test_channels_may_come_last(axis: int) -> None:
    x = np.moveaxis(ramp(4), 1, axis)
    seen = Views("x", axis, (shift,), mixed=False)({"x": x}, np.random.default_rng(0))["x"]
    assert seen.shape == x.shape
    plain, viewed = np.split(np.moveaxis(seen, axis, 1), 2)
    assert np.array_equal(plain, ramp(2))
    assert np.array_equal(viewed, shift(ramp(2), np.random.default_rng(0)))
