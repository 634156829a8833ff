"""From an array as somebody stored it to samples first.

For an input of rank r with a batch axis, an array of rank r is stacked samples first or along the graph's own batch
axis; of rank r + 1, each sample kept a batch of one; of rank r - 1, it is a single sample. For an input without a batch
axis, rows are whole tensors: an array of rank r + 1 stacks them, and one of rank r is a single tensor, or several laid
end to end along the first axis (n images for a graph that takes exactly one).
"""

from __future__ import annotations

from ..errors import DataError
from ..ir.graph import Value
from ..ir.types import Dim, DType, Shape
from .columns import Array, castable


def samples_first(value: Value, axis: int | None, array: Array, where: str) -> Array:
    """A view of `array` with samples on axis 0 and each row of the shape that the graph takes, batch axis left out.

    Raises `DataError` where element type or shape does not fit the input `value`; `where` names the array.
    """
    check_dtype(value, array, where)
    shape = value.shape
    if shape is None:
        return array
    for candidate in _readings(array, shape, axis):
        row = shape if axis is None else shape[:axis] + shape[axis + 1 :]
        if fits(candidate.shape[1:], row):
            return candidate
    raise DataError(f"{where}: shape {list(array.shape)} does not fit input '{value.name}' {_show(shape, axis)}")


def check_dtype(value: Value, array: Array, where: str) -> None:
    """Raises `DataError` where `array` may not be fed to `value`."""
    want = value.dtype
    if want is None or want is DType.STRING or castable(array.dtype, want.numpy):
        return
    hint = ", scaled as the model was trained" if want.is_float else ""
    raise DataError(
        f"{where}: element type {array.dtype} cannot be fed to input '{value.name}', which takes {want.text}; "
        f"convert it to {want.text}{hint}"
    )


def fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    """Whether every dimension that `wanted` fixes has that size."""
    return len(shape) == len(wanted) and all(
        not isinstance(w, int) or w == s for s, w in zip(shape, wanted, strict=True)
    )


def _readings(array: Array, shape: Shape, axis: int | None) -> list[Array]:
    """The ways to read `array` as stacked rows, the likeliest first."""
    extra = array.ndim - len(shape)
    if axis is None:
        if extra == 1:
            return [array]
        whole = [array[None]] if extra == 0 else []
        length = shape[0] if extra == 0 and shape else None
        if isinstance(length, int) and length and len(array) >= length and array.shape[1:]:
            count = len(array) // length
            whole.append(array[: count * length].reshape(count, length, *array.shape[1:]))
        return whole
    if extra == 1 and array.shape[axis + 1] == 1:
        return [array.squeeze(axis + 1)]
    if extra == -1:
        return [array[None]]
    if extra == 0:
        graphs = _move(array, axis)
        # `[n, 2, 128]` and `[2, n, 128]` are told apart by the fixed sizes; where both fit, the longer axis counts.
        return [graphs, array] if array.shape[axis] >= len(array) else [array, graphs]
    return []


def _move(array: Array, axis: int) -> Array:
    return array.transpose(axis, *(i for i in range(array.ndim) if i != axis))


def _show(shape: Shape, axis: int | None) -> str:
    def name(i: int, dim: Dim) -> str:
        return str(dim) if isinstance(dim, int) else str(dim or ("batch" if i == axis else "any"))

    taken = f"[{', '.join(name(i, d) for i, d in enumerate(shape))}]"
    if axis is None:
        return f"{taken}; stack samples as [samples, {taken[1:]}"
    return f"{taken}; stack samples along axis {axis}"
