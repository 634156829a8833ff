"""What can be proved about shapes of which some dimensions are names or unknown."""

from __future__ import annotations

from ...ir.types import Shape


def same(a: Shape | None, b: Shape | None) -> bool:
    """Whether two shapes are provably equal: every dimension the same number, or the same name."""
    return a is not None and b is not None and None not in a and a == b


def fits_into(small: Shape | None, shape: Shape | None) -> bool:
    """Whether broadcasting a value of shape `small` against one of `shape` provably leaves `shape`.

    A single element of rank 0 fits into anything; otherwise the rank must not grow, and every dimension of `small` be 1
    or the same as its counterpart.
    """
    if small is None:
        return False
    if not small:
        return True
    if shape is None or len(small) > len(shape):
        return False
    return all(s == 1 or (s is not None and s == d) for s, d in zip(reversed(small), reversed(shape)))


def channel_axis(shape: tuple[int, ...], rank: int, axis: int) -> int | None:
    """The size along `axis` of a constant of `shape` broadcast into rank `rank`, if all its other sizes are 1.

    1 for a single element; `None` where the constant varies along another axis or has a higher rank.
    """
    if len(shape) > rank:
        return None
    full = (1,) * (rank - len(shape)) + tuple(shape)
    return full[axis] if all(d == 1 for i, d in enumerate(full) if i != axis) else None
