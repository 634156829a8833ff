"""One option: what it is called, what it takes, and how a value comes out of a command line, a configuration or Python.

Nothing heavy is imported with this file, since the command line is made of it before anything else is known.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import DataError, OptcError, SpecError, expect

PATH_TYPES = (str, os.PathLike)
LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class OptionKind:
    """A kind of value.

    `argument` is the type that the command line hands over, and `parse` makes the option's value of it; `read` makes it
    of what a configuration holds, or raises `ValueError` with what is taken instead. `check` holds a value from Python
    to the kind, by the option's name. `low` and `high` bound a number.
    """

    argument: object
    read: Callable[[Any], object]
    check: Callable[[str, Any], None]
    parse: Callable[[Any, str], object] = lambda value, flag: value
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    several: bool = False
    """Whether it may be given several times."""
    path: bool = False
    """Whether it is a path, which a configuration means from its own folder."""


@dataclass(frozen=True, slots=True)
class DeclaredOption:
    """One option as it is declared: `name` is that of Python, `flag` the word on the command line and in a
    configuration, empty for what only Python can give. `example` is what a first configuration offers."""

    name: str
    default: object
    kind: OptionKind
    help: str
    flag: str
    group: str
    configured: bool
    shared: bool
    example: str


def option(
    default: object,
    kind: OptionKind,
    help: str,
    *,
    group: str = "",
    flag: str | None = None,
    configured: bool = True,
    shared: bool = True,
    example: str = "",
) -> Any:
    """A field that is an option. `flag=""` keeps it to Python, `configured=False` out of configurations, and
    `shared=False` out of what a configuration says of all its models."""
    words = {
        "kind": kind,
        "help": help,
        "group": group,
        "flag": flag,
        "configured": configured and flag != "",
        "shared": shared,
        "example": example,
    }
    return dataclasses.field(default=default, hash=kind.argument in (bool, int, float, str), metadata={"option": words})


def declared(cls: type) -> dict[str, DeclaredOption]:
    """The options of a dataclass by name, in the order of its fields."""
    options: dict[str, DeclaredOption] = {}
    for field in dataclasses.fields(cls):
        words = dict(field.metadata["option"])
        if words["flag"] is None:
            words["flag"] = field.name.replace("_", "-")
        options[field.name] = DeclaredOption(field.name, field.default, **words)
    return options


def is_kind(types: type | tuple[type, ...], words: str, error: type[OptcError], name: str, value: Any) -> None:
    """Raises `error` where `value` is none of `types`; `None` is taken for what is left out."""
    if value is not None:
        expect(value, types, f"'{name}' is {words}", error)


# -- the kinds


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("text")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _check_flag(name: str, value: Any) -> None:
    expect(value, bool, f"'{name}' is True or False", SpecError)


FLAG = OptionKind(bool, _flag, _check_flag)


TEXT = OptionKind(str, _text, partial(is_kind, str, "text", SpecError))


def checked(check: Callable[[str, Any], None], *, path: bool = False) -> OptionKind:
    """Text, or in Python whatever `check` takes."""
    return OptionKind(str, _text, check, path=path)


def path(error: type[OptcError] = SpecError) -> OptionKind:
    return OptionKind(str, _text, partial(is_kind, PATH_TYPES, "a path", error), path=True)


def whole(low: int, high: int = LARGEST, *, optional: bool = False) -> OptionKind:
    """A whole number from `low` to `high`; Python may give more than `high`."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    def check(name: str, value: Any) -> None:
        if value is None and optional:
            return
        expect(value, numbers.Integral, f"'{name}' is a whole number", SpecError)
        if value < low:
            raise SpecError(f"'{name}' is {low} or more, not {value}")

    return OptionKind(int, read, check, low=low, high=high)


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return float(value)


def _check_share(name: str, value: Any) -> None:
    is_kind(numbers.Real, "a share from 0 to 1", SpecError, name, value)
    if value is not None and not 0 <= value <= 1:
        raise SpecError(f"'{name}' is a share from 0 to 1, not {value}")


SHARE = OptionKind(float, _share, _check_share, low=0, high=1)


def choice(*words: str) -> OptionKind:
    expected = f"{', '.join(words[:-1])} or {words[-1]}"

    def read(value: object) -> str:
        if value not in words:
            raise ValueError(expected)
        return str(value)

    def check(name: str, value: Any) -> None:
        if value not in words:
            raise DataError(f"'{name}' is {expected}, not {value!r}")

    return OptionKind(str, read, check, choices=words)


def per_channel(*, positive: bool = False) -> OptionKind:
    """A number, or one a channel; finite, and where `positive` above 0."""
    word = "positive " if positive else ""

    def read(value: object) -> tuple[float, ...]:
        items: list[Any] = value if isinstance(value, list) else [value]
        wrong = any(
            isinstance(one, bool) or not isinstance(one, int | float) or (positive and one <= 0) for one in items
        )
        if wrong or not items:
            raise ValueError(f"a {word}number, or a list of one a channel")
        return tuple(float(one) for one in items)

    def parse(text: str, flag: str) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if not values or not all(map(math.isfinite, values)) or (positive and min(values) <= 0):
            raise SpecError(f"{flag} takes {word}numbers parted by commas, not '{text}'")
        return values

    def check(name: str, value: Any) -> None:
        for one in value if isinstance(value, Collection) and not isinstance(value, str) else (value,):
            is_kind(numbers.Real, "a number, or one a channel", DataError, name, one)

    return OptionKind(str, read, check, parse)


def _size(value: object) -> tuple[int, int]:
    items: list[Any] = value if isinstance(value, list) else [value, value]
    if isinstance(value, str) and (sides := re.fullmatch(r"(\d+)x(\d+)", value)):
        items = [int(sides[1]), int(sides[2])]
    if len(items) != 2 or any(isinstance(one, bool) or not isinstance(one, int) or one < 1 for one in items):
        raise ValueError('a size such as "224x224", 224 or [224, 224]')
    return items[0], items[1]


def _parse_size(text: str, flag: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and (width or height).isdecimal() and int(height) and int(width or height)):
        raise SpecError(f"{flag} takes HEIGHTxWIDTH, such as 224x224, not '{text}'")
    return int(height), int(width or height)


def _check_size(name: str, value: Any) -> None:
    for one in value if isinstance(value, tuple | list) else (value,):
        is_kind(numbers.Integral, "a whole number", DataError, name, one)
        if one is not None and one < 1:
            raise DataError(f"'{name}' is 1 or more, not {one}")


SIZE = OptionKind(str, _size, _check_size, _parse_size)


def _duration(value: object) -> float:
    from ..targets.tuning import duration

    try:
        return duration(str(value))
    except SpecError:
        raise ValueError("a time such as 90s, 10m or 1h") from None


def _parse_duration(text: str, flag: str) -> float:
    from ..targets.tuning import duration

    return duration(text)


DURATION = OptionKind(str, _duration, partial(is_kind, numbers.Real, "a number of seconds", SpecError), _parse_duration)


def _shapes(value: object) -> dict[str, tuple[int, ...]]:
    from .fixed_sizes import parse_shapes

    texts = [value] if isinstance(value, str) else value
    try:
        if isinstance(texts, list) and all(isinstance(one, str) for one in texts):
            return parse_shapes(texts)
    except SpecError:
        pass
    raise ValueError('sizes of inputs such as "input=1x3x224x224", or a list of them')


def _parse_shapes(texts: list[str], flag: str) -> dict[str, tuple[int, ...]]:
    from .fixed_sizes import parse_shapes

    return parse_shapes(texts)


def _check_shapes(name: str, value: Any) -> None:
    is_kind(Mapping, "a mapping from inputs to sizes", SpecError, name, value)
    for one, sizes in (value or {}).items():
        expect(sizes, Collection, f"the shape of '{one}' is several whole numbers", SpecError)
        for size in () if isinstance(sizes, str) else sizes:
            expect(size, numbers.Integral, f"a size of '{one}' is a whole number", SpecError)
        if isinstance(sizes, str) or any(size < 1 for size in sizes):
            raise SpecError(f"the shape of '{one}' is several whole numbers, none below 1, not {sizes!r}")


def _dims(value: object) -> dict[str, int]:
    from .fixed_sizes import parse_dims

    items = value if isinstance(value, dict) else {}
    if not items or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in items.values()):
        try:
            return parse_dims(list(listed(value)))
        except (SpecError, ValueError):
            raise ValueError('sizes such as "T=48", a list of them, or a table { T = 48 }') from None
    return items


def _parse_dims(texts: list[str], flag: str) -> dict[str, int]:
    from .fixed_sizes import parse_dims

    return parse_dims(texts)


def _check_dims(name: str, value: Any) -> None:
    is_kind(Mapping, "a mapping from names of sizes to numbers", SpecError, name, value)
    for one, size in (value or {}).items():
        expect(size, numbers.Integral, f"the size '{one}' is a whole number", SpecError)
        if size < 1:
            raise SpecError(f"the size '{one}' is 1 or more, not {size}")


DIMS = OptionKind(list[str], _dims, _check_dims, _parse_dims, several=True)
SHAPES = OptionKind(list[str], _shapes, _check_shapes, _parse_shapes, several=True)


def listed(value: object) -> tuple[str, ...]:
    """A text, or a list of texts, as a configuration holds them."""
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(one, str) and one for one in items):
        raise ValueError("text, or a list of texts")
    return tuple(items)


def items(check: Callable[[str, Any], None]) -> OptionKind:
    """Texts parted by commas, in a configuration a list of them too."""
    return OptionKind(str, lambda value: ",".join(listed(value)), check)


def only_python(check: Callable[[str, Any], None]) -> OptionKind:
    """What only Python can give: it has no text, and no part in what tells two options apart in a table."""
    return OptionKind(object(), _text, check)
