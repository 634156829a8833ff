"""The documentation is true: its Python runs, and its field lists are the report's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from optc.compiler import compile
from optc.report.build import SCHEMA

ROOT = Path(__file__).parents[1]


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def test_the_pass_of_the_guide_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(ROOT / "docs" / "writing-a-pass.md")
    assert len(found) == 2
    module = ModuleType("guide")
    monkeypatch.setitem(sys.modules, "guide", module)
    for block in found:
        exec(block, vars(module))
    assert "Outcome.DONE" in capsys.readouterr().out


def test_every_field_of_the_report_is_documented() -> None:
    text = (ROOT / "docs" / "report.md").read_text()
    document = compile("zoo:digits_dscnn", "quant", threads=1).report.as_dict()
    assert SCHEMA in text
    missing = [key for key in document if f"`{key}`" not in text and key != "schema"]
    missing += [key for key in document["passes"][0] if f"`{key}`" not in text]
    missing += [key for key in document["passes"][1]["layers"][0] if f"`{key}`" not in text]
    missing += [key for key in document["agreement"]["outputs"][0] if f"`{key}`" not in text and key != "name"]
    missing += [key for key in document["latency"] if f"`{key}`" not in text and not key.endswith("_ms")]
    assert not missing


def test_the_commands_of_the_readme_are_marked() -> None:
    text = (ROOT / "README.md").read_text()
    for mark in ("run", "test"):
        assert re.search(rf"<!-- {mark} -->\n```sh\n[^\n]+\n```", text), f"the README names its {mark} command"
