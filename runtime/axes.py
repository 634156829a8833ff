"""Which axis of a graph input counts samples.

Nothing in ONNX marks the batch, so it is read from the names and places of the dynamic dimensions:

1. a dimension whose symbol is a usual name of the batch (`batch`, `batch_size`, `bs`, …) is the batch, wherever it
   stands; `N` and `B`, which may be points or bands as well, where they lead in some input, or stand behind a first
   dimension that is open (`[T, N, 80]`), or that is not 1 where another input has them, too (`[50, N, 80]`);
2. else the first dimension, where it is dynamic: its symbol, if it has one, is the batch in every other input too. Not
   one that is called a length (`T`, `seq_len`, `num_nodes`, …).

An input without such a dimension has no batch axis: every sample of it is one whole tensor of the graph's shape, and
models with such inputs are fed one sample at a time, unless the arrays tell of an axis that has no name (`axes_of`).
Where every array has one axis more than its input, its rows are whole tensors, too, whatever the names (`axes_of`). So
are arrays that are fed together with first dimensions that differ: nodes and edges, words and letters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from ..errors import DataError
from ..ir.graph import Graph, Value
from ..ir.types import TensorType

_BATCH_NAME = re.compile(r"bs|.*batch.*", re.IGNORECASE)
_SHORT_NAME = re.compile(r"n|b", re.IGNORECASE)
_LENGTH_NAME = re.compile(r"t|l|.*(seq|time|len|frame|node|point|token).*", re.IGNORECASE)


def fed_inputs(graph: Graph) -> tuple[Value, ...]:
    """The inputs that samples must give: those without a default.

    Raises `DataError` where one of them is not a tensor of known element type.
    """
    inputs = tuple(value for value in graph.inputs if value.default is None)
    for value in inputs:
        if not isinstance(value.type, TensorType):
            raise DataError(f"input '{value.name}' is not a tensor; only tensors can be fed from samples")
    return inputs


def batch_axes(graph: Graph) -> dict[str, int | None]:
    """Input name -> the axis that counts samples, or `None`; see the rules above."""
    inputs = fed_inputs(graph)
    symbols = {d for v in inputs for d in v.shape or () if isinstance(d, str) and _names_batch(d, inputs)}
    if not symbols:
        leading = {v.shape[0] for v in inputs if v.shape and isinstance(v.shape[0], str)}
        symbols = {d for d in leading if not _LENGTH_NAME.fullmatch(d)}
    axes = {value.name: _axis(value, symbols) for value in inputs}
    if all(axis is None for axis in axes.values()):
        axes.update((v.name, 0) for v in inputs if v.shape is None or v.shape[:1] == (None,))
    return axes


def axes_of(
    axes: Mapping[str, int | None],
    inputs: Sequence[Value],
    shapes: Mapping[str, Sequence[tuple[int, ...]]],
    *,
    one: bool,
) -> dict[str, int | None]:
    """`axes` (those of `batch_axes`) once arrays of `shapes`, by input, are there to tell; `one` where an input has one
    array for all of its samples.

    A length that leads every input counts the samples of such arrays: nothing else is there to count them.
    """
    ranked = [value for value in inputs if value.shape is not None]
    arrays = [(value.shape or (), axes[value.name], array) for value in ranked for array in shapes[value.name]]
    more = {len(array) - len(shape) for shape, _, array in arrays}
    if more == {1} and any(axis is not None and array[axis + 1] != 1 for _, axis, array in arrays):
        return dict.fromkeys(axes)
    leading = {shape[0] if shape else None for shape, _, _ in arrays}
    if one and more == {0} and len(leading) == 1 and all(axis is None for axis in axes.values()):
        return dict.fromkeys(axes, 0 if isinstance(leading.pop(), str) else None)
    counts = {array[axis] for _, axis, array in arrays if axis is not None and axis < len(array)}
    if not one:
        sets = zip(*(shapes[value.name] for value in inputs), strict=False)
        return next((whole for each in sets if (whole := axes_of_feed(axes, inputs, each)) != dict(axes)), dict(axes))
    return {value.name: _open_axis(value, axes[value.name], shapes[value.name], counts) for value in inputs}


def axes_of_feed(
    axes: Mapping[str, int | None], inputs: Sequence[Value], shapes: Sequence[tuple[int, ...]]
) -> dict[str, int | None]:
    """`axes` once one array of each input, in order, is there to tell, which are fed together: first dimensions without
    a usual name of the batch count no samples where they differ, and the arrays are one sample as they are."""
    counted = [(value, axes[value.name], array) for value, array in zip(inputs, shapes, strict=True)]
    if any(len(value.shape or ()) != len(array) for value, _, array in counted):
        return dict(axes)
    firsts = [(value, array[axis]) for value, axis, array in counted if axis is not None]
    named = any(isinstance(d, str) and _BATCH_NAME.fullmatch(d) for value, _ in firsts for d in value.shape or ())
    return dict(axes) if named or len({size for _, size in firsts}) < 2 else dict.fromkeys(axes)


def _open_axis(
    value: Value, axis: int | None, arrays: Sequence[tuple[int, ...]], counts: Collection[int]
) -> int | None:
    """The axis of an input, the states of recurrent cells mostly, whose samples stand behind a fixed first dimension
    and have no name: its one open dimension, where its array has as many there as the arrays of other inputs have
    samples."""
    shape = value.shape or ()
    open_axes = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    if axis is not None or len(open_axes) != 1 or shape[open_axes[0]] is not None or len(counts) != 1 or 1 in counts:
        return axis
    alike = all(len(array) == len(shape) and array[open_axes[0]] in counts for array in arrays)
    return open_axes[0] if alike else None


def _names_batch(name: str, inputs: Sequence[Value]) -> bool:
    if _BATCH_NAME.fullmatch(name):
        return True
    if not _SHORT_NAME.fullmatch(name):
        return False
    firsts = [value.shape[0] for value in inputs if value.shape and name in value.shape]
    return any(first == name or not isinstance(first, int) or (first != 1 and len(firsts) > 1) for first in firsts)


def _axis(value: Value, symbols: Collection[object]) -> int | None:
    if value.shape is None:
        return None
    for axis, dim in enumerate(value.shape):
        if dim in symbols:
            return axis
    # An unnamed dimension that leads is the batch of a model that names none of its dimensions here.
    return 0 if value.shape and value.shape[0] is None else None
