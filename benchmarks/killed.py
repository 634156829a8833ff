"""Builds that are killed, filled up and crowded: the next one equals one that nobody disturbed.

    python benchmarks/killed.py --moments 200 --seed 7

Each moment starts a build, or a matrix of `optc build`, with a cache that others share, and kills it (with its
children) after a random part of the time that it takes. Whenever there is an output it is whole, and the last run ends
with the bytes of an undisturbed one and nothing beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUILD = [
    "zoo:digits_dscnn",
    "--passes",
    "prune:ratio=0.3,quant",
    "--samples",
    "40",
    "--threads",
    "1",
    "-q",
    "--no-check",
]
CONFIG = """samples = 40
seed = 0
output = "{name}.out.onnx"

[[model]]
path = "zoo:digits_dscnn"
name = "a"
passes = "prune:ratio=0.3"

[[model]]
path = "zoo:digits_resnet"
name = "b"
passes = "svd"
"""
KINDS = {
    "build": [*BUILD, "-o", "out.onnx", "--lock", "optc.lock"],
    "matrix": ["build", "--jobs", "2", "-q"],
}


def start(words: list[str], folder: Path, cache: Path) -> subprocess.Popen[str]:
    place = {**os.environ, "OPTC_CACHE": str(cache), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    (folder / "optc.toml").write_text(CONFIG)
    return subprocess.Popen(
        [sys.executable, "-m", "optc", *words], cwd=folder, env=place, start_new_session=True, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def whole(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".toml"}


def disturbed(kind: str, top: Path, draw: random.Random, moments: int) -> tuple[int, list[str]]:
    """How many of so many runs were killed, and what was wrong."""
    plain, folder = top / f"{kind}-plain", top / f"{kind}-work"
    begin = time.perf_counter()
    process = start(KINDS[kind], plain, top / f"{kind}-unused")
    if process.wait():
        return 0, [f"{kind}: the undisturbed run failed: {process.stderr and process.stderr.read()}"]
    seconds, wanted = time.perf_counter() - begin, whole(plain)
    killed, wrong = 0, []
    for moment in range(moments):
        if draw.random() < 0.3:  # else the cache of those before is shared
            cache = top / f"{kind}-cache{moment}"
            for name in wanted:
                (folder / name).unlink(missing_ok=True)
        elif moment == 0:
            cache = top / f"{kind}-cache"
        process = start(KINDS[kind], folder, cache)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0, seconds))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        wrong += [
            f"{kind} {moment}: {name} is not whole"
            for name, data in whole(folder).items()
            if name != "optc.lock" and data != wanted.get(name)
        ]
    process = start(KINDS[kind], folder, cache)
    if process.wait() or whole(folder) != wanted:
        said = process.stderr.read() if process.stderr is not None else ""
        wrong.append(f"{kind}: the last run does not equal an undisturbed one: {said}")
    left = [str(path) for path in (*folder.rglob(".optc-*"), *cache.glob(".optc-*"))]
    return killed, [*wrong, *([f"{kind}: left behind: {left}"] if left else [])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    faults = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory(prefix="killed-") as top:
            draw = random.Random(f"{options.seed}/{kind}")
            killed, wrong = disturbed(kind, Path(top), draw, options.moments)
            print(f"{kind}: {killed} of {options.moments} killed, seed {options.seed}, {len(wrong)} wrong", flush=True)
            print("\n".join(wrong))
            faults += wrong
    return min(1, len(faults))


if __name__ == "__main__":
    sys.exit(main())
