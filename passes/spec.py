"""Items as text and back: `word:option=value:option=value`, parted by commas, for passes and for targets.

The options of an item are the fields of its dataclass. A value that holds a comma, a colon or a space is quoted. There
are no braces, because a shell would expand them.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import SpecError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """One option of a pass, read from its dataclass field."""

    name: str
    annotation: object
    default: object
    help: str
    low: float | None
    high: float | None
    layer: bool = False

    @property
    def type_text(self) -> str:
        """The type as a user should read it: `float`, `global|layer`, `int|none`."""
        return "|".join(_words(self.annotation))


def options(cls: type[DataclassInstance]) -> tuple[OptionSpec, ...]:
    """The options of a pass or target class, in the order of its fields."""
    hints = typing.get_type_hints(cls)
    return tuple(
        OptionSpec(
            field.name,
            hints[field.name],
            field.default,
            field.metadata.get("help", ""),
            field.metadata.get("low"),
            field.metadata.get("high"),
            field.metadata.get("layer", False),
        )
        for field in dataclasses.fields(cls)
        if field.init
    )


def text_of(name: str, one: DataclassInstance) -> str:
    """The text of one item: its word and the options that differ from their defaults."""
    parts = [name]
    for choice in options(type(one)):
        value = getattr(one, choice.name)
        if value != choice.default:
            parts.append(f"{choice.name.replace('_', '-')}={_quote(_format(value))}")
    return ":".join(parts)


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    position: int


def items(text: str) -> Iterator[list[Token]]:
    """Split at commas, and each item at colons, outside quotes; every token knows where it stood."""
    item: list[Token] = []
    start, quote, buffer = 0, "", ""
    quoted_at = 0
    for i, char in enumerate(text + ","):
        if quote:
            if i == len(text):
                raise SpecError("the quote is never closed", text=text, position=quoted_at)
            if char == quote:
                quote = ""
            else:
                buffer += char
        elif char in "'\"":
            quote, quoted_at = char, i
        elif char in ",:":
            lead = len(buffer) - len(buffer.lstrip())
            item.append(Token(buffer.strip(), start + lead))
            start, buffer = i + 1, ""
            if char == ",":
                if not any(token.text for token in item):
                    if not text.strip():
                        return
                    raise SpecError("a pass is missing here (a stray comma?)", text=text, position=item[0].position)
                yield item
                item = []
        else:
            buffer += char


def options_from(text: str, cls: type[DataclassInstance], item: Sequence[Token]) -> dict[str, object]:
    """The options that the tokens after an item's word set, by field name.

    Raises `SpecError` with a caret under the place of `text` that is wrong.
    """
    word = item[0].text
    choices = {choice.name.replace("_", "-"): choice for choice in options(cls)}
    values: dict[str, object] = {}
    for token in item[1:]:
        key, equals, value = token.text.partition("=")
        key = key.strip().replace("_", "-")
        if key not in choices:
            hint = nearest(key, choices) if choices else f" '{word}' has no options."
            raise SpecError(f"'{word}' has no option '{key}'.{hint}", text=text, position=token.position)
        choice = choices[key]
        at = token.position + len(token.text) - len(value.lstrip())
        if not equals:
            raise SpecError(f"option '{key}' needs a value: {key}={choice.type_text}", text=text, position=at)
        if choice.name in values:
            raise SpecError(f"option '{key}' is given twice", text=text, position=token.position)
        try:
            values[choice.name] = convert(choice, value.strip())
        except ValueError as error:
            raise SpecError(str(error), text=text, position=at) from None
    return values


def convert(choice: OptionSpec, text: str) -> object:
    """The value of an option from its text. Raises `ValueError` saying what was expected."""
    for kind in _alternatives(choice.annotation):
        value = _convert_one(kind, text)
        if value is _NO:
            continue
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        if number is not None and (bounds := _beyond(choice, number)):
            raise ValueError(f"'{choice.name}' must be {bounds}, not {text}")
        return value
    hint = nearest(text, _words(choice.annotation)) if _is_closed(choice.annotation) else ""
    raise ValueError(f"'{choice.name}' takes {choice.type_text}, not '{text}'.{hint}")


def check(name: str, one: DataclassInstance) -> None:
    """Hold the options of a pass or target that was made in Python to what their text is held to.

    Raises `SpecError`.
    """
    for choice in _options_of(type(one)):
        value = getattr(one, choice.name)
        if not any(_is(kind, value) for kind in _alternatives(choice.annotation)):
            hint = nearest(str(value), _words(choice.annotation)) if _is_closed(choice.annotation) else ""
            raise SpecError(f"{name}: '{choice.name}' takes {choice.type_text}, not {value!r}.{hint}")
        if (
            isinstance(value, numbers.Real)
            and not isinstance(value, bool)
            and (bounds := _beyond(choice, float(value)))
        ):
            raise SpecError(f"{name}: '{choice.name}' must be {bounds}, not {value}")


@functools.cache
def _options_of(cls: type[DataclassInstance]) -> tuple[OptionSpec, ...]:
    """The options; none where annotations name what is local to a function, as in a test of somebody else's pass."""
    try:
        return options(cls)
    except NameError:
        return ()


def _is(kind: object, value: object) -> bool:
    """Whether `value` is of a kind that options have; of others nothing is known."""
    if kind is type(None):
        return value is None
    if typing.get_origin(kind) is typing.Literal:
        return any(value == one and type(value) is type(one) for one in typing.get_args(kind))
    if kind is int or kind is float:
        return isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)


def _beyond(choice: OptionSpec, number: float) -> str:
    """The bounds of an option where `number` lies outside of them, else ""."""
    low, high = choice.low, choice.high
    if math.isfinite(number) and (low is None or number >= low) and (high is None or number <= high):
        return ""
    if low is None and high is None:
        return "finite"
    return f"from {low:g}" if high is None else f"up to {high:g}" if low is None else f"{low:g} to {high:g}"


_NO = object()


def _convert_one(kind: object, text: str) -> object:
    if kind is type(None):
        return None if text.lower() == "none" else _NO
    if kind is bool:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower(), _NO)
    if typing.get_origin(kind) is typing.Literal:
        return next((value for value in typing.get_args(kind) if str(value) == text), _NO)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next((member for member in kind if str(member.value) == text), _NO)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return _NO
    return text if kind is str else _NO


def _alternatives(annotation: object) -> tuple[object, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(sorted(typing.get_args(annotation), key=lambda kind: kind is str))
    return (annotation,)


def _words(annotation: object) -> list[str]:
    words: list[str] = []
    for kind in _alternatives(annotation):
        if kind is type(None):
            words.append("none")
        elif kind is bool:
            words += ["true", "false"]
        elif typing.get_origin(kind) is typing.Literal:
            words += [str(value) for value in typing.get_args(kind)]
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            words += [str(member.value) for member in kind]
        else:
            words.append(getattr(kind, "__name__", str(kind)))
    return words


def _is_closed(annotation: object) -> bool:
    return all(kind not in (int, float, str) for kind in _alternatives(annotation))


def _format(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, enum.Enum):
        return str(value.value)
    return repr(value) if isinstance(value, float) else str(value)


def _quote(text: str) -> str:
    if not any(char in text for char in ",: '\"") and text:
        return text
    return f'"{text}"' if '"' not in text else f"'{text}'"
