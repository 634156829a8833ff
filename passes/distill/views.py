"""Views of samples: further ones that the teacher labels anew.

A few hundred samples are soon known by heart. Images that are moved, mirrored, cropped and mixed are new ones, and as
no label is needed, the teacher only has to be right about them. So a view is taken where the teacher answers it as it
answers the image itself (`ALIKE`): photographs mirror, digits do not. Mixtures have no answer of their own to keep; all
that is given to a model in one array of floats is mixed. Tokens and states have no views.

The mixtures are CutMix (Yun et al. 2019) and mixup (Zhang et al. 2018), with the teacher's answer for the mixture in
place of the mixed labels (Beyer et al. 2022, "a good teacher is patient and consistent").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph
from ...runtime.agreement import agreement
from ...runtime.samples import Samples
from ...runtime.session import Session

Array = NDArray[np.generic]
Images = NDArray[np.float32]
"""(N, C, H, W)."""
View = Callable[[Images, np.random.Generator], Images]

ASKED = 64
"""Samples whose views the teacher is asked about."""
ALIKE = 0.8
"""Share of its answers that must stay the same."""
SHIFT = 0.125
"""The farthest that an image moves, as a share of its side."""
LEAST_AREA = 0.6
"""The smallest crop, as a share of the image."""
PLAIN = 0.25
"""Share of a batch that is left as it is, but for mirroring, so that the samples themselves are not forgotten. KL on
others of a thinned keyword spotter (160 samples, 1,500 steps): .096 where half stays and half of the batches are mixed,
.080 with a quarter and all of them, .090 where none stays; of a thinned ResNet-20 (1,024 samples, 3,000 steps) .225
where half stays, .202 with a quarter."""
NEW = 0.5
"""The share that is left, and that of the batches that are mixed, while the samples are still new to the student: of
mixtures alone a network of random weights learns less in its first steps."""


def mirror(x: Images, rng: np.random.Generator) -> Images:
    """Half of the images mirrored."""
    turned = rng.random(len(x)) < 0.5
    return np.where(turned[:, None, None, None], x[..., ::-1], x)


def shift(x: Images, rng: np.random.Generator) -> Images:
    """Each image moved by up to `SHIFT` of its sides; pixels of the border are repeated."""
    n, _, height, width = x.shape
    down = rng.integers(-round(SHIFT * height), round(SHIFT * height), n, endpoint=True)
    right = rng.integers(-round(SHIFT * width), round(SHIFT * width), n, endpoint=True)
    rows = np.clip(np.arange(height) + down[:, None], 0, height - 1)
    columns = np.clip(np.arange(width) + right[:, None], 0, width - 1)
    return _at(x, rows, columns)


def crop(x: Images, rng: np.random.Generator) -> Images:
    """A part of each image, of `LEAST_AREA` to all of its area, enlarged to the whole (bilinear)."""
    n, _, height, width = x.shape
    side = np.sqrt(rng.uniform(LEAST_AREA, 1.0, n))
    top, left = rng.random(n) * (1.0 - side), rng.random(n) * (1.0 - side)
    y = np.clip((top[:, None] * height) + (np.arange(height) + 0.5) * side[:, None] - 0.5, 0.0, height - 1)
    z = np.clip((left[:, None] * width) + (np.arange(width) + 0.5) * side[:, None] - 0.5, 0.0, width - 1)
    y0, z0 = y.astype(np.intp), z.astype(np.intp)
    y1, z1 = np.minimum(y0 + 1, height - 1), np.minimum(z0 + 1, width - 1)
    down = (y - y0).astype(np.float32)[:, None, :, None]
    right = (z - z0).astype(np.float32)[:, None, None, :]
    upper = _at(x, y0, z0) * (1.0 - right) + _at(x, y0, z1) * right
    lower = _at(x, y1, z0) * (1.0 - right) + _at(x, y1, z1) * right
    return np.asarray(upper * (1.0 - down) + lower * down, np.float32)


def _at(x: Images, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Images:
    """The pixels at `rows` (N, H) and `columns` (N, W) of each image."""
    image = np.arange(len(x))[:, None, None, None]
    channel = np.arange(x.shape[1])[None, :, None, None]
    return np.asarray(x[image, channel, rows[:, None, :, None], columns[:, None, None, :]])


def mix(x: Images, rng: np.random.Generator) -> Images:
    """The samples of a batch with parts of others in them: of images a rectangle, or all of them faintly.

    Each sample in its own measure: batches that are mixed alike differ so much that rates are mistaken for too large.
    """
    others = x[rng.permutation(len(x))]
    share = rng.random(len(x)).astype(np.float32)
    each = share.reshape(-1, *[1] * (x.ndim - 1))
    faint = np.asarray(each * x + (1.0 - each) * others, np.float32)
    if x.ndim != 4:
        return faint
    height, width = x.shape[2:]
    down, right = _stretch(height, np.sqrt(share), rng), _stretch(width, np.sqrt(share), rng)
    cut = np.where(down[:, None, :, None] & right[:, None, None, :], others, x)
    return np.where((rng.random(len(x)) < 0.5)[:, None, None, None], faint, cut)


def _stretch(size: int, share: Images, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Of each of so many axes of `size` a stretch somewhere that is a `share` (N,) of it, as (N, size)."""
    length = np.round(size * share).astype(np.intp)
    first = np.floor(rng.random(len(share)) * (size - length + 1)).astype(np.intp)[:, None]
    at = np.arange(size)
    return (at >= first) & (at < first + length[:, None])


class Views:
    """What is done to batches of the one input `name`: `views`, where they are images whose axis of channels is `axis`,
    and mixing."""

    def __init__(self, name: str, axis: int | None, views: Sequence[View], *, mixed: bool = True) -> None:
        self.name = name
        self.axis = axis
        self.views = tuple(views)
        self.mixed = mixed

    def __bool__(self) -> bool:
        return bool(self.views) or self.mixed

    def __call__(self, feeds: Mapping[str, Array], rng: np.random.Generator, *, new: bool = False) -> dict[str, Array]:
        """Views of a batch; with `new`, of fewer of its samples."""
        if not self:
            return dict(feeds)
        array = feeds[self.name]
        axis = 1 if self.axis is None else self.axis
        x = np.moveaxis(np.asarray(array, np.float32), axis, 1)
        if mirror in self.views:
            x = mirror(x, rng)
        plain, x = np.split(x, [round((NEW if new else PLAIN) * len(x))])
        for view in self.views:
            x = x if view is mirror else view(x, rng)
        if self.mixed and len(x) > 1 and (not new or rng.random() < NEW):
            x = mix(x, rng)
        x = np.concatenate([plain, x])
        return {self.name: np.ascontiguousarray(np.moveaxis(x, 1, axis)).astype(array.dtype, copy=False)}

    def of(self, samples: Samples, seed: int) -> Samples:
        """Views of `samples`, the same ones whenever they are asked for."""
        if not self:
            return samples
        return samples.through(lambda feeds, at: self(feeds, np.random.default_rng((seed, at))))

    def __str__(self) -> str:
        words = [*(view.__name__ for view in self.views), *(["mixtures"] if self.mixed else [])]
        return ", ".join(words) or "none"


NO_VIEWS = Views("", None, (), mixed=False)


def fitting_views(teacher: Graph, samples: Samples, *, seed: int = 0, threads: int = 0) -> Views:
    """The views of `samples` under which `teacher` answers as before, and mixtures; `NO_VIEWS` where they are not one
    array of floats."""
    (name, x), *others = next(samples.batches(1)).items()
    if others or x.dtype.kind != "f" or x.ndim < 2 or not samples.batched or samples.axes[name] != 0:
        return NO_VIEWS
    axis = _channels(x)
    if axis is None:
        return Views(name, None, ())
    session = Session(teacher, threads=threads)
    some = samples.take(ASKED, seed)
    able = []
    for view in (mirror, shift, crop):
        seen = _Seen(session, Views(name, axis, (view,), mixed=False), seed)
        outcome = agreement(session, seen, some, threads=threads)
        if outcome.share >= ALIKE:
            able.append(view)
    return Views(name, axis, able)


def _channels(x: Array) -> int | None:
    """The axis of channels of images; `None` for what is none."""
    if x.ndim != 4:
        return None
    axis = next((axis for axis in (1, 3) if x.shape[axis] in (1, 3)), None)
    return axis if min(x.shape[2], x.shape[3 if axis == 1 else 1]) >= 8 else None


class _Seen:
    """A model that is shown views."""

    emulated: ClassVar[bool] = False

    def __init__(self, session: Session, views: Views, seed: int) -> None:
        self.session = session
        self.views = views
        self.threads = session.threads
        self.rng = np.random.default_rng(seed)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        return self.session.run(self.views(feeds, self.rng))
