"""Mirror images as further samples: which models they are given to, and what a fit sees of them."""

from __future__ import annotations

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, TargetFacts
from optc.passes.walk.mirror import MANY, Mirrored, with_mirror_images
from optc.runtime.sources import load_samples

RANDOM = np.random.default_rng(0)


def classifier(shape: tuple[int, ...], *, sees_sides: bool) -> Graph:
    """Means over the image, or pixels of one half, to logits."""
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", *shape)))
    weight = RANDOM.standard_normal((*shape, 5)).astype(np.float32)
    if not sees_sides:
        weight = weight + np.flip(weight, 1 if shape[2] in (1, 3) else 2)
    flat = graph.add("Flatten", [x]).output
    y = graph.add("Gemm", [flat, graph.constant(weight.reshape(-1, 5)), graph.constant(np.zeros(5, np.float32))]).output
    y.type = TensorType(DType.FLOAT, ("N", 5))
    graph.add_output(y, "y", y.type)
    return graph


def context(graph: Graph, count: int, shape: tuple[int, ...]) -> Context:
    feeds = {"x": RANDOM.standard_normal((count, *shape)).astype(np.float32)}
    return Context(TargetFacts("onnx"), teacher=graph, fit=load_samples(feeds, graph))


@pytest.mark.parametrize("shape", [(3, 6, 8), (6, 8, 3), (1, 6, 8)])
def test_images_that_the_teacher_answers_alike_are_mirrored(shape: tuple[int, ...]) -> None:
    ctx = context(classifier(shape, sees_sides=False), 20, shape)
    seen = with_mirror_images(ctx)
    assert isinstance(seen.fit, Mirrored)
    assert seen.fit.count == 40
    plain = np.concatenate([feeds["x"] for feeds in ctx.fit.batches(7)])  # type: ignore[union-attr]
    batches = [feeds["x"] for feeds in seen.fit.batches(6)]
    assert [len(batch) for batch in batches] == [6] * 6 + [4]
    both = np.concatenate(batches)
    assert np.array_equal(both[::2], plain)
    assert np.array_equal(both[1::2], np.flip(plain, 2 if shape[2] == 3 else 3))


@pytest.mark.parametrize(
    ("shape", "sees_sides", "count"),
    [((3, 6, 8), True, 20), ((4, 6, 8), False, 20), ((3, 2, 2), False, MANY + 1)],
    ids=["answers differ", "four channels", "enough samples"],
)
def test_others_are_not(shape: tuple[int, ...], sees_sides: bool, count: int) -> None:
    ctx = context(classifier(shape, sees_sides=sees_sides), count, shape)
    assert with_mirror_images(ctx) is ctx


def test_made_up_samples_are_not() -> None:
    graph = classifier((3, 6, 8), sees_sides=False)
    ctx = context(graph, 20, (3, 6, 8))
    assert ctx.fit is not None
    ctx.fit.synthetic = True
    assert with_mirror_images(ctx) is ctx


def test_an_image_and_its_mirror_image_stay_together() -> None:
    ctx = context(classifier((3, 6, 8), sees_sides=False), 20, (3, 6, 8))
    assert ctx.fit is not None
    fit, held_out = Mirrored(ctx.fit, 3).split(10)
    assert (fit.count, held_out.count) == (30, 10)
    for part in (fit, held_out, fit.take(8)):
        x = np.concatenate([feeds["x"] for feeds in part.batches(3)])
        assert len(x) == part.count
        assert np.array_equal(np.flip(x[::2], 3), x[1::2])
