"""Dataclasses as plain values that JSON can hold, and back by their type hints.

Enumerations go by their value, tuples by lists, and mappings have text as keys. A hint that allows several types takes
the first that fits.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping, Sequence

_FLOATS = 1 << 1023
"""Integers below it are floats, too; no figure of ours is larger."""


def plain(value: object) -> object:
    """`value` as JSON's own types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} has no plain form")


def restored(hint: object, value: object) -> typing.Any:
    """What `plain` made `value` of, of the type `hint`. Raises `ValueError` for what is nothing of that type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for choice in arguments:
            try:
                return restored(choice, value)
            except ValueError:
                continue
    elif origin is typing.Literal:
        if value in arguments:
            return value
    elif origin in (list, tuple, Sequence) and isinstance(value, list):
        if origin is tuple and arguments[-1:] != (...,):
            return tuple(restored(item, one) for item, one in zip(arguments, value, strict=True))
        items = [restored(arguments[0], one) for one in value]
        return tuple(items) if origin is tuple else items
    elif origin in (dict, Mapping) and isinstance(value, dict):
        return {restored(arguments[0], key): restored(arguments[1], item) for key, item in value.items()}
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        hints = _hints(hint)
        if value.keys() != hints.keys():
            raise ValueError(f"{hint.__name__} has the fields {', '.join(hints)}, not {', '.join(value)}")
        return hint(**{name: restored(one, value[name]) for name, one in hints.items()})
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    elif type(value) is int and abs(value) >= _FLOATS:
        raise ValueError("an integer is too large")
    elif hint is float and type(value) is int:
        return float(value)
    elif type(value) is hint or (hint is type(None) and value is None) or (hint is object and _is_single(value)):
        return value
    raise ValueError(f"{value!r} is no {hint}")


def _is_single(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


@functools.cache
def _hints(cls: type) -> dict[str, object]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}
