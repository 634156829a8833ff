"""Hold `optc` against other tools that quantize, prune and simplify ONNX models: the table of docs/comparison.md.

    python benchmarks/peers.py [KIT] [--models NAME ...] [--samples N] [--envs DIR] [--files DIR]

Every peer is installed from the registry into an environment of its own (`--envs` keeps them), and does what its
documentation says (`peer_programs.py`). Everybody gets the same unlabeled samples to fit on, and is judged on others.
Models are those of KIT, a folder with models, data and `eval.py`; without one, the trained networks of the zoo.

For each: status, wall seconds and peak memory of the whole process, the file as a share of the float model's, KL and
agreement against the float model, the task's metric, and latency over the float model's: medians of one thread, all
candidates of a model in turns. Then what each does with bad input: its exit status, and whether a traceback is shown.
"""

from __future__ import annotations

# isort: off
import optc

# isort: on
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from optc.models import zoo

PEERS = {
    "onnxruntime MinMax": "onnxruntime",
    "onnxruntime Percentile": "onnxruntime",
    "nncf quantize": "nncf",
    "onnxsim quantize_static": "onnxsim",
    "onnxsim prune channels 0.3": "onnxsim",
    "onnxsim simplify": "onnxsim",
    "onnxslim": "onnxslim",
}
"""The package of each program."""
OURS = {
    "optc quant": "quant",
    "optc prune channels 0.3": "prune:kind=channels:ratio=0.3:scope=global",
    "optc clean": "clean",
}
INSTALLED_BESIDE = ("onnx", "onnxruntime", "numpy")
PROGRAMS = Path(__file__).with_name("peer_programs.py")
LAUNCHER = """
import json, resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([code, used.ru_maxrss], file)
"""
"""Runs a tool and writes its status and its memory. A child begins with its maker's memory, so this one is small."""
METRICS = ("top1", "f1_vs_ref", "spearman", "speech_agree", "agree", "kl", "sqnr_db")


@dataclass(frozen=True)
class Made:
    who: str
    out: Path
    status: int
    seconds: float
    memory: int
    """Bytes at the peak."""
    said: str


@dataclass(frozen=True)
class Work:
    """A model with the samples to fit on, and where its figures come from."""

    name: str
    model: Path
    fit: Path
    kit: Path | None


def environment(folder: Path, package: str) -> tuple[Path, str]:
    """A Python with `package`, made where it is not there yet, and the version that it has."""
    python = folder / package / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / package], check=True)
        quiet = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*quiet, package, *INSTALLED_BESIDE], check=True)
    program = f"import importlib.metadata as m; print(m.version({package!r}))"
    return python, subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def run(who: str, command: list[str | Path], out: Path) -> Made:
    """One tool in a process of its own."""
    out.unlink(missing_ok=True)
    start = time.perf_counter()
    figures = out.with_suffix(".run.json")
    launched = [sys.executable, "-c", LAUNCHER, figures, *command]
    done = subprocess.run(
        launched, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=out.parent, check=True
    )
    seconds = time.perf_counter() - start
    status, peak = json.loads(figures.read_text())
    figures.unlink()
    return Made(who, out, status, seconds, peak << (0 if sys.platform == "darwin" else 10), done.stdout)


def command(who: str, envs: dict[str, Path], model: Path, samples: Path, out: Path) -> list[str | Path]:
    if who in OURS:
        return [sys.executable, "-m", "optc", model, "--passes", OURS[who], "--data", samples, "-o", out]
    return [envs[PEERS[who]], PROGRAMS, who, model, samples, out]


def latencies(files: list[Path], feeds: dict[str, np.ndarray], seconds: float = 6.0) -> list[float]:
    """The median of each file's time over that of the first, in turns, one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    sessions = [ort.InferenceSession(str(p), options, providers=["CPUExecutionProvider"]) for p in files]
    rows: list[list[float]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rows) < 8:
        row = []
        for session in sessions:
            start = time.perf_counter()
            session.run(None, feeds)
            row.append(time.perf_counter() - start)
        rows.append(row)
    times = np.asarray(rows[2:])
    return [float(ratio) for ratio in np.median(times / times[:, :1], axis=0)]


def judge(work: Work, out: Path) -> dict[str, float]:
    """The figures of `out` on the test split, against the float model."""
    if work.kit is not None:
        judged = [sys.executable, work.kit / "eval.py", out, "--as", work.name, "--ref", work.model, "--threads", "2"]
        done = subprocess.run(judged, check=True, capture_output=True, text=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        return {key: figures[key] for key in METRICS if key in figures}
    feeds, labels = zoo.samples(work.name, "test"), zoo.labels(work.name, "test")
    float_logits, logits = (
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for path in (work.model, out)
    )
    p, q = _log_softmax(float_logits), _log_softmax(logits)
    return {
        "top1": 100 * float((logits.argmax(1) == labels).mean()),
        "agree": 100 * float((logits.argmax(1) == float_logits.argmax(1)).mean()),
        "kl": float((np.exp(p) * (p - q)).sum(1).mean()),
    }


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.asarray(logits, np.float64) - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def table(work: Work, envs: dict[str, Path], folder: Path) -> None:
    """Print the rows of one model."""
    rows = []
    for who in (*PEERS, *OURS):
        out = folder / f"{work.name}.{who.replace(' ', '-')}.onnx"
        rows.append(run(who, command(who, envs, work.model, work.fit, out), out))
    written = [one for one in rows if one.status == 0 and one.out.exists()]
    with np.load(work.fit) as arrays:
        feeds = {name: arrays[name][:1] for name in arrays.files}
    ratios = dict(zip([one.who for one in written], latencies([work.model, *(one.out for one in written)], feeds)[1:]))
    print(f"\n{work.name}\n\n| tool | status | file | latency | agreement | KL | metric | seconds | memory |")
    print("|---|---|---|---|---|---|---|---|---|")
    for one in rows:
        cost = f"{one.seconds:.1f} | {one.memory >> 20} MiB |"
        if one not in written:
            reason = (one.said.strip().splitlines() or ["nothing said"])[-1][:100]
            print(f"| {one.who} | {one.status}: {reason} | | | | | | {cost}", flush=True)
            continue
        figures = judge(work, one.out)
        metric = next((f"{key} {figures[key]:.4g}" for key in METRICS[:4] if key in figures), "")
        agree = f"{figures['agree']:.1f} %" if "agree" in figures else ""
        lost = f"{figures['kl']:.4f}" if "kl" in figures else f"{figures.get('sqnr_db', float('nan')):.1f} dB"
        share = one.out.stat().st_size / work.model.stat().st_size
        print(
            f"| {one.who} | 0 | {share:.3f} | {ratios[one.who]:.2f} | {agree} | {lost} | {metric} | {cost}", flush=True
        )


def bad_input(work: Work, envs: dict[str, Path], folder: Path) -> None:
    """Print what everybody does with a model cut short, one of no bytes, and samples of another shape."""
    cut, empty, wrong = folder / "cut.onnx", folder / "empty.onnx", folder / "wrong.npz"
    data = work.model.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    empty.write_bytes(b"")
    with np.load(work.fit) as arrays:
        np.savez(wrong, **{name: arrays[name][:, :1].repeat(2, axis=1) for name in arrays.files})
    inputs = {"a model cut short": (cut, work.fit), "no bytes": (empty, work.fit), "wrong samples": (work.model, wrong)}
    print("\n| tool | " + " | ".join(inputs) + " |\n|---|" + "---|" * len(inputs))
    for who in (*PEERS, *OURS):
        cells = []
        for model, samples in inputs.values():
            out = folder / "bad.onnx"
            done = run(who, command(who, envs, model, samples, out), out)
            how = "traceback" if "Traceback (most recent call last)" in done.said else "a line"
            left = ", a file is left" if out.exists() else ""
            cells.append(f"{done.status}{f', {how}' if done.status else ''}{left}")
        print(f"| {who} | " + " | ".join(cells) + " |", flush=True)


def works(kit: Path | None, names: list[str], count: int, folder: Path) -> list[Work]:
    listed = []
    if kit is None:
        from optc.ir.onnx.writer import save

        for name in names or [entry.name for entry in zoo.entries() if entry.kind == "trained"]:
            model, fit = folder / f"{name}.onnx", folder / f"{name}.fit.npz"
            save(zoo.load(name), model)
            np.savez(fit, **{key: array[:count] for key, array in zoo.samples(name, "calib").items()})
            listed.append(Work(name, model, fit, None))
        return listed
    for name in names or [path.stem for path in sorted((kit / "models").glob("*.onnx"))]:
        every, fit = folder / f"{name}.all.npz", folder / f"{name}.fit.npz"
        subprocess.run([sys.executable, kit / "feeds.py", name, every], check=True, stdout=subprocess.DEVNULL)
        with np.load(every) as arrays:
            np.savez(fit, **{key: arrays[key][:count] for key in arrays.files})
        listed.append(Work(name, kit / "models" / f"{name}.onnx", fit, kit))
    return listed


def processor() -> str:
    """What the machine calls its CPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path, nargs="?")
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--envs", type=Path, help="where the environments of the peers stay")
    parser.add_argument("--files", type=Path, help="where the models stay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        places = (options.envs or Path(scratch) / "envs", options.files or Path(scratch) / "files")
        places = tuple(place.absolute() for place in places)
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
        installed = {package: environment(places[0], package) for package in dict.fromkeys(PEERS.values())}
        versions = ", ".join(f"{package} {version}" for package, (_, version) in installed.items())
        print(
            f"{time.strftime('%Y-%m-%d')}, {processor()}, {os.cpu_count()} cores\n{versions}, optc {optc.__version__}"
        )
        envs = {package: python for package, (python, _) in installed.items()}
        every = works(options.kit, options.models, options.samples, places[1])
        for work in every:
            table(work, envs, places[1])
        bad_input(every[0], envs, places[1])


if __name__ == "__main__":
    main()
