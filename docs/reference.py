"""Writes `docs/command-line.md` and `docs/api.md` out of the program itself, each time that the site is built."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from cyclopts import Parameter

import optc
from optc.cli.app import COMMANDS, EXAMPLES
from optc.compiler.option import declared
from optc.compiler.options import Options

DOCS = Path(__file__).parent
CLASSES = ("Build", "BuildReport", "Data", "Samples", "Graph", "Budget", "Context", "Pass", "Report", "Pipeline")
"""What the page of the library describes, besides its functions."""
FUNCTIONS = ("compile", "load", "save", "load_samples")


def command_line() -> str:
    """A section a command, with a table of its options."""
    parts = ["# Command line\n\nOut of the program itself, when the site was built.\n"]
    for word, command in COMMANDS.items():
        about = _about(command)
        examples = "\n".join(line.strip() for line in EXAMPLES[word].splitlines()[1:])
        parts.append(
            f"## optc {word}".rstrip() + f"\n\n{about}\n\n| option | meaning |\n|---|---|\n{_options(command)}"
        )
        if examples:
            parts.append(f"```sh\n{examples}\n```\n")
    return "\n".join(parts)


def _about(command: Any) -> str:
    """What a command does."""
    text = inspect.getdoc(command) or ""
    return text.partition("\nParameters\n")[0].partition("\nExamples\n")[0].strip()


def _options(command: Any) -> str:
    hints = get_type_hints(command, include_extras=True)
    helps = dict(_described(inspect.getdoc(command) or ""))
    rows = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name == "voice":
            continue
        metadata = getattr(hints.get(name), "__metadata__", ())
        own = next((one for one in metadata if isinstance(one, Parameter)), Parameter())
        words = helps.get(name) or own.help or ""
        positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL)
        names = [name.upper()] if positional else list(own.name or ()) or [f"--{name.replace('_', '-')}"]
        shown = ", ".join(f"`{one}`" for one in names)
        rows.append(f"| {shown} | {words.replace('|', chr(92) + '|')} |\n")
    return "".join(rows)


def _described(text: str) -> Iterator[tuple[str, str]]:
    """The parameters of a docstring, each with its description in a line."""
    body = text.partition("Parameters\n----------\n")[2]
    for name, words in re.findall(r"^(\w+)\n((?: {4}.*\n?)+)", body, re.MULTILINE):
        yield name, " ".join(words.split())


def api() -> str:
    """The functions and classes, with their docstrings; the options in a table."""
    parts = ["# Python\n\nOut of the docstrings, when the site was built. All of it is in the package `optc`.\n"]
    for name in FUNCTIONS:
        function = getattr(optc, name)
        signature = "(model, passes, *, …)" if name == "compile" else _plain(str(inspect.signature(function)))
        parts.append(f"## {name}\n\n`optc.{name}{signature}`\n\n{inspect.getdoc(function)}\n")
    parts.append(
        "## Options\n\nThe arguments of `optc.compile`, each declared once.\n\n"
        "| argument | default | meaning |\n|---|---|---|"
    )
    for one in declared(Options).values():
        parts[-1] += f"\n| `{one.name}` | `{one.default!r}` | {one.help} |"
    parts[-1] += "\n"
    for name in CLASSES:
        cls = _class(name)
        parts.append(f"## {name}\n\n{inspect.getdoc(cls)}\n\n{_members(cls)}")
    return "\n".join(parts)


def _class(name: str) -> type:
    if name == "BuildReport":
        from optc.report.build import BuildReport

        return BuildReport
    kind: type = getattr(optc, name)
    return kind


def _members(cls: type) -> str:
    """The public fields, properties and methods, one a line."""
    lines = []
    if dataclasses.is_dataclass(cls):
        fields = [one for one in dataclasses.fields(cls) if not one.name.startswith("_")]
        lines += [f"- `{one.name}: {_plain(str(one.type))}`" for one in fields]
    for name, member in vars(cls).items():
        if name.startswith("_") or not (isinstance(member, property | staticmethod) or inspect.isfunction(member)):
            continue
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        about = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
        signature = "" if isinstance(member, property) else _plain(str(inspect.signature(function)))
        lines.append(f"- `{name}{signature}`" + (f": {about}" if about else ""))
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A signature without the quotes of annotations, and without the instance."""
    return text.replace("'", "").replace("(self, ", "(").replace("(self)", "()")


def main() -> None:
    (DOCS / "command-line.md").write_text(command_line(), encoding="utf-8")
    (DOCS / "api.md").write_text(api(), encoding="utf-8")


if __name__ == "__main__":
    main()
