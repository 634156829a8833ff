"""What a model costs an application that starts."""

from __future__ import annotations

import pytest

from optc.errors import TargetError
from optc.models import zoo
from optc.runtime.first_run import first_run


def test_the_first_answer_takes_longer_than_those_after_it() -> None:
    feeds = {name: array[:1] for name, array in zoo.samples("digits_dscnn", "test").items()}
    start = first_run(zoo.load("digits_dscnn"), feeds, threads=1)
    assert start.seconds > start.p50 > 0
    assert start.p90 >= start.p50
    assert start.memory >= 0


def test_a_model_that_does_not_run_says_so() -> None:
    with pytest.raises(TargetError):
        first_run(zoo.load("digits_dscnn"), {}, threads=1)
