"""Arrays come back as they were put in, from memory and from files, and files go away."""

from pathlib import Path

import numpy as np
import pytest

from optc.runtime.spill import Spill


def test_beyond_the_limit_arrays_live_in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    arrays = [np.full((10, 10), i, dtype=np.float32) for i in range(5)]
    with Spill(limit=900) as kept:
        for array in arrays:
            kept.append("a", array)
        assert kept.count("a") == 5
        assert len(list(tmp_path.rglob("*.npy"))) == 3
        for i, array in enumerate(arrays):
            np.testing.assert_array_equal(kept.get("a", i), array)
        kept.drop("a")
        assert "a" not in kept
        assert not list(tmp_path.rglob("*.npy"))
        kept.append("b", arrays[0])
        assert not list(tmp_path.rglob("*.npy"))  # dropping made room in memory
    assert not list(tmp_path.iterdir())
