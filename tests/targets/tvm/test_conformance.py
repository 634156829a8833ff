"""ONNX's own node tests on `host`: answered rightly or refused by name, a share of them that rotates with the commit.

All of them: `python benchmarks/conformance.py`.
"""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")

SHARES = 6
"""One in so many of the cases is run."""
REACH = 0.85
"""Of them, so many are answered; of all, .88 are."""


def test_each_is_answered_rightly_or_refused_by_name() -> None:
    from conformance import cases, commit, judge

    from optc.targets.tvm.cpu.machines import host

    machine = host("x86-64-v3")
    verdicts = [judge(case, machine) for case in list(cases())[commit() % SHARES :: SHARES]]
    counts = Counter(verdict.kind for verdict in verdicts)
    bad = [verdict for verdict in verdicts if verdict.kind not in ("equal", "refused")]
    assert not bad, bad
    assert counts["equal"] >= REACH * len(verdicts), counts
