"""Hostile files, made at random from sound ones: no traceback, no hang, bounded memory, nothing touched.

    python benchmarks/fuzz.py --seconds 600 --seed 7 [--models | --libraries]

Each case is a folder of its own and one command, run in a forked child. A finding is kept as that folder, with the
words of the command and what it said; the seed makes the same cases again. `--models` reads and cleans models alone,
thousands in one child, some milliseconds each, by the functions behind the commands.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pkgutil
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attempt import SECONDS, Case, Outcome, attempt, attempts
from hostile import KINDS, SLOW, read_alone

MEMORY = 1 << 30
TOGETHER = 2000
"""Cases of `--models` in one child."""
OWN = frozenset({"case", "findings"})


def faults(case: Case, before: set[str], outcome: Outcome, size: int) -> Iterator[str]:
    """What is wrong with an outcome."""
    if outcome.status not in (0, 2, 3):
        yield f"status {outcome.status}"
    if "Traceback" in outcome.said or "internal error" in outcome.said:
        yield "internal error"
    if outcome.seconds > SECONDS:
        yield f"{outcome.seconds:.0f} s"
    if outcome.memory > 2 * size + MEMORY:
        yield f"{outcome.memory >> 20} MiB"
    if any(ord(one) < 32 and one not in "\n" for one in outcome.said):
        yield "control characters on the terminal"
    if new := {path.name for path in case.folder.iterdir()} - before - case.files:
        yield f"files that nobody asked for: {sorted(new)}"


def _load_all() -> None:
    """Load what commands load, once, before children are forked."""
    import onnxruntime  # noqa: F401
    import rich.table  # noqa: F401

    import optc.cli.app  # noqa: F401

    for word in ("compiler", "passes", "runtime", "report", "project", "ir"):
        package = importlib.import_module(f"optc.{word}")
        for module in pkgutil.walk_packages(package.__path__, f"optc.{word}."):
            importlib.import_module(module.name)


def fuzz(seconds: float, seed: int, keep: Path, kinds: Sequence[Callable[[Path, random.Random], Case]] = KINDS) -> int:
    """Try cases until the time is over; returns how many were wrong, each of which is told and kept."""
    wrong = count = 0
    end = time.monotonic() + seconds
    with _apart() as top:
        while time.monotonic() < end:
            rng = random.Random(f"{seed}/{count}")
            folder = top / f"case{count}"
            folder.mkdir()
            case = rng.choice(kinds)(folder, rng)
            before = {path.name for path in folder.iterdir()}
            beside = set(top.iterdir())  # a case may keep there what others share
            size = _size(folder)
            outcome = attempt(case.words, folder)
            broken = list(faults(case, before, outcome, size))
            left = sorted(path.name for path in top.iterdir() if path not in beside)
            if left:
                broken.append(f"left in the temporary folder: {left}")
            if broken:
                wrong += 1
                print(_kept(case, outcome, broken, keep / f"{seed}-{count}"), flush=True)
            _empty(top)
            count += 1
    print(f"{count} cases of seed {seed}, {wrong} wrong", flush=True)
    return wrong


def fuzz_reading(seconds: float, seed: int, keep: Path) -> int:
    """As `fuzz`, of models that are read, and cleaned where they can be, thousands by one child."""
    wrong = count = 0
    end = time.monotonic() + seconds
    with _apart() as top:
        folder, findings = top / "case", top / "findings"
        folder.mkdir()
        state: dict[str, Any] = {}

        def case(number: int) -> Case:
            _empty(folder)
            one = read_alone(folder, random.Random(f"{seed}/{number}"))
            state["before"], state["size"] = {path.name for path in folder.iterdir()}, _size(folder)
            return one

        def judge(one: Case, number: int, outcome: Outcome) -> bool:
            broken = list(faults(one, state["before"], outcome, state["size"]))
            if left := sorted(path.name for path in top.iterdir() if path.name.partition(".")[0] not in OWN):
                broken.append(f"left in the temporary folder: {left}")
            if broken:
                with findings.open("a") as file:
                    file.write(_kept(one, outcome, broken, keep / f"{seed}-{number}") + "\n")
            return not broken and outcome.memory < MEMORY  # the peak of a process does not fall

        while time.monotonic() < end:
            numbers = (one for one in range(count, count + TOGETHER) if one == count or time.monotonic() < end)
            number, outcome = attempts(_read_and_clean, folder, numbers, case, judge)
            if findings.exists():
                said = findings.read_text()
                wrong += said.count("\n")
                print(said, end="", flush=True)
                findings.unlink()
            if outcome.status:
                wrong += 1
                broken = [f"the process ended with {outcome.status}"]
                one = Case(folder, ["m.onnx"], "model")
                print(_kept(one, outcome, broken, keep / f"{seed}-{number}"), flush=True)
            count = number + 1
    print(f"{count} cases of seed {seed}, {wrong} wrong", flush=True)
    return wrong


def _read_and_clean(words: list[str]) -> int:
    import optc
    from optc.compiler import read

    try:
        read(words[0])
        optc.compile(words[0], "clean", check=False, output="out.onnx")
    except optc.OptcError as error:
        print(error)
        return error.exit_status
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def _apart() -> Iterator[Path]:
    """A temporary folder for all that commands make, which then use one core and no cache."""
    _load_all()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        os.environ |= {"TMPDIR": top, "OPTC_CACHE": "off", "OMP_NUM_THREADS": "1"}
        tempfile.tempdir = None
        yield Path(top)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _kept(case: Case, outcome: Outcome, broken: Sequence[str], place: Path) -> str:
    """Keep a finding at `place`; returns the line that tells it."""
    shutil.copytree(case.folder, place, dirs_exist_ok=True)
    (place / "said.txt").write_text(f"optc {' '.join(case.words)}\n{outcome.said}")
    return f"{case.kind}: {'; '.join(broken)}: {place}: {' '.join(outcome.said.split())[-300:]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "optc-fuzz-findings")
    parser.add_argument("--models", action="store_true", help="models that are read and cleaned alone: many")
    parser.add_argument("--libraries", action="store_true", help="builds for TVM and devices, each of seconds")
    options = parser.parse_args()
    if options.models:
        wrong = fuzz_reading(options.seconds, options.seed, options.keep)
    else:
        wrong = fuzz(options.seconds, options.seed, options.keep, SLOW if options.libraries else KINDS)
    sys.exit(min(1, wrong))
