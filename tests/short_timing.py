"""Latencies that are measured in a tenth of the time, for tests that ask only that they are measured.

As many rounds as tell one model from another that is as fast, of shorter stretches: by default one measurement is the
fastest run of 10 ms, and rounds go on for seconds until the ratio is known to half a percent.

Nor is any layer left float for the time that its integer kernel takes: on a busy machine that may be each layer of a
network, and a test of quantized layers would have none. Tests of this choice bring times of their own.
"""

from __future__ import annotations

import math

import pytest

ROUNDS, STRETCH = 25, 1e-3


def shorten(patch: pytest.MonkeyPatch) -> None:
    from optc.passes.quant import profit
    from optc.runtime import latency

    patch.setattr(latency, "_MOST", ROUNDS)
    patch.setitem(latency.latency.__kwdefaults__, "stretch", STRETCH)
    patch.setattr(profit, "LEAST", math.inf)
