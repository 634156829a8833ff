"""Small pictures of image inputs, as PNG in a `data:` address.

What mean and deviation a model was trained with is not known here, so each picture is stretched to its own range.
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from ...runtime.columns import Array

EDGE = 96
"""Pixels of the longer side, at most."""

_CHANNELS = (1, 3)


def thumbnail(sample: Array) -> Array | None:
    """The picture in one sample `[C, H, W]` or `[H, W, C]` as bytes `[H, W, C]`, or `None` where it holds none."""
    if sample.ndim != 3 or sample.dtype.kind not in "fu" or min(sample.shape) < 1:
        return None
    if sample.shape[0] in _CHANNELS and min(sample.shape[1:]) >= 8:
        picture = np.moveaxis(sample, 0, -1)
    elif sample.shape[2] in _CHANNELS and min(sample.shape[:2]) >= 8:
        picture = sample
    else:
        return None
    step = -(-max(picture.shape[:2]) // EDGE)
    height, width = (size // step for size in picture.shape[:2])
    blocks = picture[: height * step, : width * step].reshape(height, step, width, step, -1)
    small = blocks.astype(np.float64).mean((1, 3))
    low, high = small.min(), small.max()
    return np.asarray(255 * (small - low) / max(high - low, 1e-12) + 0.5, np.uint8)


def data_address(picture: Array) -> str:
    """Bytes `[H, W, 1 or 3]` as the address of a PNG."""
    height, width, channels = picture.shape
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()
