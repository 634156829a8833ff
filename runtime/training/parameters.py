"""All parameters of a training as one flat float32 buffer, and what of it may move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ...errors import ModelError
from ...ir.graph import Value
from ...ir.tensor import ArrayTensor
from ...ir.types import DType

Floats = npt.NDArray[np.float32]


class Parameters:
    """The float constants that are trained, each a view of `flat`, one behind another.

    `ties` are groups of constants that hold the same numbers and move together: they share one view. `masks` say, in
    the shape of a constant, where it may move; `keep_zeros` says so for all of them by where they are zero now, which
    keeps pruned weights pruned, whatever their pattern is. `bounds` are the least and the greatest number that a
    constant may hold.

    Raises `ModelError` for a value that is no float32 constant, and for ties that differ.
    """

    def __init__(
        self,
        values: Sequence[Value],
        *,
        ties: Iterable[Sequence[Value]] = (),
        masks: Mapping[Value, npt.NDArray[np.bool_]] | None = None,
        keep_zeros: bool = False,
        bounds: Mapping[Value, tuple[float, float]] | None = None,
    ) -> None:
        self.values = tuple(dict.fromkeys(values))
        arrays = {value: _array(value) for value in self.values}
        self.leader = {value: value for value in self.values}
        """Of each value, the one whose view it shares: itself, or the first of its tie."""
        for first, *others in ties:
            for other in others:
                if not np.array_equal(arrays[first], arrays[other]):
                    raise ModelError(f"'{first.name}' and '{other.name}' are tied and hold different numbers")
                self.leader[other] = self.leader[first]
        self.leaders = tuple(value for value in self.values if self.leader[value] is value)
        self.flat: Floats = np.empty(sum(arrays[value].size for value in self.leaders), np.float32)
        self._place: dict[Value, slice] = {}
        start = 0
        for value in self.leaders:
            self._place[value] = slice(start, start + arrays[value].size)
            self.view(self.flat, value)[...] = arrays[value]
            start += arrays[value].size
        self.free = self._free(arrays, masks or {}, keep_zeros)
        """1 where an element may move and 0 where it may not; `None` where all may."""
        self.bounds = {value: bounds[value] for value in self.leaders if bounds and value in bounds}

    def view(self, flat: Floats, value: Value) -> Floats:
        """The part of a buffer like `flat` that belongs to `value`, in its shape."""
        shape = value.static_shape
        assert shape is not None
        return flat[self._place[self.leader[value]]].reshape(shape)

    def confine(self) -> None:
        """Bring what left its bounds back to them."""
        for value, (low, high) in self.bounds.items():
            view = self.view(self.flat, value)
            np.clip(view, low, high, out=view)

    def write(self, flat: Floats | None = None) -> None:
        """Give each constant the numbers of `flat` (by default the current ones), as a new tensor."""
        source = self.flat if flat is None else flat
        for value in self.values:
            value.constant = ArrayTensor(self.view(source, value).copy())

    def _free(
        self,
        arrays: Mapping[Value, Floats],
        masks: Mapping[Value, npt.NDArray[np.bool_]],
        keep_zeros: bool,
    ) -> Floats | None:
        if not masks and not keep_zeros:
            return None
        free = np.ones_like(self.flat)
        for value in self.values:
            view = self.view(free, value)
            if keep_zeros:
                view *= arrays[value] != 0
            if value in masks:
                view *= masks[value]
        return free


def _array(value: Value) -> Floats:
    data = value.numpy()
    if data is None or value.dtype is not DType.FLOAT:
        raise ModelError(f"'{value.name}' is no float32 constant and cannot be trained")
    return data.astype(np.float32, copy=False)
