"""Latencies that are measured in a tenth of the time, for tests that ask only that they are measured.

As many rounds as tell one model from another that is as fast, of shorter stretches: by default one measurement is the
fastest run of 10 ms, and rounds go on for seconds until the ratio is known to half a percent.
"""

from __future__ import annotations

import pytest

ROUNDS, STRETCH = 25, 1e-3


def shorten(patch: pytest.MonkeyPatch) -> None:
    from optc.runtime import latency

    patch.setattr(latency, "_MOST", ROUNDS)
    patch.setitem(latency.latency.__kwdefaults__, "stretch", STRETCH)
