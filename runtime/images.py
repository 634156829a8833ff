"""Folders of images as samples of an image model.

A pixel p of 0..255 becomes (p / 255 - mean) / std; where a mean or a std is above 1, both are on the 0..255 scale and
it becomes (p - mean) / std. Without `resize` the image is made to just cover the model's size; `resize=N` makes its
shorter side N; both then cut out the middle. `resize=(height, width)` stretches it to exactly that. Resampling is
bilinear. A model that takes uint8 is given pixels as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from ..ir.graph import Value
from ..ir.types import DType
from .archive import unreadable
from .columns import Array, Column, LoadedColumn

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Decoders that are used; Pillow knows many more, some of which run other programs."""
_MOST_PIXELS = 1 << 26
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageColumn(LoadedColumn):
    """Rows that are decoded from image files."""

    __slots__ = ()


def find_images(folder: Path) -> list[Path]:
    """The images under `folder`, subfolders included, by path."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def image_column(
    paths: Sequence[Path],
    value: Value,
    axis: int | None,
    *,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    layout: str,
    resize: int | tuple[int, int] | None,
) -> Column:
    """One row an image, or where the model takes a fixed number of them at a time, that many; what is left over is left
    out. Raises `DataError` where `value` takes no images, too many, or the options do not fit it."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise DataError("reading images needs Pillow: pip install 'optc[images]'") from error
    dtype = value.dtype or DType.FLOAT
    shape = value.shape or ()
    if len(shape) != 4:
        raise DataError(f"input '{value.name}' has rank {len(shape)}, which is no batch of images; give arrays instead")
    first = _channels_first(shape, layout, value.name)
    channels, height, width = (shape[1], shape[2], shape[3]) if first else (shape[3], shape[1], shape[2])
    mode = _MODES.get(channels if isinstance(channels, int) else 3)
    if mode is None:
        raise DataError(f"input '{value.name}' has {channels} channels; images have 1, 3 or 4")
    fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    shift = np.asarray(0.0 if mean is None else mean, np.float32).reshape(-1)
    scale = np.asarray(1.0 if std is None else std, np.float32).reshape(-1)
    if {shift.size, scale.size} - {1, len(mode)}:
        raise DataError(f"mean and std take one number or one a channel: {len(mode)} for input '{value.name}'")
    if not scale.all():
        raise DataError("std must not be zero")
    unit = np.float32(1 if max(shift.max(), scale.max()) > 1 else 255)

    def load(index: int) -> Array:
        from PIL import Image

        try:
            with Image.open(paths[index], formats=_FORMATS) as image:
                _check_size(image.width, image.height)
                pixels = np.asarray(_resize(image.convert(mode), fixed, resize))
        except DataError:
            raise
        except Exception as error:  # damaged images make decoders raise anything
            raise unreadable(paths[index], "an image", f"{error}; remove it or repair it") from error
        pixels = pixels.reshape(*pixels.shape[:2], len(mode))
        if dtype.is_float:
            pixels = (pixels.astype(np.float32) / unit - shift) / scale
        return np.asarray(pixels.transpose(2, 0, 1) if first else pixels)

    batch = shape[0] if axis is None and isinstance(shape[0], int) else 1
    if len(paths) < batch:
        raise DataError(f"input '{value.name}' takes {batch} images at a time, and there are {len(paths)}; give more")

    def load_batch(index: int) -> Array:
        images = [load(at) for at in range(index * batch, (index + 1) * batch)]
        if len({image.shape for image in images}) > 1:
            raise DataError(
                f"input '{value.name}' takes {batch} images at a time, and {paths[index * batch]} and those after it "
                "differ in size; give --resize HxW"
            )
        return np.stack(images)

    return ImageColumn(value.name, dtype.numpy, len(paths) // batch, load if axis is not None else load_batch)


def _check_size(width: int, height: int) -> None:
    """Raises `DataError` where an image has, or would be resized to, more pixels than a sample ever needs."""
    if width * height > _MOST_PIXELS:
        raise DataError(f"an image of {width}x{height} pixels is too large for a sample; make it smaller")


def _channels_first(shape: Sequence[object], layout: str, name: str) -> bool:
    if layout in ("NCHW", "NHWC"):
        return layout == "NCHW"
    if shape[1] in _MODES:
        return True
    if shape[3] in _MODES:
        return False
    raise DataError(f"input '{name}' {list(shape)} does not show where its channels are; say layout NCHW or NHWC")


def _resize(image: Image.Image, fixed: tuple[int, int] | None, resize: int | tuple[int, int] | None) -> Image.Image:
    from PIL import Image

    bilinear = Image.Resampling.BILINEAR
    if isinstance(resize, tuple):
        _check_size(*resize)
        image = image.resize((resize[1], resize[0]), bilinear)
    else:
        factor = _factor(image, fixed, resize)
        if factor != 1:
            width, height = (max(1, round(side * factor)) for side in (image.width, image.height))
            _check_size(width, height)
            image = image.resize((width, height), bilinear)
    if fixed is None or (image.height, image.width) == fixed:
        return image
    left, top = (image.width - fixed[1]) // 2, (image.height - fixed[0]) // 2
    if left < 0 or top < 0:
        raise DataError(
            f"an image resized to {image.height}x{image.width} is smaller than the model's {fixed[0]}x{fixed[1]}; "
            "resize to that or more"
        )
    return image.crop((left, top, left + fixed[1], top + fixed[0]))


def _factor(image: Image.Image, fixed: tuple[int, int] | None, resize: int | None) -> float:
    if resize is not None:
        return resize / min(image.width, image.height)
    if fixed is None:
        return 1.0
    return max(fixed[0] / image.height, fixed[1] / image.width)
