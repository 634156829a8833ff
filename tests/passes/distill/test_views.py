"""Views of images: what they do to pixels, and for which models they are taken."""

from __future__ import annotations

import numpy as np
import pytest

from optc.compiler import read
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.models import zoo
from optc.passes.distill.views import NO_VIEWS, Views, crop, fitting_views, mirror, mix, shift
from optc.runtime.columns import ArrayColumn
from optc.runtime.samples import Samples
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


def test_views_that_the_teacher_answers_otherwise_are_left_out() -> None:
    teacher = read("zoo:digits_resnet")
    samples = load_samples(zoo.samples("digits_resnet", "calib"), teacher)
    views = fitting_views(teacher, samples)
    assert "mirror" not in str(views)
    assert "shift" in str(views)


def passed_on(**inputs: DType) -> Graph:
    """A model that answers with its inputs."""
    graph = Graph("identity", opsets={"": 17})
    for name, dtype in inputs.items():
        x = graph.add_input(name, TensorType(dtype, ("N", 8)))
        graph.add_output(graph.add("Identity", [x]).output, f"{name}.out", TensorType(dtype, ("N", 8)))
    return graph


def test_signals_are_mixed_and_nothing_else() -> None:
    graph = passed_on(x=DType.FLOAT)
    signals = np.repeat(np.arange(8, dtype=np.float32)[:, None], 8, axis=1)
    samples = load_samples({"x": signals}, graph)
    views = fitting_views(graph, samples)
    assert str(views) == "mixtures"
    (feeds,) = samples.batches(8)
    seen = [views(feeds, np.random.default_rng(seed))["x"] for seed in range(8)]
    assert all(np.array_equal(one[:2], signals[:2]) for one in seen), "a quarter of a batch stays as it is"
    assert all(not np.isin(one[2:], signals).all() for one in seen), "every batch is mixed"
    assert all((one.min(axis=1) == one.max(axis=1)).all() for one in seen), "whole signals are mixed, no parts of them"


@pytest.mark.parametrize("inputs", [{"x": DType.INT64}, {"x": DType.FLOAT, "state": DType.FLOAT}])
def test_tokens_and_states_have_no_views(inputs: dict[str, DType]) -> None:
    graph = passed_on(**inputs)
    samples = load_samples({name: np.zeros((4, 8), dtype.numpy) for name, dtype in inputs.items()}, graph)
    views = fitting_views(graph, samples)
    assert str(views) == "none"
    feeds = next(samples.batches(4))
    assert views(feeds, np.random.default_rng(0)) == feeds


@pytest.mark.parametrize("axis", [1, 3])
def test_channels_may_come_last(axis: int) -> None:
    x = np.moveaxis(ramp(4), 1, axis)
    seen = Views("x", axis, (shift,), mixed=False)({"x": x}, np.random.default_rng(0))["x"]
    assert seen.shape == x.shape
    plain, viewed = np.split(np.moveaxis(seen, axis, 1), [1])
    assert np.array_equal(plain, ramp(4)[:1])
    assert np.array_equal(viewed, shift(ramp(4)[1:], np.random.default_rng(0)))


def test_views_of_samples_are_the_same_whenever_they_are_asked_for() -> None:
    x = np.random.default_rng(0).standard_normal((12, 3, 8, 8)).astype(np.float32)
    samples = Samples([ArrayColumn("x", x.dtype, x)], {"x": 0})
    seen = Views("x", 1, (mirror, shift)).of(samples, 3)
    first, again = (np.concatenate([feeds["x"] for feeds in seen.batches(4)]) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert seen.count == samples.count
    assert not np.array_equal(first[:4] - x[:4], first[4:8] - x[4:8]), "each batch has views of its own"
    assert NO_VIEWS.of(samples, 3) is samples


def test_each_sample_is_mixed_in_its_own_measure() -> None:
    """Ones among zeros: the share of ones in a sample is that in which it was mixed."""
    for shape in ((400, 1, 32, 32), (400, 16)):
        x = np.zeros(shape, np.float32)
        x[:200] = 1.0
        ones = mix(x, np.random.default_rng(0)).reshape(400, -1).mean(axis=1)[:200]
        mixed = ones[(ones > 0.02) & (ones < 0.98)]
        assert 60 < len(mixed) < 140, "half of the others are alike"
        assert len(np.unique(mixed.round(3))) > 40
        assert 0.3 < mixed.mean() < 0.7
