"""Pipelines as text and back: `prune,svd:ratio=0.5,quant:weights=int4`.

An item is a pass's word and its options, `word:option=value:option=value`, or a user's own function over an
onnx-graphsurgeon graph, `path/to/file.py:function`. Items are parted by commas; a value that holds a comma, a colon or
a space is quoted. There are no braces, because a shell would expand them. `str(pipeline)` parses back to an equal
pipeline and names only the options that differ from their defaults.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import SpecError, nearest
from . import table
from .base import Pass
from .function import FunctionPass


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Passes in the order in which they run."""

    passes: tuple[Pass, ...] = ()

    @staticmethod
    def parse(text: str) -> Pipeline:
        """The pipeline that `text` spells. Raises `SpecError` with a caret under the place that is wrong."""
        return Pipeline(tuple(_parse_pass(text, item) for item in _items(text)))

    @staticmethod
    def of(passes: str | Pipeline | Pass | Sequence[str | Pass]) -> Pipeline:
        """A pipeline from whatever a caller has: text, a pass, several of either, or a pipeline."""
        if isinstance(passes, Pipeline):
            return passes
        if isinstance(passes, Pass):
            return Pipeline((passes,))
        if isinstance(passes, str):
            return Pipeline.parse(passes)
        return Pipeline(tuple(one for item in passes for one in Pipeline.of(item).passes))

    @property
    def lossy(self) -> bool:
        return any(one.lossy for one in self.passes)

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def __str__(self) -> str:
        return ",".join(spec(one) for one in self.passes)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a pass, read from its dataclass field."""

    name: str
    annotation: object
    default: object
    help: str
    low: float | None
    high: float | None

    @property
    def type_text(self) -> str:
        """The type as a user should read it: `float`, `global|layer`, `int|none`."""
        return "|".join(_words(self.annotation))


def options(cls: type[Pass]) -> tuple[Option, ...]:
    """The options of a pass class, in the order of its fields."""
    hints = typing.get_type_hints(cls)
    return tuple(
        Option(
            field.name,
            hints[field.name],
            field.default,
            field.metadata.get("help", ""),
            field.metadata.get("low"),
            field.metadata.get("high"),
        )
        for field in dataclasses.fields(cls)
        if field.init
    )


def spec(one: Pass) -> str:
    """The text of one pass: its word and the options that differ from their defaults."""
    if isinstance(one, FunctionPass):
        return one.spec
    parts = [one.name]
    for choice in options(type(one)):
        value = getattr(one, choice.name)
        if value != choice.default:
            parts.append(f"{choice.name.replace('_', '-')}={_quote(_format(value))}")
    return ":".join(parts)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    position: int


def _items(text: str) -> Iterator[list[_Token]]:
    """Split at commas, and each item at colons, outside quotes; every token knows where it stood."""
    item: list[_Token] = []
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
            item.append(_Token(buffer.strip(), start + lead))
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


def _parse_pass(text: str, item: list[_Token]) -> Pass:
    head, *rest = item
    if head.text.endswith(".py"):
        if len(rest) != 1 or not rest[0].text.isidentifier():
            at = rest[0].position if rest else head.position + len(head.text)
            raise SpecError(f"'{head.text}' needs one function: {head.text}:function", text=text, position=at)
        return FunctionPass(head.text, rest[0].text)
    cls = table.find(head.text, text=text, position=head.position)
    known = {choice.name.replace("_", "-"): choice for choice in options(cls)}
    given: dict[str, object] = {}
    for token in rest:
        key, equals, value = token.text.partition("=")
        key = key.strip().replace("_", "-")
        if key not in known:
            hint = nearest(key, known) if known else f" '{cls.name}' has no options."
            raise SpecError(f"'{cls.name}' has no option '{key}'.{hint}", text=text, position=token.position)
        choice = known[key]
        at = token.position + len(token.text) - len(value.lstrip())
        if not equals:
            raise SpecError(f"option '{key}' needs a value: {key}={choice.type_text}", text=text, position=at)
        if choice.name in given:
            raise SpecError(f"option '{key}' is given twice", text=text, position=token.position)
        try:
            given[choice.name] = convert(choice, value.strip())
        except ValueError as error:
            raise SpecError(str(error), text=text, position=at) from None
    return cls(**given)


def convert(choice: Option, text: str) -> object:
    """The value of an option from its text. Raises `ValueError` saying what was expected."""
    for kind in _alternatives(choice.annotation):
        found = _convert_one(kind, text)
        if found is _NO:
            continue
        if isinstance(found, int | float) and not isinstance(found, bool):
            low, high = choice.low, choice.high
            if not math.isfinite(found) or (low is not None and found < low) or (high is not None and found > high):
                bounds = (
                    f"from {low:g}" if high is None else f"up to {high:g}" if low is None else f"{low:g} to {high:g}"
                )
                raise ValueError(f"'{choice.name}' must be {bounds}, not {text}")
        return found
    hint = nearest(text, _words(choice.annotation)) if _is_closed(choice.annotation) else ""
    raise ValueError(f"'{choice.name}' takes {choice.type_text}, not '{text}'.{hint}")


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
