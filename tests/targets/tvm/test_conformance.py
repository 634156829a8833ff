"""ONNX's own node tests on `host`: answered rightly or refused by name, a share of them that rotates with the commit.

All of them: `python benchmarks/conformance.py`.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")

SHARES = 6
"""One in so many of the cases is run."""
REACH = 0.85
"""Of them, so many are answered; of all, .88 are."""


def turn() -> int:
    """Which share it is: told by the commit, so that all are run in time and a run can be repeated."""
    here = Path(__file__).parent
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return int(done.stdout[:8] or "0", 16) % SHARES


def test_each_is_answered_rightly_or_refused_by_name() -> None:
    from conformance import cases, judge

    from optc.targets.tvm.cpu.machines import host

    machine = host("x86-64-v3")
    verdicts = [judge(case, machine) for case in list(cases())[turn() :: SHARES]]
    counts = Counter(verdict.kind for verdict in verdicts)
    bad = [verdict for verdict in verdicts if verdict.kind not in ("equal", "refused")]
    assert not bad, bad
    assert counts["equal"] >= REACH * len(verdicts), counts
