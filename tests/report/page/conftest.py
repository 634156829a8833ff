"""The page that these tests look at."""

from __future__ import annotations

import pytest
from written_page import Written, write_page


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    pytest.importorskip("matplotlib", reason="the page draws its charts with matplotlib (optc[html])")
    return write_page(tmp_path_factory.mktemp("page"))
