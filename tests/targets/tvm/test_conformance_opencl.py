"""ONNX's own node tests on an OpenCL device: answered rightly or refused by name. One third is meant for it; of that, a
share that rotates with the commit.

All of them: `python benchmarks/conformance.py --target opencl`.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from opencl import need_driver

THIRD, SHARES = 3, 4
REACH = 0.6
"""Of a share, so many are answered; the shares differ by what they hold of numbers of 8 bits and bfloat16."""


def test_each_is_answered_rightly_or_refused_by_name() -> None:
    need_driver()
    from conformance import cases, commit, verdict
    from launched import answers

    verdicts = [verdict(case, answers) for case in list(cases())[::THIRD][commit() % SHARES :: SHARES]]
    counts = Counter(one.kind for one in verdicts)
    # A node that was lowered before is refused as what it became.
    named = [one for one in verdicts if one.kind == "unnamed" and " node '" in one.why]
    bad = [one for one in verdicts if one.kind not in ("equal", "refused") and one not in named]
    assert not bad, bad
    assert counts["equal"] >= REACH * len(verdicts), counts


@pytest.mark.parametrize(("change", "kind"), [(0.0, "equal"), (1.0, "wrong")])
def test_the_judge(change: float, kind: str) -> None:
    from conformance import cases, verdict

    one = next(case for case in cases() if case.name == "test_relu")
    expected = np.asarray(one.answers[0])
    assert verdict(one, lambda model, feeds: [expected + np.float32(change)]).kind == kind
    assert verdict(one, lambda model, feeds: [expected.astype(np.float64)]).kind == "wrong"
    assert verdict(one, lambda model, feeds: [expected[None]]).kind == "wrong"
