"""A minute of hostile files made at random; the seed that is printed makes the same ones again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


def test_what_is_wrong_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FUZZ.parent)
    from fuzz import Case, Outcome, faults

    case = Case(tmp_path, ["inspect", "m.onnx"], "model")
    assert not list(faults(case, set(), Outcome(2, "optc: m.onnx: no model\n", 1 << 29, 9.0), 100))
    for wrong in (
        Outcome(1, "optc: internal error: ValueError", 0, 0.0),
        Outcome(-11, "", 0, 0.0),
        Outcome(2, "Traceback (most recent call last)", 0, 0.0),
        Outcome(0, "", 0, 11.0),
        Outcome(0, "", (1 << 30) + 300, 0.0),
        Outcome(2, "optc: \x1b[2J", 0, 0.0),
    ):
        assert list(faults(case, set(), wrong, 100))
    (tmp_path / "out.onnx").touch()
    assert not list(faults(case, set(), Outcome(0, "", 0, 0.0), 100))
    (tmp_path / "stray").touch()
    assert list(faults(case, set(), Outcome(0, "", 0, 0.0), 100))


@pytest.mark.slow
def test_a_minute_of_hostile_files(tmp_path: Path) -> None:
    seed = os.environ.get("OPTC_FUZZ_SEED", str(int(time.time())))
    words = [sys.executable, str(FUZZ), "--seconds", "60", "--seed", seed, "--keep", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    print(f"OPTC_FUZZ_SEED={seed}")
    assert done.returncode == 0, f"OPTC_FUZZ_SEED={seed}\n{done.stdout}{done.stderr}"
    assert int(done.stdout.split()[-7] if "cases of seed" in done.stdout else 0) > 0


@pytest.mark.slow
def test_models_alone_by_the_hundred(tmp_path: Path) -> None:
    words = [sys.executable, str(FUZZ), "--models", "--seconds", "5", "--seed", "5", "--keep", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cases of seed 5, 0 wrong" in done.stdout


def test_a_case_that_ends_the_child_of_many_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FUZZ.parent)
    import attempt

    tried = tmp_path / "tried"

    def command(words: list[str]) -> int:
        if words == ["3"]:
            os.kill(os.getpid(), 9)
        return int(words[0])

    def judge(case: attempt.Case, number: int, outcome: attempt.Outcome) -> bool:
        with tried.open("a") as file:
            file.write(f"{number}:{outcome.status} ")
        return number != 8

    folder = tmp_path / "case"
    folder.mkdir()

    def case(number: int) -> attempt.Case:
        return attempt.Case(folder, [str(number)], "model")

    number, outcome = attempt.attempts(command, folder, range(1, 6), case, judge)
    assert (number, outcome.status, tried.read_text()) == (3, -9, "1:1 2:2 ")
    number, outcome = attempt.attempts(command, folder, range(7, 20), case, judge)
    assert (number, outcome.status, tried.read_text()) == (8, 0, "1:1 2:2 7:7 8:8 ")
