"""One pass over the samples: the distribution of every value that gets a grid, and how large each layer's inputs are.

The values are the model's own at this point of the pipeline, so what earlier passes changed is seen. Memory is that of
one batch, whose size is chosen from what the first sample turned out to need.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph, Node, Value
from ...runtime.parallel import imap, threads_each, threads_for
from ..base import Context
from ..walk.linear import Linear
from .numbers.histogram import SAMPLE, Histogram, Observed, observe

if TYPE_CHECKING:
    from ...runtime.samples import Feeds, Samples

Array = NDArray[np.generic]
Floats = NDArray[np.float64]
Used = TypeVar("Used")
Number = TypeVar("Number", np.float32, np.float64)

BATCH_BYTES = 12 << 20
"""Activations held at a time."""
LARGEST_BATCH = 64
ELEMENTS = 1 << 19
"""Elements of a value that fill its histogram, of all samples together; the extremes are those of every element."""
LEAST = 1 << 12
"""Elements of a batch that do so at least."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """`histograms` by value; `energy` by layer: the mean square of each of its input channels, (channels,)."""

    histograms: dict[Value, Histogram]
    energy: dict[Node, Floats]


LARGE = 1e15
"""Numbers whose squares are summed in double precision."""


def calibrate(
    graph: Graph, values: Sequence[Value], layers: Sequence[Linear], ctx: Context, *, elements: int = ELEMENTS
) -> Calibration:
    """Watch `values`, and the sources of `layers`, over all of `ctx.fit`; `elements` fill each histogram.

    Nothing is known of any where there are no samples."""
    if ctx.fit is None:
        return Calibration({}, {})
    channel_axis = {layer.source: 1 if layer.op == "Conv" else -1 for layer in layers}
    watched = list(dict.fromkeys([*values, *channel_axis]))
    histograms = {value: Histogram() for value in values}
    sums: dict[Value, Floats] = {}
    counts: dict[Value, int] = {}

    def watch(arrays: list[Array], share: float) -> list[tuple[Observed | None, Floats | None, int]]:
        most = int(np.clip(share * elements, LEAST, SAMPLE))
        seen = []
        for value, array in zip(watched, arrays, strict=True):
            x = np.asarray(array, np.float32)
            square = _mean_square_sums(x, channel_axis[value]) if value in channel_axis and x.size else None
            seen.append((observe(x, most) if value in histograms else None, square, x.size))
        return seen

    for seen in run(graph, watched, ctx, "calibrating", watch):
        for value, (observed, square, size) in zip(watched, seen, strict=True):
            if value in histograms:
                histograms[value].take(observed)
            if square is not None:
                sums[value] = sums.get(value, np.zeros(1)) + square
                counts[value] = counts.get(value, 0) + size // square.size
    energy = {layer.node: sums[v] / counts[v] for layer in layers if (v := layer.source) in sums}
    return Calibration(histograms, energy)


def run(
    graph: Graph,
    values: Sequence[Value],
    ctx: Context,
    title: str,
    use: Callable[[list[Array], float], Used],
    samples: Samples | None = None,
) -> Iterator[Used]:
    """What `use` makes of the arrays of `values` and their batch's share of the samples, batch by batch, over `samples`
    (all that are there to fit on, unless given). Batches are worked on side by side."""
    from ...runtime.session import Session

    samples = ctx.fit if samples is None else samples
    assert samples is not None
    count = samples.count
    threads = threads_for(graph, ctx.threads)
    session = Session(graph, outputs=values, threads=threads_each(threads), seed=ctx.seed)
    first = session.run(next(iter(samples.batches(1))))
    size = batch_size(sum(a.nbytes for a in first))

    def work(feeds: Feeds) -> tuple[int, Used]:
        several = samples.size_of(feeds)
        return several, use(session.run(feeds), several / count)

    with ctx.progress.task(title, count) as advance:
        for several, used in imap(work, samples.batches(size), threads):
            yield used
            advance(several)


def batch_size(bytes_per_sample: int) -> int:
    return int(np.clip(BATCH_BYTES // max(bytes_per_sample, 1), 1, LARGEST_BATCH))


def _mean_square_sums(x: NDArray[np.float32], axis: int) -> Floats:
    """Sum of squares over all axes but one."""
    if axis == -1:
        rows = x.reshape(-1, x.shape[-1])
        return np.asarray(np.einsum("nc,nc->c", rows, rows), np.float64)
    flat = by_channel(x)
    return np.asarray(np.einsum("ncp,ncp->c", flat, flat), np.float64)


def by_channel(x: NDArray[Number]) -> NDArray[Number]:
    """(samples, channels, ...) as (samples, channels, positions), where there are none too."""
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


@dataclass(frozen=True, slots=True)
class Channels:
    """What a value holds in each channel, (channels,): the extremes, mean and mean square of what was seen."""

    low: Floats
    high: Floats
    mean: Floats
    square: Floats


Sums: TypeAlias = "tuple[Floats, Floats, Floats, int]"
"""Extremes, sums of numbers and of their squares, and how many there are, of each channel."""


def channel_statistics(
    graph: Graph, axes: Mapping[Value, int], ctx: Context, title: str, samples: Samples
) -> list[Channels]:
    """The statistics of each value of `axes` along its axis, 1 or -1; channels without elements have extremes of inf
    and -inf, and means of 0."""

    def summed(arrays: list[Array], share: float) -> list[Sums]:
        return [_sums(np.asarray(array, np.float32), axis) for array, axis in zip(arrays, axes.values(), strict=True)]

    totals: list[Sums] = []
    for parts in run(graph, list(axes), ctx, title, summed, samples):
        totals = [_together(*pair) for pair in zip(totals, parts, strict=True)] if totals else parts
    return [Channels(low, high, *(sums / max(count, 1))) for low, high, sums, count in totals]


class Seen:
    """The statistics of channels of `graph`, seen in one run over `samples`: with what is asked first, all that
    `likely` says will be asked next is seen. `forget` them once the graph answers otherwise."""

    def __init__(
        self, graph: Graph, ctx: Context, samples: Samples, likely: Callable[[], Mapping[Value, int]] = dict
    ) -> None:
        self._graph, self._ctx, self._samples, self._likely = graph, ctx, samples, likely
        self._of: dict[tuple[Value, int], Channels] = {}

    def channels(self, axes: Mapping[Value, int]) -> list[Channels]:
        """The statistics of each value of `axes` along its axis; see `channel_statistics`."""
        if any(item not in self._of for item in axes.items()):
            new = {**self._likely(), **axes}
            new = {value: axis for value, axis in new.items() if (value, axis) not in self._of}
            seen = channel_statistics(self._graph, new, self._ctx, "measuring channels", self._samples)
            self._of.update(zip(new.items(), seen, strict=True))
        return [self._of[item] for item in axes.items()]

    def forget(self) -> None:
        self._of.clear()


def _sums(x: NDArray[np.float32], axis: int) -> Sums:
    """Rows of neighbours are summed in single precision, pair by pair, and the sums of rows in double."""
    if axis == -1:
        flat = x.reshape(-1, x.shape[-1])
        low, high = flat.min(0, initial=np.inf), flat.max(0, initial=-np.inf)
        first, second = flat.sum(0, dtype=np.float64), np.einsum("rc,rc->c", flat, flat, dtype=np.float64)
        return low.astype(np.float64), high.astype(np.float64), np.stack([first, second]), len(flat)
    rows = by_channel(x)
    low, high = (end.astype(np.float64) for end in (rows.min(2, initial=np.inf), rows.max(2, initial=-np.inf)))
    wide = max(-low.min(initial=0.0), high.max(initial=0.0)) > LARGE
    squares = np.einsum("ncp,ncp->nc", rows, rows, dtype=np.float64 if wide else np.float32)
    sums = rows.sum(2, dtype=np.float64 if wide else np.float32)
    both = np.stack([sums.sum(0, dtype=np.float64), squares.sum(0, dtype=np.float64)])
    return low.min(0, initial=np.inf), high.max(0, initial=-np.inf), both, len(rows) * rows.shape[2]


def _together(one: Sums, other: Sums) -> Sums:
    return np.minimum(one[0], other[0]), np.maximum(one[1], other[1]), one[2] + other[2], one[3] + other[3]
