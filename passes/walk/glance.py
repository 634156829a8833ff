"""A glance at the layers of a graph that nothing was changed in, before a walk: one run over a few samples tells the
second moments of what every layer reads, and those tell which layers are out.

A form loses least in the metric H where it is fitted to the weights that the layer has; a walk can only add what the
layers before it lost. Few rows leave directions out that a form may then lose for nothing, so what a glance finds lost
is rather too little. A layer that would lose `CLEARLY` more than it may in so forgiving a metric need not be walked to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph
from ...runtime.parallel import imap, threads_each, threads_for
from ...runtime.samples import Feeds
from ...runtime.session import Session
from ...storage.spill import Data
from ..base import Context
from .linear import Linear
from .moments import Moments, Products, Statistics
from .patches import sample_positions
from .target import LARGEST, Ridges, fit_target
from .teacher import floats
from .walk import MADE_UP, Step, too_wide

Rows = NDArray[np.float32]

SAMPLES, BATCH = 32, 8
ROWS = 2048
"""Rows of a layer; of a wide one twice its width."""
CLEARLY = 1.5
"""How many times what it may lose a form must lose at a glance, for its layer to be out."""
MEMORY = 64 << 20
"""Bytes of the moments that are summed in one run."""


def glance(graph: Graph, ctx: Context, layers: Sequence[Linear]) -> Iterator[Step]:
    """Steps over `layers`, none of which may be changed meanwhile. Left out are those whose weight is read in other
    ways, too, whose output has no known size, and which nothing, or no number that can be squared, reaches."""
    assert ctx.fit is not None
    some: list[Linear] = []
    size = 0
    for layer in layers:
        if too_wide(layer) or layer.others or any(not _likeness(reader) for reader in layer.readers):
            continue
        groups, _, d = layer.shape
        if some and size + 16 * groups * d * d > MEMORY:
            yield from _steps(graph, ctx, some)
            some, size = [], 0
        some.append(layer)
        size += 16 * groups * d * d
    if some:
        yield from _steps(graph, ctx, some)


def _steps(graph: Graph, ctx: Context, layers: Sequence[Linear]) -> Iterator[Step]:
    assert ctx.fit is not None
    samples = ctx.fit.take(SAMPLES, ctx.seed)
    threads = threads_for(graph, ctx.threads)
    values = list(dict.fromkeys(reader.source for layer in layers for reader in layer.readers))
    session = Session(graph, outputs=values, threads=threads_each(threads), spins=False)
    sums = {layer: Moments(layer.shape[0], layer.shape[2], 1) for layer in layers}
    inputs: dict[Linear, tuple[int, ...]] = {}

    def work(item: tuple[int, Feeds]) -> list[list[Products]]:
        number, feeds = item
        share = samples.size_of(feeds) / samples.count
        arrays = dict(zip(values, session.run(feeds), strict=True))
        products: list[list[Products]] = []
        for place, (layer, moments) in enumerate(sums.items()):
            groups, _, d = layer.shape
            products.append([])
            for at, reader in enumerate(layer.readers):
                x = _rows(reader, arrays[reader.source], share, (ctx.seed, place, at, number))
                if number == 0:
                    inputs[reader] = arrays[reader.source].shape
                    first = x if len(x) else np.zeros((1, groups * d), np.float32)
                    moments.shift(first, np.zeros((len(first), groups), np.float32))
                products[-1] += moments.products(x, np.zeros((len(x), groups), np.float32))
        return products

    for products in imap(work, enumerate(samples.batches(BATCH)), threads):
        for moments, some in zip(sums.values(), products, strict=True):
            moments.take(some)
    together = min(BATCH, samples.count) if samples.batched else 1
    for layer in layers:
        one = sums.pop(layer).statistics(centred=layer.bias_place is not None)
        if one.count and one.largest <= LARGEST:  # nor is it no number
            step = _step(layer, one, ctx.fit.synthetic, inputs, together)
            if step.target.energy <= LARGEST:
                yield step


def _rows(reader: Linear, array: Data, share: float, seed: tuple[int, ...]) -> Rows:
    source = floats(array)
    output = reader.output_shape(source.shape, _likeness(reader))
    sites, each = reader.sites(output)
    groups, _, d = reader.shape
    wanted = max(ROWS if groups == 1 else ROWS // 4, 2 * d)
    at = sample_positions(sites, math.ceil(wanted * share / max(each, 1)), np.random.default_rng(seed))
    return reader.inputs(source, at, output)


def _step(
    layer: Linear, one: Statistics, synthetic: bool, inputs: dict[Linear, tuple[int, ...]], together: int
) -> Step:
    """The step of a layer that is to answer as it does to rows of the second moments in `one`."""
    weight = layer.weights()
    statistics = one.answered_by(weight, None)
    statistics = statistics.broadened(weight, MADE_UP) if synthetic else statistics
    target = fit_target(weight, statistics, Ridges(repair=None))
    outputs = [reader.output_shape(inputs[reader], _likeness(reader)) for reader in layer.readers]
    first, *rest = inputs[layer]
    return Step(
        layer, target, outputs[0], disturbed=False, input=(max(1, first // together), *rest), twins=tuple(outputs[1:])
    )


def _likeness(reader: Linear) -> tuple[int, ...]:
    """A shape that tells, with that of its input, the output's (`Linear.output_shape`); () where it is not known."""
    groups, n, _ = reader.shape
    if not reader.is_conv:
        return (n, n)
    shape = reader.output.shape or ()
    sizes = [size for size in shape[2:] if isinstance(size, int)]
    if len(sizes) == len(reader.kernel):
        return (1, groups * n, *sizes)
    plain = not reader.transposed and reader.node.get_string("auto_pad", "NOTSET") in ("", "NOTSET")
    return (1, groups * n) if plain else ()
