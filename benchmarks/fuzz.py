"""Hostile files, made at random from sound ones: no traceback, no hang, bounded memory, nothing touched.

    python benchmarks/fuzz.py --seconds 600 --seed 7

Each case is a folder of its own and one command, run in a forked child. A finding is kept as that folder, with the
words of the command and what it said; the seed makes the same cases again.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attempt import SECONDS, Case, Outcome, attempt
from hostile import KINDS, SLOW

MEMORY = 1 << 30


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
    _load_all()
    wrong = count = 0
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        os.environ |= {"TMPDIR": top, "OPTC_CACHE": "off", "OMP_NUM_THREADS": "1"}
        tempfile.tempdir = None
        while time.monotonic() < end:
            rng = random.Random(f"{seed}/{count}")
            folder = Path(top) / f"case{count}"
            folder.mkdir()
            case = rng.choice(kinds)(folder, rng)
            before = {path.name for path in folder.iterdir()}
            beside = set(Path(top).iterdir())  # a case may keep there what others share
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            outcome = attempt(case.words, folder)
            broken = list(faults(case, before, outcome, size))
            left = sorted(path.name for path in Path(top).iterdir() if path not in beside)
            if left:
                broken.append(f"left in the temporary folder: {left}")
            if broken:
                wrong += 1
                place = keep / f"{seed}-{count}"
                shutil.copytree(folder, place, dirs_exist_ok=True)
                (place / "said.txt").write_text(f"optc {' '.join(case.words)}\n{outcome.said}")
                print(f"{case.kind} {seed}/{count}: {'; '.join(broken)}: {place}", flush=True)
                print(f"  {outcome.said.strip()[-300:]}", flush=True)
            for path in Path(top).iterdir():
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
            count += 1
    print(f"{count} cases of seed {seed}, {wrong} wrong", flush=True)
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "optc-fuzz-findings")
    parser.add_argument("--libraries", action="store_true", help="builds for TVM and devices, each of seconds")
    options = parser.parse_args()
    sys.exit(min(1, fuzz(options.seconds, options.seed, options.keep, SLOW if options.libraries else KINDS)))
