"""One pass over the samples: the distribution of every value that gets a grid, and how large each layer's inputs are.

The values are the model's own at this point of the pipeline, so what earlier passes changed is seen. Memory is that of
one batch, whose size is chosen from what the first sample turned out to need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph, Value
from ..base import Context
from .histogram import SAMPLE, Histogram
from .layers import Layer

if TYPE_CHECKING:
    from ...runtime.samples import Samples

Array = NDArray[np.generic]

BATCH_BYTES = 12 << 20
"""Activations held at a time."""
LARGEST_BATCH = 64
ELEMENTS = 1 << 20
"""Elements of a value that fill its histogram, of all samples together; the extremes are those of every element."""
LEAST = 1 << 12
"""Elements of a batch that do so at least."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """`histograms` by value; `energy` by value: the mean square of each input channel, (channels,)."""

    histograms: dict[Value, Histogram]
    energy: dict[Value, NDArray[np.float64]]


def calibrate(graph: Graph, values: Sequence[Value], layers: Sequence[Layer], ctx: Context) -> Calibration:
    """Watch `values`, and the sources of `layers`, over all of `ctx.fit`."""
    channel_axis = {layer.source: 1 if layer.op == "Conv" else -1 for layer in layers}
    watched = list(dict.fromkeys([*values, *channel_axis]))
    histograms = {value: Histogram() for value in values}
    sums: dict[Value, NDArray[np.float64]] = {}
    counts: dict[Value, int] = {}
    for share, found in _shares(graph, watched, ctx, "calibrating"):
        most = int(np.clip(share * ELEMENTS, LEAST, SAMPLE))
        for value, array in zip(watched, found):
            x = np.asarray(array, np.float32)
            if value in histograms:
                histograms[value].add(x, most)
            if value in channel_axis and x.size:
                square = _mean_square_sums(x, channel_axis[value])
                sums[value] = sums.get(value, np.zeros(1)) + square
                counts[value] = counts.get(value, 0) + x.size // square.size
    return Calibration(histograms, {v: s / counts[v] for v, s in sums.items()})


def run(
    graph: Graph, values: Sequence[Value], ctx: Context, title: str, samples: Samples | None = None
) -> Iterator[list[Array]]:
    """The arrays of `values`, batch by batch, over `samples` (all that are there to fit on, unless given)."""
    for _, found in _shares(graph, values, ctx, title, samples):
        yield found


def _shares(
    graph: Graph, values: Sequence[Value], ctx: Context, title: str, samples: Samples | None = None
) -> Iterator[tuple[float, list[Array]]]:
    """The same, each batch with its share of the samples."""
    from ...runtime.session import Session

    samples = ctx.fit if samples is None else samples
    assert samples is not None
    session = Session(graph, outputs=values, threads=ctx.threads, seed=ctx.seed)
    first = session.run(next(iter(samples.batches(1))))
    size = batch_size(sum(a.nbytes for a in first))
    with ctx.progress.task(title, samples.count) as advance:
        for feeds in samples.batches(size):
            count = samples.size_of(feeds)
            yield count / samples.count, session.run(feeds)
            advance(count)


def batch_size(bytes_per_sample: int) -> int:
    return int(np.clip(BATCH_BYTES // max(bytes_per_sample, 1), 1, LARGEST_BATCH))


def _mean_square_sums(x: NDArray[np.float32], axis: int) -> NDArray[np.float64]:
    """Sum of squares over all axes but one."""
    if axis == -1:
        rows = x.reshape(-1, x.shape[-1])
        return np.asarray(np.einsum("nc,nc->c", rows, rows), np.float64)
    flat = x.reshape(x.shape[0], x.shape[1], -1)
    return np.asarray(np.einsum("ncp,ncp->c", flat, flat), np.float64)
