"""Fixtures that any test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

KIT = Path(__file__).parents[2] / "shared" / "kit"


@pytest.fixture(scope="session")
def kit() -> Path:
    """The folder of real models and data, where there is one; skips the test where there is none."""
    if not (KIT / "MANIFEST.md").is_file():
        pytest.skip("the kit of real models is not here")
    return KIT


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what the passes make into tests/golden")
