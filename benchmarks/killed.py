"""Builds that are killed, filled up and crowded: the next one equals one that nobody disturbed.

    python benchmarks/killed.py --moments 200 --seed 7 [--kinds build,matrix,training,search,tuning] [--crowd 50]

Each moment starts a build, a matrix of `optc build`, a training, a search or a tuning with a cache that others share,
and kills it (with its children) after a random part of the time that it takes. Whenever there is an output it is whole,
and the last run ends with the bytes of an undisturbed one and nothing beside them. What a search and a tuning come to
is up to the clock: of these each file must be one that is read, and the last run must end well.

Then as many processes as `--crowd` says share one cache at once, on a clock that was set back and on a cache that can
only be read; and files may be no longer than so many bytes, as on a full disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

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
DISTIL = "prune:ratio=0.4,distill:steps=20:batch=8"
KINDS = {
    "build": [*BUILD, "-o", "out.onnx", "--lock", "optc.lock"],
    "matrix": ["build", "--jobs", "2", "-q"],
    "training": ["zoo:digits_dscnn", "--passes", DISTIL, *BUILD[3:], "-o", "out.onnx"],
    "search": ["search", "zoo:digits_dscnn", "--budget", "size=60%", "--time", "4s", "--samples", "40", "-q",
               "-o", "out.onnx"],
    "tuning": ["zoo:digits_dscnn", "--passes", "clean", "--target", "host", "--tune", "4s", "--tune-records", "r.jsonl",
               "--no-check", "-q", "-o", "out.tar"],
}  # fmt: skip
TIMED = ("search", "tuning")
"""Kinds whose result the clock decides."""


def start(words: list[str], folder: Path, cache: Path) -> subprocess.Popen[str]:
    place = {**os.environ, "OPTC_CACHE": str(cache), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    (folder / "optc.toml").write_text(CONFIG)
    return subprocess.Popen(
        [sys.executable, "-m", "optc", *words], cwd=folder, env=place, start_new_session=True, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def whole(folder: Path) -> dict[str, bytes]:
    """The files of a folder, but for the configuration, and the lock, which has times in it."""
    own = ("optc.lock", "optc.toml")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name not in own}


def readable(path: Path) -> bool:
    """Whether a file is what its extension says."""
    try:
        match path.suffix:
            case ".onnx":
                onnx.checker.check_model(onnx.load(path))
            case ".toml":
                tomllib.loads(path.read_text())
            case ".tar":
                with tarfile.open(path) as tar:
                    return "manifest.json" in tar.getnames() and bool(tar.getmembers())
            case ".jsonl":  # the last line may be one that is being written
                for line in path.read_text().split("\n")[:-1]:
                    json.loads(line)
    except (ValueError, OSError, tarfile.TarError, onnx.checker.ValidationError, DecodeError):
        return False
    return True


def broken(kind: str, folder: Path, wanted: dict[str, bytes]) -> list[str]:
    """The files that are neither what an undisturbed run makes nor, where the clock decides, whole."""
    if kind in TIMED:
        return [path.name for path in folder.iterdir() if path.is_file() and not readable(path)]
    return [name for name, data in whole(folder).items() if data != wanted.get(name)]


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
        wrong += [f"{kind} {moment}: {name} is not whole" for name in broken(kind, folder, wanted)]
    process = start(KINDS[kind], folder, cache)
    if process.wait() or (broken(kind, folder, wanted) if kind in TIMED else whole(folder) != wanted):
        said = process.stderr.read() if process.stderr is not None else ""
        wrong.append(f"{kind}: the last run does not equal an undisturbed one: {said}")
    left = [str(path) for path in (*folder.rglob(".optc-*"), *cache.glob(".optc-*"))]
    return killed, [*wrong, *([f"{kind}: left behind: {left}"] if left else [])]


def crowded(top: Path, count: int, cache: Path) -> list[str]:
    """What was wrong with so many builds at once on one cache."""
    folders = [top / f"crowd{index}" for index in range(count)]
    processes = [start(KINDS["build"], folder, cache) for folder in folders]
    ends = [process.wait() for process in processes]
    outputs = {(folder / "out.onnx").read_bytes() for folder in folders if (folder / "out.onnx").exists()}
    said = [process.stderr.read() for process in processes if process.stderr is not None]
    return [] if not any(ends) and len(outputs) == 1 else [f"{count} at once: {ends}, {len(outputs)} outputs, {said}"]


def limited(top: Path, wanted: dict[str, bytes], draw: random.Random) -> list[str]:
    """What was wrong with a build whose files may be no longer than so many bytes."""
    folder, most = top / "full", int(10 ** draw.uniform(1, 5.5))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    words = [sys.executable, "-m", "optc", *KINDS["build"]]
    place = {**os.environ, "OPTC_CACHE": str(folder / "cache"), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    place["PYTHONDONTWRITEBYTECODE"] = "1"  # Python takes what it could not write whole for modules
    done = subprocess.run(
        words, cwd=folder, env=place, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )  # fmt: skip
    wrong = [f"at most {most}: {name} is not whole" for name in broken("build", folder, wanted)]
    if done.returncode not in (0, 2) or "Traceback" in done.stderr:
        wrong.append(f"at most {most}: status {done.returncode}, {done.stderr[-300:]}")
    return [*wrong, *(f"at most {most}: {path} stays" for path in folder.glob("*optc-*"))]


def pressed(top: Path, draw: random.Random, crowd: int, moments: int) -> list[str]:
    """What was wrong with builds that are crowded, in a cache of the future, one to be read only, and on full disks."""
    cache = top / "shared"
    wrong = crowded(top, crowd, cache)
    for path in cache.rglob("*"):
        os.utime(path, (time.time() + 1e7,) * 2)
    wrong += crowded(top, 2, cache)
    for path in cache.rglob("*"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    cache.chmod(0o500)
    wrong += crowded(top, 2, cache)
    for path in (cache, *cache.rglob("*")):
        path.chmod(0o700)
    wanted = whole(top / "crowd0")
    for _ in range(moments):
        wrong += limited(top, wanted, draw)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--crowd", type=int, default=0)
    options = parser.parse_args()
    faults = []
    if options.crowd:
        with tempfile.TemporaryDirectory(prefix="killed-") as top:
            draw = random.Random(f"{options.seed}/pressed")
            faults += pressed(Path(top), draw, options.crowd, options.moments)
            print(f"{options.crowd} at once, {options.moments} full disks, seed {options.seed}, {len(faults)} wrong")
            print("\n".join(faults), flush=True)
    for kind in filter(None, options.kinds.split(",")):
        with tempfile.TemporaryDirectory(prefix="killed-") as top:
            draw = random.Random(f"{options.seed}/{kind}")
            killed, wrong = disturbed(kind, Path(top), draw, options.moments)
            print(f"{kind}: {killed} of {options.moments} killed, seed {options.seed}, {len(wrong)} wrong", flush=True)
            print("\n".join(wrong))
            faults += wrong
    return min(1, len(faults))


if __name__ == "__main__":
    sys.exit(main())
