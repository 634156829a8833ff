"""Samples as a user names them, drawn for one model."""

from __future__ import annotations

import logging
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import DataError, TargetError, expect
from ..ir.graph import Graph
from ..passes.base import Context
from ..passes.pipeline import Pipeline
from ..runtime.columns import Array
from ..runtime.samples import Samples
from ..runtime.session import Session
from ..runtime.sizes import sizes as sizes
from ..runtime.sources import load_samples
from ..runtime.synthesise import synthesise
from .first_answer import FirstRunBounds, TakesTooMuch, first_answer
from .fixed_sizes import narrowed
from .model import Model

if TYPE_CHECKING:
    from ..runtime.samples import Source
    from ..runtime.session import Runnable

_LOG = logging.getLogger("optc")

MOST_HELD = 128
_SIZES = 16
"""Samples whose sizes are looked at."""
_FEW = 32
"""Samples below which fitting is a gamble."""
_LOOK = 20
"""Samples made up to compare two models on: of these, 16 are kept out of fits and judged on."""


@dataclass(frozen=True, slots=True)
class Data:
    """Samples as a user names them: a `source` that `load_samples` takes (none: those of a zoo model, or made-up ones),
    how its images become tensors, and how many to use at most. `few` says that those made up are only looked at."""

    source: Source | None = None
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    layout: Literal["auto", "NCHW", "NHWC"] = "auto"
    resize: int | tuple[int, int] | None = None
    limit: int | None = None
    few: bool = False

    def __post_init__(self) -> None:
        """Raises `DataError` for what images cannot be read by."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            for value in values if isinstance(values, Sequence) and not isinstance(values, str) else (values,):
                expect(value, (numbers.Real, type(None)), f"'{name}' is a number, or one a channel", DataError)
        if self.layout not in ("auto", "NCHW", "NHWC"):
            raise DataError(f"'layout' is auto, NCHW or NHWC, not {self.layout!r}")
        for name, size in (("limit", self.limit), ("resize", self.resize)):
            for one in size if isinstance(size, tuple | list) else (size,):
                expect(one, (numbers.Integral, type(None)), f"'{name}' is a whole number", DataError)
                if one is not None and one < 1:
                    raise DataError(f"'{name}' is 1 or more, not {one}")


def runnable(
    model: Model,
    data: Data | Samples | Source | None,
    graph: Graph,
    ctx: Context,
    beside: Sequence[Graph] = (),
) -> tuple[Samples, Session]:
    """The samples, and the model ready to run on them; they also fit the inputs of the graphs `beside` it, which may
    leave less open.

    Many an exported model declares a batch axis and holds a Reshape to one sample: it is fed one at a time. Raises
    `DataError` where there are no samples, or some are of a size that the model does not take beside that of the first,
    and `TargetError` where the model does not run on the first.
    """
    samples = draw(model, data, narrowed(graph, beside), ctx.seed)
    _LOG.debug("%d samples%s", samples.count, ", made up" if samples.synthetic else "")
    first = next(samples.batches(1))
    bounds = FirstRunBounds.of(graph, first, sizes(graph, samples), ctx.threads)
    try:
        session = first_answer(graph, first, bounds, ctx.threads)
    except TakesTooMuch:
        raise
    except TargetError as error:
        fix = "give samples with --data" if samples.synthetic else "see whether the samples are what the model takes"
        raise TargetError(f"{error}; {fix}") from error
    if samples.uneven:
        _check_sizes(samples, session)
    return in_batches(samples, session), session


def in_batches(samples: Samples, one: Runnable) -> Samples:
    """`samples`, one at a time where `one` takes no batch of them."""
    if not samples.batched or samples.count < 2:
        return samples
    feeds = next(samples.batches(2))
    if samples.size_of(feeds) == 1:  # the first two differ in size, and others may not
        feeds = {name: _twice(array, samples.axes[name]) for name, array in feeds.items()}
    try:
        one.run(feeds)
    except TargetError:
        return samples.singly()
    return samples


def _twice(array: Array, axis: int | None) -> Array:
    return array if axis is None else np.concatenate([array, array], axis)


def _check_sizes(samples: Samples, session: Session) -> None:
    """Run one sample of each of the first few sizes. Raises `DataError` for one that the model does not take."""
    seen: dict[str, None] = {}
    for feeds in samples.take(_SIZES).batches(1):
        size = ", ".join(f"'{name}' of {'x'.join(map(str, array.shape))}" for name, array in feeds.items())
        if size in seen:
            continue
        seen[size] = None
        try:
            session.run(feeds)
        except TargetError as error:
            first = next(iter(seen))
            raise DataError(
                f"samples are of several sizes, {first} and {size}, and the model does not take the second; bring them "
                "to one size, pictures with --resize HEIGHTxWIDTH"
            ) from error


def held_out(
    model: Model, data: Data | Samples | Source | None, floor: float | None, graph: Graph, ctx: Context
) -> Samples | None:
    """The samples that a build of `graph` was judged on, drawn anew; `None` where it does not run on them any more."""
    try:
        samples, _ = runnable(model, data, graph, ctx)
    except (DataError, TargetError):
        return None
    return samples.split(held_count(samples.count, floor), ctx.seed)[1]


def draw(model: Model, data: Data | Samples | Source | None, graph: Graph, seed: int) -> Samples:
    if isinstance(data, Samples):
        return data
    wanted = data if isinstance(data, Data) else Data(data)
    source = source_of(model, wanted)
    assert not isinstance(source, Samples)
    if source is None:
        samples = synthesise(graph, _LOOK if wanted.few else None, seed)
    else:
        samples = load_samples(
            source, graph, mean=wanted.mean, std=wanted.std, layout=wanted.layout, resize=wanted.resize
        )
    return samples if wanted.limit is None else samples.take(wanted.limit, seed)


def source_of(model: Model, data: Data | Samples | Source | None) -> Samples | Source | None:
    """Where samples come from: as given, or those a model of the zoo was made with; `None` where they are drawn."""
    source = data.source if isinstance(data, Data) else data
    if source is None and isinstance(model, str) and model.startswith("zoo:"):
        from ..models import zoo

        name = model.removeprefix("zoo:")
        return zoo.samples(name, "calib") if zoo.find(name).kind == "trained" else None
    return source


def is_stream(data: Data | Samples | Source | None) -> bool:
    """Whether the samples can be read only once."""
    source = data.source if isinstance(data, Data) else data
    return not (source is None or isinstance(source, Samples | str | os.PathLike | np.ndarray | Mapping))


def source_text(data: Data | Samples | Source | None) -> str:
    source = data.source if isinstance(data, Data) else data
    return os.fspath(source) if isinstance(source, str | os.PathLike) else ""


def sample_notes(samples: Samples, pipeline: Pipeline) -> list[str]:
    notes = list(samples.notes)
    if samples.synthetic:
        notes.append("no --data was given, so inputs were made up; real samples fit better and judge truly")
    elif pipeline.lossy and samples.count < _FEW:
        notes.append(f"only {samples.count} samples were given; a few hundred fit much better")
    return notes


def held_count(count: int, floor: float | None = None) -> int:
    """Samples kept out of every fit: a fifth, at least 16, at most 128.

    Where an agreement of `floor` is asked for, as many as tell it from 1, up to half of all: the standard error of a
    share f of n samples, sqrt(f (1 - f) / n), is no more than 1 - f for n of at least f / (1 - f).
    """
    usual = max(16, min(MOST_HELD, count // 5))
    if floor is None:
        return usual
    telling = MOST_HELD if floor >= 1 else math.ceil(floor / (1 - floor))
    return max(usual, min(telling, MOST_HELD, count // 2))
