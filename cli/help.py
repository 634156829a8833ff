"""The help of a command, out of its docstring: descriptions as paragraphs, and the examples at the end."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable

_EXAMPLES = "\nExamples\n--------\n"


def examples(command: Callable[..., int]) -> str:
    """What its docstring gives as examples; empty where there is none."""
    text = (inspect.getdoc(command) or "").partition(_EXAMPLES)[2].rstrip()
    return f"Examples:\n{textwrap.indent(textwrap.dedent(text), '    ')}" if text else ""


def unfold(command: Callable[..., int]) -> None:
    """Make every description in the docstring one line, which the terminal breaks as it is wide; the examples, which
    stand at the end of the help, are left out."""
    text = (inspect.getdoc(command) or "").partition(_EXAMPLES)[0].rstrip()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("    ") and lines and lines[-1].startswith("    "):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    command.__doc__ = "\n".join(lines)
