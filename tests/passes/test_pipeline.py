"""Pipelines as text and back, and every way to write one wrongly."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar, Literal

import pytest

from optc.errors import SpecError
from optc.ir.graph import Graph
from optc.passes import table
from optc.passes.base import Context, Pass, Report, option
from optc.passes.pipeline import Pipeline, spec
from optc.passes.spec import options


class Kind(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Toy(Pass):
    """A pass with an option of every type."""

    name: ClassVar[str] = "toy"

    ratio: float | None = option(None, "a share", low=0, high=1)
    steps: int = option(3, "a count", low=1)
    fast: bool = option(False, "a switch")
    scope: Literal["global", "layer"] = option("layer", "a choice")
    kind: Kind = option(Kind.RED, "a choice by enum")
    keep_names: str = option("", "free text")

    def run(self, graph: Graph, ctx: Context) -> Report:
        return Report()


class _ToyEntry(EntryPoint):
    """An installed package's entry point, without the package."""

    def load(self) -> type[Pass]:
        return Toy


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = _ToyEntry("toy", "toys:Toy", table.GROUP)
    monkeypatch.setattr(table, "entry_points", lambda group: [entry])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("toy", Toy()),
        ("toy:ratio=0.5", Toy(ratio=0.5)),
        ("toy:ratio=none", Toy()),
        ("toy:ratio=1e-05", Toy(ratio=1e-5)),
        ("toy:steps=7:fast=true", Toy(steps=7, fast=True)),
        ("toy:fast=no", Toy(fast=False)),
        ("toy:scope=global:kind=blue", Toy(scope="global", kind=Kind.BLUE)),
        ("toy:keep-names=conv1", Toy(keep_names="conv1")),
        ("toy:keep_names=conv1", Toy(keep_names="conv1")),
        ('toy:keep-names="a,b:c d"', Toy(keep_names="a,b:c d")),
        (" toy : steps = 4 ", Toy(steps=4)),
    ],
)
def test_text_to_pass_and_back(text: str, expected: Toy) -> None:
    pipeline = Pipeline.parse(text)
    assert pipeline.passes == (expected,)
    assert Pipeline.parse(str(pipeline)) == pipeline


def test_only_what_differs_from_the_default_is_printed() -> None:
    assert spec(Toy(steps=3, fast=True)) == "toy:fast=true"
    assert str(Pipeline((Toy(), Toy(ratio=0.25)))) == "toy,toy:ratio=0.25"


def test_empty_text_is_an_empty_pipeline() -> None:
    assert Pipeline.parse("  ") == Pipeline()


def test_of_takes_every_form() -> None:
    assert Pipeline.of(["toy", Toy(steps=2)]).passes == (Toy(), Toy(steps=2))
    assert Pipeline.of(Toy()).passes == (Toy(),)
    assert Pipeline.of(Pipeline((Toy(),))).passes == (Toy(),)


@pytest.mark.parametrize(
    ("text", "caret", "words"),
    [
        ("toi", 0, "no pass is called 'toi'. Did you mean 'toy'?"),
        ("toy,,toy", 4, "a pass is missing"),
        ("toy,", 4, "a pass is missing"),
        ("toy:step=1", 4, "no option 'step'. Did you mean 'steps'?"),
        ("toy,toy:steps=x", 14, "'steps' takes int, not 'x'"),
        ("toy:steps=0", 10, "'steps' must be from 1, not 0"),
        ("toy:ratio=1.5", 10, "'ratio' must be 0 to 1, not 1.5"),
        ("toy:ratio=nan", 10, "'ratio' must be 0 to 1"),
        ("toy:fast=maybe", 9, "'fast' takes true|false, not 'maybe'"),
        ("toy:scope=globl", 10, "Did you mean 'global'?"),
        ("toy:kind=green", 9, "'kind' takes red|blue"),
        ("toy:steps", 9, "option 'steps' needs a value: steps=int"),
        ("toy:steps=1:steps=2", 12, "given twice"),
        ("toy:keep-names='a", 15, "the quote is never closed"),
        ("pass.py", 7, "needs one function: pass.py:function"),
    ],
)
def test_a_mistake_gets_a_caret_under_it(text: str, caret: int, words: str) -> None:
    with pytest.raises(SpecError) as raised:
        Pipeline.parse(text)
    assert words in str(raised.value)
    assert raised.value.position == caret
    assert str(raised.value).splitlines()[-1] == "  " + " " * caret + "^"


def test_options_come_from_the_fields() -> None:
    by_name = {one.name: one for one in options(Toy)}
    assert list(by_name) == ["ratio", "steps", "fast", "scope", "kind", "keep_names"]
    assert by_name["ratio"].type_text == "float|none"
    assert by_name["scope"].type_text == "global|layer"
    assert by_name["steps"].help == "a count"


@pytest.mark.parametrize("name", table.TABLE)
def test_every_pass_of_ours_is_sound(name: str) -> None:
    cls = table.find(name)
    assert cls.name == name
    assert cls.__doc__
    assert all(one.help for one in options(cls)), "every option has a help text"
    assert Pipeline.parse(name).passes == (cls(),)


def test_another_package_brings_a_pass() -> None:
    assert table.find("toy") is Toy
    assert table.names()[-1] == "toy"


def test_two_packages_may_not_bring_the_same_word(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("clean", "other:Clean", table.GROUP)
    monkeypatch.setattr(table, "entry_points", lambda group: [entry])
    with pytest.raises(SpecError, match="two packages bring a pass called 'clean'"):
        table.names()
