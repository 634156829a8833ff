"""Text that comes from files, as a terminal may show it.

A control character in a name moves the cursor, recolours the screen, or ends a line of a file that another program
reads (a dependency file, a log). None is needed in a name, so a reader refuses them; text that may hold them
(documentation, what another program has said) is shown with the characters spelled out. Nor does anybody read a reason
of a megabyte: what is shown of one text is bounded.
"""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""ISO 6429's control characters, the separators of lines, and those that turn the direction of text around."""
_BUT_LINES = re.compile(_CONTROL.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))

MOST = 2000
"""Characters that are shown of one text."""


def has_control(text: str) -> bool:
    """Whether a text holds control characters."""
    return _CONTROL.search(text) is not None


def spelled(text: str, *, lines: bool = False) -> str:
    """The text with its control characters as escapes; the ends of lines stay with `lines`."""
    return (_BUT_LINES if lines else _CONTROL).sub(lambda one: one[0].encode("unicode_escape").decode(), text)


def shortened(text: str) -> str:
    """The text, or where it is too long to be read the beginning of it and how much is left out."""
    return text if len(text) <= MOST else f"{text[:MOST]}... ({len(text) - MOST} characters more)"
