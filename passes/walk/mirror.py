"""Mirror images as further samples, where the teacher answers them as it answers the images.

A layer of a thousand inputs is fitted on what a few hundred images show of it, and answers others worse than these.
The walk needs no labels, so a mirror image is a sample, too. Not as good as another image, but MobileNetV2 with a
quarter of its MACs gone has a tenth less KL on images that it was not fitted on.

Fires for a model of one input of three (or one) channels, with at most `MANY` real samples, whose teacher decides
between classes and decides for an image and its mirror image alike: for photographs, not for digits or spectra.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...runtime.agreement import agreement
from ...runtime.samples import Feeds, Samples
from ...runtime.session import Session
from ..base import Context

MANY = 512
"""Samples that are enough without."""
ASKED = 64
"""Samples whose mirror images the teacher is asked about."""
ALIKE = 0.8
"""Share of answers that must be the same."""

NOTE = "fitted on the mirror images, too: the model answers them alike"

Array = NDArray[np.generic]


def with_mirror_images(ctx: Context) -> Context:
    """What a pass is given, with the mirror image of each sample to fit on where that is worth something."""
    plain, teacher = ctx.fit, ctx.teacher
    if plain is None or teacher is None or plain.synthetic or plain.count > MANY or not plain.batched:
        return ctx
    axis = _width(next(plain.batches(1)))
    if axis is None:
        return ctx
    session = Session(teacher, threads=ctx.threads)
    agreed = agreement(session, _Mirror(session, axis), plain.take(ASKED, ctx.seed), threads=ctx.threads)
    alike = agreed.top1 is not None and agreed.share >= ALIKE
    return replace(ctx, fit=Mirrored(plain, axis)) if alike else ctx


def _width(feeds: Feeds) -> int | None:
    """The axis along which images are wide, from one of them; `None` where it is none."""
    (x,) = feeds.values() if len(feeds) == 1 else (None,)
    if not isinstance(x, np.ndarray) or x.ndim != 4 or x.dtype.kind != "f":
        return None
    if x.shape[1] in (1, 3):
        return 3
    return 2 if x.shape[3] in (1, 3) else None


class _Mirror:
    """A model that is shown mirror images."""

    emulated: ClassVar[bool] = False

    def __init__(self, session: Session, axis: int) -> None:
        self.session = session
        self.axis = axis
        self.threads = session.threads

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        return self.session.run({name: np.ascontiguousarray(np.flip(x, self.axis)) for name, x in feeds.items()})


class Mirrored(Samples):
    """Images, each followed by its mirror image along `axis`: never is one held out of a fit on the other."""

    __slots__ = ("_axis", "_plain")

    def __init__(self, plain: Samples, axis: int) -> None:
        self.axes = plain.axes
        self.synthetic = plain.synthetic
        self.notes = plain.notes
        self._plain = plain
        self._axis = axis

    @property
    def count(self) -> int:
        return 2 * self._plain.count

    @property
    def batched(self) -> bool:
        return self._plain.batched

    def singly(self) -> Samples:
        return Mirrored(self._plain.singly(), self._axis)

    def batches(self, size: int) -> Iterator[Feeds]:
        """As of other samples, but up to `size` + 1 at a time where `size` is odd."""
        for feeds in self._plain.batches((size + 1) // 2):
            yield {name: self._beside(x) for name, x in feeds.items()}

    def _beside(self, x: Array) -> Array:
        return np.stack([x, np.flip(x, self._axis)], axis=1).reshape(-1, *x.shape[1:])

    def split(self, count: int, seed: int = 0) -> tuple[Samples, Samples]:
        fit, out = self._plain.split(count // 2, seed)
        return Mirrored(fit, self._axis), Mirrored(out, self._axis)

    def take(self, count: int, seed: int = 0) -> Samples:
        return Mirrored(self._plain.take(max(count // 2, 1), seed), self._axis)
