"""Pooling over channels in blocks, [N, C / b, H * W, b]."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from .window import Window


def max_pool(x: te.Tensor, window: Window, output: tuple[int, int]) -> te.Tensor:
    """The largest value under each window of an undilated kernel.

    A place outside the image is moved to the nearest inside; every window holds that one too, so the maximum stays.
    """
    (height, width), (top, left) = window.image, window.pads[:2]
    rh, rw = te.reduce_axis((0, window.size[0]), "rh"), te.reduce_axis((0, window.size[1]), "rw")

    def at(p: Any) -> Any:
        h = p // output[1] * window.strides[0] + rh - top
        w = p % output[1] * window.strides[1] + rw - left
        return tirx.max(tirx.min(h, height - 1), 0) * width + tirx.max(tirx.min(w, width - 1), 0)

    return te.compute(
        (x.shape[0], x.shape[1], output[0] * output[1], x.shape[3]),
        lambda n, c, p, lane: te.max(x[n, c, at(p), lane], axis=[rh, rw]),
        name="max_pool",
    )


def sum_pool(x: te.Tensor, window: Window, output: tuple[int, int]) -> te.Tensor:
    """The sum under each window, nothing being added beyond the border."""
    (height, width), (top, left) = window.image, window.pads[:2]
    (kh, kw), (sh, sw) = window.size, window.strides
    rh, rw = te.reduce_axis((0, kh), "rh"), te.reduce_axis((0, kw), "rw")

    def value(n: Any, c: Any, p: Any, lane: Any) -> Any:
        h, w = p // output[1] * sh + rh - top, p % output[1] * sw + rw - left
        inside = tirx.all(h >= 0, h < height, w >= 0, w < width)
        element = x[n, c, h * width + w, lane]
        return element if not any(window.pads) else tirx.if_then_else(inside, element, tirx.const(0, x.dtype))

    return te.compute(
        (x.shape[0], x.shape[1], output[0] * output[1], x.shape[3]),
        lambda n, c, p, lane: te.sum(value(n, c, p, lane), axis=[rh, rw]),
        name="sum_pool",
    )


def shares(window: Window, output: tuple[int, int], count_padding: bool) -> npt.NDArray[np.float32]:
    """What the sum of each window is multiplied by to be its mean, [1, 1, OH * OW, 1].

    `count_padding` divides by the whole window at the border too.
    """
    within = []
    for i in (0, 1):
        first = np.arange(output[i]) * window.strides[i] - window.pads[i]
        last = np.minimum(first + window.size[i], window.image[i])
        within.append(np.full(output[i], window.size[i]) if count_padding else last - np.maximum(first, 0))
    return (1 / np.outer(*within)).astype(np.float32).reshape(1, 1, -1, 1)
