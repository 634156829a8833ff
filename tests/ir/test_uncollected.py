from __future__ import annotations

import gc

import pytest

from optc.ir.uncollected import uncollected


def fails() -> None:
    with uncollected():
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled(), "the outer one still lets it wait"
        raise ZeroDivisionError


def test_the_collector_waits_and_goes_on_even_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        fails()
    assert gc.isenabled()


def test_who_has_switched_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
