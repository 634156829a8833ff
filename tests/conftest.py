"""Fixtures that any test may ask for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Each worker, and each process that a test starts, has one core: the threads that BLAS would start for matrices of
# these sizes wait for each other longer than they work. Read once, when numpy is imported, so before any test is.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Processes that tests start would else compile all modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A shell starts what it puts into the background with Ctrl-C ignored, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
KIT = Path(__file__).parents[2] / "shared" / "kit"


@pytest.fixture(scope="session")
def kit() -> Path:
    """The folder of real models and data, where there is one; skips the test where there is none."""
    if not (KIT / "MANIFEST.md").is_file():
        pytest.skip("the kit of real models is not here")
    return KIT


@pytest.fixture(autouse=True, scope="session")
def _no_cache() -> Iterator[None]:
    """Tests neither use nor fill the user's cache, nor do the processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTC_CACHE", "off")
        yield


@pytest.fixture(autouse=True, scope="session")
def _short_timing() -> Iterator[None]:
    """Latencies are measured briefly, here and in the processes that `processes` starts."""
    from short_timing import shorten

    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what the passes make into tests/golden")
