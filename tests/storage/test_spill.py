"""Arrays come back as they were put in, from memory and from files, and files go away."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from optc.storage.spill import SMALL, Spill


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optc.storage.spill.SMALL", -1)


def _stored(folder: Path) -> int:
    """Bytes in files under `folder`, but for those that say whose a workspace is."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != ".owner")


def test_beyond_the_limit_arrays_live_in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    arrays = [np.full((10, 10), i, dtype=np.float32) for i in range(5)]
    with Spill(limit=900) as kept:
        for array in arrays:
            kept.append("a", array)
        assert kept.count("a") == 5
        assert _stored(tmp_path) == 3 * 400
        for i, array in enumerate(arrays):
            np.testing.assert_array_equal(kept.get("a", i), array)
        kept.drop("a")
        assert "a" not in kept
        assert _stored(tmp_path) == 0
        kept.append("b", arrays[0])
        assert _stored(tmp_path) == 0  # dropping made room in memory
    assert not list(tmp_path.iterdir())


def test_files_keep_element_type_and_shape() -> None:
    arrays = [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.arange(4).astype(ml_dtypes.bfloat16),
        np.zeros((3, 0), dtype=np.int64),
        np.array(7, dtype=np.int8),
        np.array([["a", "bc"]], dtype=object),
    ]
    with Spill(limit=-1) as kept:
        for array in arrays:
            kept.append("mixed", array)
        for i, array in enumerate(arrays):
            kept_array = kept.get("mixed", i)
            assert kept_array.dtype == array.dtype
            np.testing.assert_array_equal(kept_array, array)


def test_what_a_file_would_cost_more_than_stays_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("optc.storage.spill.SMALL", SMALL)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Spill(limit=0) as kept:
        kept.append("a", np.zeros(SMALL, np.int8))
        assert _stored(tmp_path) == 0
        kept.append("a", np.zeros(SMALL + 1, np.int8))
        assert _stored(tmp_path) == SMALL + 1
