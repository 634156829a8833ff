"""An option is declared once: Python, the command line and a configuration all take it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import optc
from optc.cli.compile import compile_model
from optc.compiler.option import declared
from optc.compiler.options import Options
from optc.errors import SpecError
from optc.project.config import load

OPTIONS = declared(Options)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_door_takes_an_option(name: str) -> None:
    one = OPTIONS[name]
    assert one.help
    assert name in inspect.signature(optc.compile).parameters
    typed = inspect.signature(compile_model).parameters
    assert (one.flag.replace("-", "_") in typed) == bool(one.flag)
    if one.flag:
        assert typed[one.flag.replace("-", "_")].default is None, "what is not typed leaves the configuration its say"


def test_what_a_first_configuration_offers_is_the_default_or_a_value_of_the_kind(tmp_path: Path) -> None:
    offered = [one for one in OPTIONS.values() if one.example]
    assert len(offered) >= 7
    lines = "".join(f"{one.flag} = {one.example}\n" for one in offered)
    (tmp_path / "optc.toml").write_text(lines + '[[model]]\npath = "zoo:digits_dscnn"\n')
    options = load(str(tmp_path / "optc.toml")).entries[0].options
    for one in offered:
        assert getattr(options, one.name) is not None


def test_how_samples_are_read_is_said_once() -> None:
    read = optc.Data("folder", mean=0.5)
    assert Options(data=read).source is read
    with pytest.raises(SpecError, match="'std' belongs into 'data'"):
        _ = Options(data=read, std=2.0).source
    assert Options(data="folder", mean=(1.0, 2.0, 3.0), samples=7).source == optc.Data(
        "folder", mean=(1.0, 2.0, 3.0), limit=7
    )


def test_an_execution_provider_that_is_not_installed_is_one_line() -> None:
    with pytest.raises(SpecError, match=r"^ONNX Runtime has no execution provider 'nonsense' here; installed.*cpu"):
        optc.compile("zoo:digits_dscnn", "distill", provider="nonsense")
