"""Samples made up from the model alone, for when there are none.

Pictures are leaves and 1/f noise (`noise.py`), of the mean and covariance that a BatchNormalization behind the first
convolution remembers (`first_layer.py`) where there is one, else of zero mean and unit variance. Other float inputs are
1/f noise over their long axes. Integers that index a constant table are drawn from its rows; masks are ones, states
(`states.py`) and segment numbers zero, positions count up. Dimensions that the model leaves open get the first usual
size at which it runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np

from ..errors import DataError, OptcError
from ..ir.graph import Graph, Value
from ..ir.shapes.symbols import Sym, symbol
from ..ir.types import DType
from .axes import batch_axes, fed_inputs
from .columns import Array, Column
from .first_layer import InputStatistics, input_statistics
from .noise import SHARED, dead_leaves, power_law
from .samples import Samples
from .session import Session
from .spool import Spool
from .states import state_inputs

_CHANNELS = (1, 3, 4)
_PICTURE_SIZES = (224, 256, 128, 64, 32, 512)
_LENGTHS = (64, 48, 128, 16, 256, 512, 1024, 16000, 1)
_ELEMENTS, _FEWEST, _MOST = 1 << 23, 64, 512
"""Elements that all samples together have by default, and the bounds of their number."""
_LARGEST = 1 << 30
"""Bytes of one sample that is made up."""
_LONG = 16
"""Axes shorter than this hold features rather than a signal."""
_CARRY = frozenset({"Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten"})


def synthesise(graph: Graph, count: int | None = None, seed: int = 0) -> Samples:
    """`count` samples for the inputs of `graph`; the same ones for the same seed.

    By default 64 to 512 of them, the more the smaller they are and the fewer pictures a fixed batch holds.
    Raises `DataError` where no sizes are found at which the model runs.
    """
    axes = batch_axes(graph)
    inputs = fed_inputs(graph)
    if not inputs:
        raise DataError("the model has no inputs, so there is nothing to make samples for")
    sizes = _sizes(graph, inputs, axes, seed)
    if count is None:
        shapes = [_row_shape(value, axes[value.name], sizes) for value in inputs]
        pictures = max([shape[0] for shape in shapes if len(shape) == 4], default=1)
        most = max(_MOST // max(pictures, 1), _FEWEST)
        count = min(max(_ELEMENTS // max(sum(map(math.prod, shapes)), 1), _FEWEST), most)
    return Samples(_columns(graph, inputs, axes, sizes, count, seed), axes, synthetic=True)


def _columns(
    graph: Graph,
    inputs: tuple[Value, ...],
    axes: Mapping[str, int | None],
    sizes: Mapping[str, int],
    count: int,
    seed: int,
) -> list[Column]:
    states = state_inputs(graph, axes)
    columns = []
    for place, value in enumerate(inputs):
        axis, dtype = axes[value.name], value.dtype or DType.FLOAT
        shape = _row_shape(value, axis, sizes)
        if (size := math.prod(shape) * 8) > _LARGEST:
            raise DataError(f"a sample of input '{value.name}' would take {size} bytes; give samples with --data")
        # Only a picture, channels first, is drawn from them; they are quartic in the channels.
        statistics = input_statistics(value) if dtype.is_float and _channel_axis(value, axis) == -3 else None
        spool = Spool()
        for i in range(count):
            rng = np.random.default_rng((seed, place, i))
            row = np.zeros(shape) if value.name in states else _row(value, shape, axis, statistics, rng)
            spool.append(row.astype(dtype.numpy))
        columns.append(spool.column(value.name, dtype.numpy))
    return columns


def _row(
    value: Value,
    shape: tuple[int, ...],
    axis: int | None,
    statistics: InputStatistics | None,
    rng: np.random.Generator,
) -> Array:
    dtype = value.dtype or DType.FLOAT
    if not dtype.is_float and not dtype.is_integer and dtype is not DType.BOOL:
        raise DataError(f"input '{value.name}' holds {dtype.text}, which cannot be made up; give samples with --data")
    if 0 in shape:
        return np.zeros(shape)
    name = value.name.lower()
    channels = _channel_axis(value, axis)
    if dtype.is_float or (dtype is DType.UINT8 and channels is not None):
        if channels is None:
            long = tuple(i for i, size in enumerate(shape) if size >= _LONG)
            return power_law(rng, shape, long) if long else rng.standard_normal(shape)
        picture = _picture(shape, channels, statistics, rng)
        return np.clip(picture * 60 + 128, 0, 255) if dtype is DType.UINT8 else picture
    if dtype is DType.BOOL or "mask" in name or not shape:
        return np.ones(shape)
    if "type" in name or "segment" in name:
        return np.zeros(shape)
    if "position" in name:
        return np.broadcast_to(np.arange(shape[-1]), shape)
    rows = _table_rows(value)
    return np.ones(shape) if rows is None else rng.integers(0, rows, shape)


def _picture(
    shape: tuple[int, ...], channels: int, statistics: InputStatistics | None, rng: np.random.Generator
) -> Array:
    """One picture of `shape`, its channels on axis `channels` (which counts from the end: -3 or -1), or as many as a
    fixed batch holds."""
    if len(shape) == 4:
        return np.stack([_picture(shape[1:], channels, statistics, rng) for _ in range(shape[0])]).reshape(shape)
    first = channels == -3
    count, height, width = shape[-3:] if first else (shape[-1], shape[-3], shape[-2])
    picture = dead_leaves(rng, count, height, width).reshape(count, -1)
    if statistics is not None and len(statistics.mean) == count:
        # Leaves are grey for the most part: their channels' covariance is undone before the wanted one is put on.
        leaves = np.full((count, count), SHARED) + (1 - SHARED) * np.eye(count)
        mixing = np.linalg.cholesky(statistics.covariance) @ np.linalg.inv(np.linalg.cholesky(leaves))
        picture = (mixing @ picture + statistics.mean[:, None]).astype(np.float32)
    image = picture.reshape(count, height, width)
    return (image if first else image.transpose(1, 2, 0)).reshape(shape)


def _channel_axis(value: Value, axis: int | None) -> int | None:
    """Where a picture's channels are, counted from the end (-3 or -1), or `None` where it is no picture."""
    shape = value.shape
    if shape is None or len(shape) != 4 or axis not in (0, None):
        return None
    for place in (1, 3):
        if shape[place] in _CHANNELS:
            return place - 4
    return None


def _table_rows(value: Value) -> int | None:
    """The rows of the smallest constant table that `value` indexes through Gather."""
    rows: list[int] = []
    seen = {value}
    stack = [value]
    while stack:
        at = stack.pop()
        for user, index in at.uses:
            op = getattr(user, "op", "")
            if op == "Gather" and index == 1:
                table = user.input(0)  # type: ignore[union-attr]
                if table is not None and table.constant is not None and table.constant.shape:
                    rows.append(table.constant.shape[user.get_int("axis", 0)])  # type: ignore[union-attr]
            elif op in _CARRY and index == 0:
                following = user.output  # type: ignore[union-attr]
                if following not in seen:
                    seen.add(following)
                    stack.append(following)
    return min(rows, default=None)


def _open_axes(value: Value, axis: int | None) -> list[tuple[int, str]]:
    """Every axis whose size the model leaves open, besides the batch, with what the model calls that size."""
    shape = value.shape or ()
    return [(i, d or f"{value.name}[{i}]") for i, d in enumerate(shape) if not isinstance(d, int) and i != axis]


def _row_shape(value: Value, axis: int | None, sizes: Mapping[str, int]) -> tuple[int, ...]:
    by_axis = dict(enumerate(value.shape or ()))
    for i, name in _open_axes(value, axis):
        size = symbol(name, sizes)
        by_axis[i] = size if isinstance(size, int) else sizes[name]
    return tuple(d for i, d in by_axis.items() if isinstance(d, int) and (i != axis or axis is None))


def _sizes(graph: Graph, inputs: tuple[Value, ...], axes: Mapping[str, int | None], seed: int) -> dict[str, int]:
    """A size for every name among the open sizes (`past + 1` has one, `past`), tried until the model runs."""
    choices: dict[str, tuple[int, ...]] = {}
    for value in inputs:
        picture = _channel_axis(value, axes[value.name]) is not None
        for _, name in _open_axes(value, axes[value.name]):
            size = symbol(name)
            for atom in sorted(size.atoms) if isinstance(size, Sym) else ():
                choices.setdefault(atom, _PICTURE_SIZES if picture else _LENGTHS)
    if not choices:
        return {}
    session = Session(graph, threads=1)
    cause: OptcError | None = None
    for attempt in itertools.zip_longest(*choices.values()):
        sizes = {name: size or tried[-1] for (name, tried), size in zip(choices.items(), attempt, strict=True)}
        try:
            session.run(next(Samples(_columns(graph, inputs, axes, sizes, 1, seed), axes).batches(1)))
        except OptcError as error:
            cause = error
            continue
        return sizes
    names = ", ".join(choices)
    raise DataError(
        f"found no sizes for the open dimensions ({names}) at which the model runs; give samples with --data"
    ) from cause
