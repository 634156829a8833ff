"""A minute of hostile files made at random; the seed that is printed makes the same ones again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


@pytest.mark.slow
def test_a_minute_of_hostile_files(tmp_path: Path) -> None:
    seed = os.environ.get("OPTC_FUZZ_SEED", str(int(time.time())))
    words = [sys.executable, str(FUZZ), "--seconds", "60", "--seed", seed, "--keep", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    print(f"OPTC_FUZZ_SEED={seed}")
    assert done.returncode == 0, f"OPTC_FUZZ_SEED={seed}\n{done.stdout}{done.stderr}"
    assert int(done.stdout.split()[-7] if "cases of seed" in done.stdout else 0) > 0
