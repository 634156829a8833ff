"""Random models of many operators: answered as ONNX Runtime does, or refused by name.

More of them: `python benchmarks/fuzz_targets.py`.
"""

from __future__ import annotations

import pytest
from opencl import need_driver, need_tvm


@pytest.mark.parametrize("seed", range(6))
def test_on_host(seed: int) -> None:
    need_tvm()
    from random_models import judged, random_model

    assert judged(random_model(seed), "host").kind in ("equal", "refused", "skipped")


@pytest.mark.parametrize("seed", [1000, 1007])
def test_on_opencl(seed: int) -> None:
    need_driver()
    from random_models import judged, random_model

    assert judged(random_model(seed), "opencl").kind in ("equal", "refused", "skipped")
