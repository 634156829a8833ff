"""Reading the text of a graph word by word."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from ...errors import ModelError

WORD = re.compile(r"[A-Za-z_/](?:[\w./$]|::|-(?!>))*", re.ASCII)
"""A name that needs no quotes."""

_T = TypeVar("_T")
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_STRING = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"')
_WHOLE = re.compile(r"-?\d+")


class Scanner:
    """A text and the place in it, always at the start of a word or at the end.

    What takes a word raises `ModelError`, with the line and a caret under the place, where another one stands.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._skip()

    def ahead(self) -> str:
        """The character that comes next; a NUL at the end."""
        return self.text[self.at] if self.at < len(self.text) else "\0"

    def word_ahead(self) -> str:
        """The word that comes next, `""` where none does."""
        match = WORD.match(self.text, self.at)
        return match.group() if match else ""

    def take(self, token: str) -> bool:
        """Step over `token` if it comes next."""
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        self._skip()
        return True

    def expect(self, token: str) -> None:
        if not self.take(token):
            self.fail(f"expected '{token}'")

    def match(self, pattern: re.Pattern[str], expected: str) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            self.fail(f"expected {expected}")
        self.at = match.end()
        self._skip()
        return match.group()

    def word(self) -> str:
        return self.match(WORD, "a name; one that is no plain word is quoted")

    def whole(self) -> int:
        return int(self.match(_WHOLE, "a whole number"))

    def string(self) -> str:
        start = self.at
        try:
            return str(json.loads(self.match(_STRING, '"text"')))
        except json.JSONDecodeError as error:
            self.fail(f"this is no JSON string: {error.msg}", start)

    def octets(self) -> bytes:
        """The bytes of `b"..."`."""
        start = self.at
        self.expect("b")
        try:
            return self.string().encode("latin-1")
        except UnicodeEncodeError:
            self.fail('b"..." holds one character a byte, up to \\u00ff', start)

    def base64(self) -> bytes:
        """The bytes of `base64"..."`."""
        start = self.at
        self.expect("base64")
        try:
            return base64.b64decode(self.string(), validate=True)
        except binascii.Error as error:
            self.fail(f"this is no base64: {error}", start)

    def name(self) -> str:
        if self.word_ahead() == "_":
            self.fail("'_' stands for a value left out; a name is needed here")
        return self.value_name()

    def value_name(self) -> str:
        """A name, or `""` for `_`, which stands for a value left out."""
        if self.ahead() == '"':
            return self.string()
        word = self.word()
        return "" if word == "_" else word

    def items(self, item: Callable[[], _T], end: str) -> list[_T]:
        """Items parted by commas, up to and with `end`."""
        items: list[_T] = []
        while not self.take(end):
            if items:
                self.expect(",")
            items.append(item())
        return items

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """`{"key": "value", ...}`"""

        def pair() -> tuple[str, str]:
            key = self.string()
            self.expect(":")
            return key, self.string()

        self.expect("{")
        return tuple(self.items(pair, "}"))

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        """Raise `ModelError` about the place `at`, or where the text is now."""
        at = self.at if at is None else at
        start = self.text.rfind("\n", 0, at) + 1
        stop = self.text.find("\n", at)
        line = self.text[start : len(self.text) if stop < 0 else stop]
        first = max(0, at - start - 60)
        number = self.text.count("\n", 0, at) + 1
        raise ModelError(f"line {number}: {message}\n  {line[first : first + 120]}\n  {' ' * (at - start - first)}^")

    def _skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
