"""What a caller of the library gives that is wrong ends in one line of ours, not in that of an inner function."""

from __future__ import annotations

import numpy as np
import pytest

import optc
from optc.errors import DataError

MODEL = "zoo:digits_dscnn"
WRONG: dict[str, tuple[object, str]] = {
    "rows of different sizes": ({"image": [[1.0, 2.0], [3.0]]}, "the samples of 'image' differ in shape"),
    "arrays of different sizes": (
        {"image": [np.zeros((1, 8, 8)), np.zeros((1, 4, 4))]},
        "the samples of 'image' differ in shape",
    ),
    "a number for a name": ({3: np.zeros((4, 1, 8, 8), np.float32)}, "the name of an input is text"),
    "no name": ({None: np.zeros((4, 1, 8, 8), np.float32)}, "the name of an input is text"),
    "bytes": (b"samples", "not bytes"),
    "a number": (3, "samples are a path"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_samples_are_one_line(name: str) -> None:
    data, words = WRONG[name]
    with pytest.raises(DataError, match=words) as caught:
        optc.compile(MODEL, "quant", data=data)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
