"""`optc.toml`: what to build of which models, for which targets.

    passes = "prune,svd,quant"           # keys before the first table hold for every model

    [[model]]
    path = "classifier.onnx"             # paths are relative to the folder of this file
    data = "calib.npz"
    targets = ["onnx"]
    budget = "size=50%,agreement=99%"

    [[model.override]]                   # what some layers want
    match = "head.*"
    keep = true

Every fault is one line with the file and the line: an unknown key with the nearest known one, a value of the wrong
kind, a text that does not parse.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

from ..compiler.model import stem_of
from ..compiler.option import TEXT, declared, listed
from ..compiler.options import Options
from ..errors import OptcError, SpecError, nearest
from ..ir.printable import has_control
from ..passes.base import Override
from ..storage.plain_file import read_text
from .overrides import override

FILE = "optc.toml"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model: `name` is its word on the command line, `output` a folder, or a file that ends in the target's
    suffix or has {name} or {target} in its name."""

    name: str
    path: str
    targets: tuple[str, ...]
    output: str | None
    options: Options

    def artifact(self, target: str) -> str:
        """Where the result for a target goes: beside the model as NAME.TARGET.onnx, or NAME.optc.onnx for one target
        alone; a library as NAME.TARGET, or NAME.optc.TARGET. Never over the model itself."""
        from ..targets import table

        aim = table.parse(target)[0]
        word = re.sub(r"[^\w.=-]+", "-", target).strip("-")
        single = len(self.targets) < 2

        def filled(text: str) -> str:
            return text.replace("{name}", self.name).replace("{target}", word)

        folder, file = os.path.dirname(self.path), ""
        if self.output is not None:
            folder, file = os.path.split(self.output)
            suffix = os.path.splitext(file)[1]
            if not suffix or not (suffix in (".onnx", aim.suffix) or "{name}" in file or "{target}" in file):
                folder, file = self.output, ""  # out/v1.2 is a folder
            folder = filled(folder)
        several = "{name}.{target}" + ("" if aim.folder else aim.suffix)
        name = filled(file or ("{name}.optc" + aim.suffix if single else several))
        while name.endswith(".onnx.onnx"):  # a target and a suffix of one word
            name = name.removesuffix(".onnx")
        place = os.path.join(folder, name)
        return place if place != self.path else f"{os.path.splitext(place)[0]}.optc.onnx"


@dataclass(frozen=True, slots=True)
class Config:
    """The file `path` as it was read; `entries` in its order."""

    path: str
    entries: tuple[ModelEntry, ...]

    @property
    def lock_path(self) -> str:
        return os.path.splitext(self.path)[0] + ".lock"

    def entry(self, name: str) -> ModelEntry:
        """The entry called `name`. Raises `SpecError`."""
        for one in self.entries:
            if one.name == name:
                return one
        raise SpecError(f"{self.path} has no model called '{name}'.{nearest(name, [one.name for one in self.entries])}")

    def of_model(self, model: str) -> ModelEntry | None:
        """The entry that builds the file `model`, if any."""
        for one in self.entries:
            if one.path == model or (not model.startswith("zoo:") and os.path.realpath(model) == one.path):
                return one
        return None


def load(path: str) -> Config:
    """Read a configuration. Raises `SpecError`, in one line that names the file and the line."""
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise SpecError(f"{path}: cannot be read: {why}; write one with: optc init MODEL") from error
    return parse(path, text)


def parse(path: str, text: str) -> Config:
    """The configuration that the file `path` would be with this `text`. Raises `SpecError` as `load` does."""
    return _Reader(path, text).config()


def _texts(value: object) -> Iterator[str]:
    """Every text in a document; its reader bounds how deep it is."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for one in pair for text in _texts(one))
    elif isinstance(value, list):
        yield from (text for one in value for text in _texts(one))


class _Reader:
    def __init__(self, path: str, text: str) -> None:
        self.path = os.path.abspath(path)
        self.shown = path
        self.text = text

    def config(self) -> Config:
        try:
            document = tomllib.loads(self.text)
        except (ValueError, RecursionError) as error:  # of numbers and dates it knows no other
            raise SpecError(f"{self.shown}: is not TOML: {error}") from error
        if any(has_control(text) for text in _texts(document)):
            raise SpecError(f"{self.shown}: a text in it holds a control character")
        models = document.pop("model", [])
        if not isinstance(models, list) or not all(isinstance(one, dict) for one in models):
            self.fail("models are tables of an array: [[model]], with two brackets", ("model",))
        shared = self.keys(document, _SHARED, ())
        if not models:
            raise SpecError(f"{self.shown}: names no model; add a table [[model]] with a path, or run: optc init MODEL")
        entries: list[ModelEntry] = []
        places: set[str] = set()
        for i, model in enumerate(models):
            entries.append(self.entry({**shared, **self.keys(model, _OWN, ("model", i))}, i))
            if any(one.name == entries[-1].name for one in entries[:-1]):
                self.fail(f"two models are called '{entries[-1].name}'; give one of them another name", ("model", i))
            for target in entries[-1].targets:
                place = entries[-1].artifact(target)
                if place in places:
                    where = ("model", i, "output") if "output" in model else ("model", i)
                    self.fail(f"two builds would write {place}; put {{name}} or {{target}} into output", where)
                places.add(place)
        return Config(self.path, tuple(entries))

    def entry(self, section: dict[str, Any], number: int) -> ModelEntry:
        from ..targets import table

        at = ("model", number)
        if "path" not in section:
            self.fail('a model needs a path: path = "model.onnx"', at)
        path = self.place(section.pop("path"))
        name = section.pop("name", None) or stem_of(path)
        targets = section.pop("targets", ("onnx",))
        output = section.pop("output", "." if path.startswith("zoo:") else None)
        overrides = tuple(section.pop("override", ()))
        for key, one in declared(Options).items():
            if one.configured and one.flag in section:
                value = section.pop(one.flag)
                section[key] = self.place(value) if one.kind.path else value
        options = replace(Options(), overrides=overrides, **section)
        self.check(options, targets, at)
        targets = tuple(table.spec(one) for text in targets for one in table.parse(text))
        return ModelEntry(name, path, targets, None if output is None else self.place(output), options)

    def check(self, options: Options, targets: tuple[str, ...], at: tuple[str | int, ...]) -> None:
        """Let every text parse now, rather than in the middle of a build."""
        from ..passes.pipeline import Pipeline
        from ..report.budget import Budget
        from ..targets import table

        checks: list[tuple[str, Callable[[], object]]] = [("passes", lambda: Pipeline.of(options.passes))]
        checks += [("targets", lambda target=target: table.parse(target)) for target in targets]  # type: ignore[misc]
        if isinstance(options.budget, str):
            text = options.budget
            checks.append(("budget", lambda: Budget.parse(text)))
        for key, parse in checks:
            try:
                parse()
            except SpecError as error:
                where = (*at, key) if self.line((*at, key)) else (key,)
                self.fail(str(error).splitlines()[0], where)

    def keys(
        self, table: Mapping[str, Any], readers: Mapping[str, Callable[[Any], Any]], at: tuple[str | int, ...]
    ) -> dict[str, Any]:
        """The values of a table by field, each of its kind."""
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key not in readers:
                self.fail(f"there is no key '{key}' here.{nearest(key, readers)}", (*at, key))
            try:
                if key == "override":
                    values[key] = [self.override(one, (*at, key, i)) for i, one in enumerate(_tables(value))]
                else:
                    values[key] = readers[key](value)
            except ValueError as error:
                self.fail(f"'{key}' takes {error}, not {_shown(value)}", (*at, key))
        return values

    def override(self, section: Mapping[str, Any], at: tuple[str | int, ...]) -> Override:
        for key in section:
            if key not in ("match", "op", "keep", "passes"):
                self.fail(f"there is no key '{key}' here.{nearest(key, ('match', 'op', 'keep', 'passes'))}", (*at, key))
        try:
            return override(section)
        except OptcError as error:
            self.fail(str(error).splitlines()[0], at)

    def place(self, path: str) -> str:
        """A path relative to the folder of the file, as an absolute one."""
        if path.startswith("zoo:"):
            return path
        return os.path.realpath(os.path.join(os.path.dirname(self.path), os.path.expanduser(path)))

    def fail(self, message: str, at: tuple[str | int, ...]) -> NoReturn:
        line = self.line(at)
        raise SpecError(f"{self.shown}{f':{line}' if line else ''}: {message}")

    def line(self, at: tuple[str | int, ...]) -> int | None:
        """The line of a key or table: `("model", 1, "passes")`; the parser of the standard library does not tell."""
        here: dict[tuple[str | int, ...], int] = {}
        for number, place in _places(self.text):
            here.setdefault(place, number)
        return here.get(at)


def _places(text: str) -> Iterator[tuple[int, tuple[str | int, ...]]]:
    """(line, place) of every table header and key that begins a line."""
    table: tuple[str | int, ...] = ()
    counts: dict[tuple[str | int, ...], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = ()
            words = [word.strip().strip("\"'") for word in header[2].split(".")]
            for i, word in enumerate(words):
                table = (*table, word)
                if i == len(words) - 1 and header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                if table in counts:
                    table = (*table, counts[table])
            yield number, table
        elif key := _KEY.match(line):
            yield number, (*table, key[1].strip("\"'"))


_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"\s*([\w-]+|\"[^\"]*\"|'[^']*')\s*[.=]")


def _shown(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else "a table" if isinstance(value, dict) else str(value).lower()


def _tables(value: object) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError("tables: [[model.override]]")
    return value


def _keys(*, shared: bool) -> dict[str, Callable[[Any], Any]]:
    """What makes the value of each key: those that stand before the first table too, or of all in a table of one."""
    return {
        one.flag: one.kind.read for one in declared(Options).values() if one.configured and (one.shared or not shared)
    }


_SHARED = {**_keys(shared=True), "targets": listed, "output": TEXT.read}
_OWN = {**_keys(shared=False), **_SHARED, "path": TEXT.read, "name": TEXT.read, "override": _tables}
