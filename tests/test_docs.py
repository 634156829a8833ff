"""The documentation is true: its Python runs, and its field lists are the report's own."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from optc.cli.app import COMMANDS, app
from optc.compiler import compile
from optc.compiler.option import declared
from optc.compiler.options import Options
from optc.ir.onnx.writer import save
from optc.models import zoo
from optc.passes import table as pass_table
from optc.passes.pipeline import Pipeline
from optc.passes.spec import options
from optc.project.config import load as load_config
from optc.report.build import SCHEMA
from optc.targets import table as target_table

ROOT = Path(__file__).parents[1]


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=relative)
def test_the_python_of_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, one after another, in a folder that holds the files its text speaks of."""
    monkeypatch.chdir(tmp_path)
    save(zoo.load("digits_dscnn"), "model.onnx")
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    vars(module)["samples"] = zoo.samples("digits_dscnn", "calib")["input"]
    for block in blocks(page):
        exec(block, vars(module))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("name", ["docs/design.md", "docs/contributing.md"])
def test_what_a_page_names_of_the_house_is_there(name: str) -> None:
    """Files and folders by their paths or names, and classes."""
    folders = [path for path in ROOT.iterdir() if (path / "__init__.py").is_file()]
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    names = {path.stem for path in paths if path.suffix == ".py" or path.is_dir()}
    classes = {c for path in paths if path.suffix == ".py" for c in re.findall(r"^class (\w+)", path.read_text(), re.M)}
    prose = re.sub(r"```.*?```", "", (ROOT / name).read_text(), flags=re.DOTALL)
    for word in re.findall(r"`([\w./]+)`", prose):
        there = (ROOT / word).exists() or any(path.as_posix().endswith(f"/{word.rstrip('/')}") for path in paths)
        if "/" in word or word.endswith(".py") or name == "docs/design.md":
            assert there or word in names | classes, word


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_command_lines_are_understood(page: Path) -> None:
    """What a page tells the reader to type is a command with options that there are."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        for line in re.findall(r"(?:^|&& )optc (.+?)(?= &&|$)", block.replace("\\\n", " "), re.MULTILINE):
            words = shlex.split(line, comments=True)
            if "…" in words or "|" in words:
                continue
            _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
            if "passes" in bound.arguments:
                Pipeline.parse(bound.arguments["passes"])


@pytest.mark.parametrize("name", pass_table.TABLE)
def test_the_page_of_a_pass_names_its_options(name: str) -> None:
    options_named = documented(ROOT / "docs" / "passes" / f"{name}.md")
    assert options_named == {one.name.replace("_", "-") for one in options(pass_table.find(name))}


@pytest.mark.parametrize("name", target_table.TABLE)
def test_the_page_of_a_target_names_its_options(name: str) -> None:
    options_named = documented(ROOT / "docs" / "targets" / f"{name}.md")
    assert options_named == {one.name.replace("_", "-") for one in options(target_table.find(name))}


def documented(page: Path) -> set[str]:
    """The names in the first column of the page's table of options."""
    rows = re.search(r"\| option \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", page.read_text())
    assert rows, f"{page.name} has no table of options"
    return {name for row in rows[1].splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the documentation's extra is not installed: pip install '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "passes" / "quant.html").is_file()
    formulas = (tmp_path / "algorithms.html").read_text()
    assert "<math" in formulas
    for page in tmp_path.rglob("*.html"):
        outside = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]+)"', page.read_text())
        assert outside == [], "a page asks another site for something"


def test_the_reference_is_that_of_the_program() -> None:
    """The pages that the site writes of the command line and of Python."""
    pages = runpy.run_path(str(ROOT / "docs" / "reference.py"))
    line, api = pages["command_line"](), pages["api"]()
    assert line.count("\n## optc") == len(COMMANDS)
    assert line.count("```sh\n") == len(COMMANDS), "every command has examples"
    rows = [row for row in line.splitlines() if row.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == [], "every option says what it means"
    for one in declared(Options).values():
        assert f"| `{one.name}` |" in api
        assert not one.flag or f"`--{one.flag}`" in line
    for name in ("Build", "BuildReport", "Data"):
        assert f"\n## {name}\n" in api
    assert "- `save(path: str | os.PathLike[str])" in api


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


@pytest.mark.parametrize("page", [page for page in PAGES if "[[model]]" in page.read_text()], ids=relative)
def test_configurations_load(page: Path, tmp_path: Path) -> None:
    texts = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    assert texts
    for block in texts:
        (tmp_path / "optc.toml").write_text(block)
        assert load_config(str(tmp_path / "optc.toml")).entries
