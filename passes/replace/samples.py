"""What a block reads and answers for some samples, and the moments of both at sampled positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph, Value
from ...runtime.session import Session
from ..base import Context, Skip
from ..walk.moments import Moments
from ..walk.patches import PatchWindow, sample_positions, take_outputs, take_patches
from ..walk.target import LayerTarget, choose_ridges, fit_target
from ..walk.walk import THIN

Floats = NDArray[np.float32]
Array = NDArray[np.float64]

SAMPLES = 96
"""Samples that forms are fitted by, at most, ..."""
BYTES = 96 << 20
"""... and the bytes that are kept of what a block reads, and of what it answers."""
ROWS = 16384
"""Rows of a fit, and times its width."""
HELD_OUT = 4
"""One of so many batches judges what the others were fitted to."""
BATCH = 8


@dataclass(frozen=True, slots=True)
class Kernel:
    """The geometry of a convolution that keeps the size but for its strides."""

    size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)

    @property
    def pads(self) -> tuple[int, int]:
        (a, b), (c, d) = self.size, self.dilations
        return (a - 1) * c // 2, (b - 1) * d // 2

    @property
    def window(self) -> PatchWindow:
        return PatchWindow(self.size, self.strides, self.pads, self.dilations)

    @property
    def attributes(self) -> dict[str, list[int]]:
        return {
            "kernel_shape": list(self.size),
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "pads": [*self.pads, *self.pads],
        }


@dataclass(frozen=True, slots=True)
class Taken:
    """Batches (samples, channels, height, width) of what a block reads and of what it answers, the judging ones last;
    the first `count` of them are fitted to."""

    read: Sequence[Floats]
    answers: Sequence[Floats]
    count: int

    @property
    def energy(self) -> float:
        """The variance of the answers that judge, a channel, in all."""
        flat = np.concatenate([_rows(one) for one in self.answers[self.count :]])
        return float(flat.var(axis=0, dtype=np.float64).sum())

    def check(self, kernel: Kernel) -> None:
        """Raises `Skip` where there are few rows for a convolution of `kernel`: no form has weights to stay near."""
        rows = sum(len(y) * y.shape[2] * y.shape[3] for y in self.answers)
        width = self.read[0].shape[1] * kernel.size[0] * kernel.size[1]
        if rows < THIN * width:
            raise Skip(f"{rows} rows are too few for the width of {width}; give more samples")

    def error(self, graph: Graph, threads: int) -> float:
        """The squared error of `graph`, which answers as the block, on what judges, as a share of its variance."""
        session = Session(graph, threads=threads)
        name = graph.inputs[0].name
        total, rows = 0.0, 0
        for read, wanted in zip(self.read[self.count :], self.answers[self.count :], strict=True):
            miss = np.asarray(session.run({name: read})[0], np.float32) - wanted
            total += float(np.square(miss, dtype=np.float64).sum())
            rows += miss.size // miss.shape[1]
        error = total / max(rows, 1) / max(self.energy, 1e-30)
        return error if np.isfinite(error) else float("inf")


def taken(graph: Graph, begin: Value, end: Value, ctx: Context) -> Taken:
    """What `graph` has at two of its values, for as many samples as are kept."""
    assert ctx.fit is not None
    session = Session(graph, outputs=[begin, end], threads=ctx.threads)
    read, answers = [], []
    size = BATCH if ctx.fit.batched else 1
    kept = 0
    for feeds in ctx.fit.take(min(SAMPLES, ctx.fit.count), ctx.seed).batches(size):
        one, other = (np.asarray(array, np.float32) for array in session.run(feeds))
        read.append(one)
        answers.append(other)
        kept += max(one.nbytes, other.nbytes)
        if kept > BYTES and len(read) > 1:
            break
    if len(read) == 1:  # the one batch is halved, and a single sample judges itself
        half = max(len(read[0]) // 2, 1)
        read, answers = ([x[:half], x[half:] if len(x) > 1 else x] for x in (read[0], answers[0]))
    return Taken(read, answers, len(read) - max(len(read) // HELD_OUT, 1))


def target(pairs: Taken, features: Sequence[Floats], kernel: Kernel, seed: int) -> LayerTarget:
    """What a convolution of `kernel` over `features`, one array a batch, should become to give the answers.

    Raises `DataError` where they are not finite.
    """
    (height, width), channels, outputs = kernel.size, features[0].shape[1], pairs.answers[0].shape[1]
    d = channels * height * width
    moments = Moments(1, d, outputs), Moments(1, d, outputs)
    samples = sum(map(len, features))
    for number, (x, y) in enumerate(zip(features, pairs.answers, strict=True)):
        sites = y.shape[2:]
        rng = np.random.default_rng((seed, number))
        at = sample_positions(sites[0] * sites[1], -(-max(ROWS, 4 * d) // samples), rng)
        patches = take_patches(x, at, sites, kernel.window)
        moments[number >= pairs.count].add(patches, take_outputs(y, at))
    weight = np.zeros((1, outputs, d))
    fit, held_out = (one.statistics() for one in moments)
    ridges = choose_ridges(weight, fit, held_out)
    return fit_target(weight, moments[0].merged(moments[1]).statistics(), ridges)


def _rows(array: Floats) -> Floats:
    return np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])
