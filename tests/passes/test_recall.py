"""What the clock said before is taken as an answer only where it is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from optc.errors import LockError
from optc.passes.base import TargetFacts
from optc.passes.cached import PassCache, Ruling
from optc.passes.recall import count, positive, ratio, ratios, texts
from optc.storage.store import Store

NESTED = "[" * 100_000


@pytest.mark.parametrize(
    ("read", "text", "answer"),
    [(ratio, "0.5", 0.5), (count, "0", 0), (positive, "7", 7), (ratios(2), "[1, 0.5]", [1.0, 0.5]), (texts, "{}", {})],
)
def test_answers(read: Callable[[str], object], text: str, answer: object) -> None:
    assert read(text) == answer


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((ratio, text) for text in ("", "fast", "nan", "inf", "-1", "\0")),
        *((count, text) for text in ("", "-1", "1.5", "9" * 5000, str(1 << 63))),
        (positive, "0"),
        *((ratios(2), text) for text in ("", "[1]", "[1, 2, 3]", '[1, "2"]', "{}", "[1, NaN]", "[1, -1]", NESTED)),
        *((texts, text) for text in ("", "[]", '{"a": 1}', NESTED)),
    ],
)
def test_what_is_no_answer(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError):
        read(text)


def test_a_lock_that_answers_nonsense_is_refused_by_name() -> None:
    cache = PassCache(None, locked={"key": Ruling("as ever"), "other": Ruling("0.25")})
    with pytest.raises(LockError, match="'as ever' for the time of a layer"):
        cache.recalled("key", "time of a layer", lambda: "1.0", ratio)
    assert cache.recalled("other", "time of a layer", lambda: "1.0", ratio) == 0.25
    assert cache.recalled("third", "time of a layer", lambda: "1.0", ratio) == 1.0


def test_what_the_cache_cannot_mean_is_measured_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    cache = PassCache(store)
    facts = TargetFacts("test")
    assert cache.measured(facts, 1, "time", lambda: "0.5", ratio) == "0.5"
    assert cache.measured(facts, 1, "time", lambda: "0.6", ratio) == "0.5"
    for text in (b"soon", b"\xff"):
        (record,) = (path for path in (tmp_path / "records").rglob("*") if path.is_file())
        store.put(record.name, text)
        assert cache.measured(facts, 1, "time", lambda: "0.7", ratio) == "0.7"
