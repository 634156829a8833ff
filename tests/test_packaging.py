"""The wheel holds what the tree holds, and `import optc` stays light."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import optc
from optc.passes.table import TABLE

ROOT = Path(__file__).parents[1]
SKIPPED = {"tests", "benchmarks", "docs", "examples", "build", "dist"}
HEAVY = ("numpy", "onnx", "onnxruntime", "onnx_graphsurgeon", "scipy", "networkx", "rich", "cyclopts", "ml_dtypes")
"""What `import optc` must not import: each of them costs more than all of `optc`."""
RUNTIMES = tuple(name for name in HEAVY if name not in ("numpy", "ml_dtypes"))


def settings() -> dict[str, dict[str, object]]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        document: dict[str, dict[str, object]] = tomllib.load(file)
    return document


def modules() -> list[Path]:
    """The folders that hold Python files of the package, from its root."""
    folders = {path.relative_to(ROOT).parent for path in ROOT.rglob("*.py")}
    return sorted(f for f in folders if not f.parts or (f.parts[0] not in SKIPPED and not f.parts[0].startswith(".")))


def test_every_folder_with_modules_is_listed_and_is_a_package() -> None:
    listed = settings()["tool"]["setuptools"]["packages"]  # type: ignore[index]
    assert sorted(listed) == [".".join(("optc", *folder.parts)) for folder in modules()]
    for folder in modules():
        assert (ROOT / folder / "__init__.py").is_file(), f"{folder} has no __init__.py"


def test_files_that_are_not_python_are_listed() -> None:
    patterns = settings()["tool"]["setuptools"]["package-data"]  # type: ignore[index]
    for folder in modules():
        if not folder.parts:
            continue
        allowed = patterns.get(".".join(("optc", *folder.parts)), [])
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            mine = path.is_file() and path.suffix not in (".py", ".pyc") and path.parent == ROOT / folder
            data = path.is_file() and inside.parts[0] == "data"
            if mine or data:
                assert any(fnmatch(inside.as_posix(), pattern) for pattern in allowed), f"{path} is in no package-data"
    assert (ROOT / "py.typed").is_file()
    assert patterns["optc"] == ["py.typed"]


def test_the_version_is_one() -> None:
    assert settings()["project"]["version"] == optc.__version__


def test_every_public_name_is_there() -> None:
    for name in optc.__all__:
        assert getattr(optc, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        optc.nothing  # noqa: B018


def brought_in(code: str, heavy: tuple[str, ...]) -> str:
    """Which of the `heavy` modules a new process holds after `code`."""
    code += f"; import sys; print(*[name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_import_brings_in_nothing_heavy() -> None:
    assert brought_in("import optc", HEAVY) == ""
    assert brought_in("import onnx", ("numpy",)) == "numpy"


@pytest.mark.parametrize("name", TABLE)
def test_looking_at_a_pass_brings_in_no_runtime(name: str) -> None:
    """`optc passes` imports every pass to list its options."""
    assert brought_in(f"from optc.passes.table import find; find({name!r})", RUNTIMES) == ""


def test_the_citation_names_this_version() -> None:
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    citation = (root / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
