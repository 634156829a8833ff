"""A student that knows nothing yet: its layers are scaled to what they read before the first step.

A network of random weights is made for BatchNormalization, and comes without: it is folded, or trains with statistics
that it never took. Signals fade from layer to layer, all samples get one answer, and no gradient tells them apart. So
each layer in order gets the scale and bias with which its channels have mean 0 and variance 1 over a batch of samples,
as BatchNormalization would begin (Salimans and Kingma 2016, "Weight normalization", section 3; Mishkin and Matas 2016,
"All you need is a good init").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph, Value
from ...runtime.agreement import agreement
from ...runtime.samples import Samples
from ...runtime.session import Session
from ...runtime.training.parameters import Parameters
from .parameters import Parameter
from .training import channel_axes

Array = NDArray[np.generic]

READ = 64
"""Samples whose statistics are taken."""
KNOWS = 0.9
"""A student whose loss is more than this share of that of one answer for all samples knows nothing."""
LEAST = 1e-3
"""The smallest deviation that is divided by, as a share of the mean one of a layer: dead channels stay as they are."""


class _Constant:
    """A model that has one answer for all samples."""

    emulated: ClassVar[bool] = False

    def __init__(self, answers: Sequence[Array], read: str, threads: int) -> None:
        self.answers, self.read, self.threads = answers, read, threads

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        count = len(feeds[self.read])
        return [np.repeat(answer, count, axis=0) for answer in self.answers]


def knows_nothing(teacher: Session, samples: Samples, loss: float) -> bool:
    """Whether a student of that `loss` on `samples` answers hardly better than the teacher's mean answer would.

    Not where answers cannot be averaged: inputs or outputs that count samples along another axis, or no floats.
    """
    if not samples.batched or any(samples.axes.values()):
        return False
    batches = [[np.asarray(x) for x in teacher.run(feeds)] for feeds in samples.take(READ, 0).batches(8)]
    sizes = [samples.size_of(feeds) for feeds in samples.take(READ, 0).batches(8)]
    if any(x.dtype.kind != "f" or x.ndim < 2 or len(x) != n for row, n in zip(batches, sizes) for x in row):
        return False
    answers = [
        np.mean(np.concatenate(rows), axis=0, keepdims=True).astype(rows[0].dtype)
        for rows in zip(*batches, strict=True)
    ]
    constant = _Constant(answers, next(iter(samples.axes)), teacher.threads)
    seen = agreement(teacher, constant, samples, threads=teacher.threads)
    return loss > KNOWS * sum(output.loss for output in seen.outputs)


def initialise(
    graph: Graph, parameters: Parameters, moving: Mapping[Value, Parameter], samples: Samples, *, threads: int = 0
) -> int:
    """Scale the layers of `graph` whose weights are `parameters`, in order; returns how many."""
    feeds = next(samples.take(READ, 0).batches(READ))
    axes = channel_axes(moving)
    scaled = 0
    for node in list(graph):
        weight, bias = node.input(1), node.input(2)
        if (
            weight is None
            or weight not in moving
            or moving[weight].kind != "weight"
            or len(weight.users) > 1
            or len(node.outputs) > 1
        ):
            continue
        if node.op not in ("Conv", "Gemm", "MatMul") or len(weight.static_shape or ()) < 2:
            continue
        (answer,) = Session(graph, outputs=[node.output], threads=threads).run(feeds)
        channel = 1 if node.op == "Conv" else -1
        rows = np.moveaxis(np.asarray(answer, np.float64), channel, -1)
        rows = rows.reshape(-1, rows.shape[-1])
        deviation = rows.std(axis=0)
        deviation = np.where(deviation > LEAST * deviation.mean(), deviation, 1.0)
        view = parameters.view(parameters.flat, weight)
        shape = [1] * view.ndim
        shape[axes[weight]] = -1
        view /= deviation.reshape(shape).astype(np.float32)
        if bias is not None and bias in moving and len(bias.users) == 1 and bias.static_shape == deviation.shape:
            shift = parameters.view(parameters.flat, bias)
            shift[...] = ((shift - rows.mean(axis=0)) / deviation).astype(np.float32)
        parameters.write()
        scaled += 1
    return scaled
