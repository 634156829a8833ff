"""What a search finds on real models, strategy by strategy at equal time, beside what one must reach.

    python benchmarks/search.py KIT [--rows WORD ...] [--strategies NAME ...] [--minutes M] [--samples N] [--out FILE]

KIT is a folder of models and data with its own `eval.py` and `feeds.py`. Each row is one model under one budget,
searched on the calibration samples and judged on the test split by the kit's script. The survey is made once; every
strategy runs in a process of its own with a copy of it, and its time begins anew; `one-shot` is the knapsack's first
answer alone, beside the pipelines that are known, with nothing learnt. `--minutes` takes that time instead of a row's.
Prints a Markdown table a row: the figures of each answer, the area under the front of its candidates that is better
than the original's corner (cost against agreement), and the verdict against the figure to reach. Times, and so answers,
are worth something only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optc.searcher.strategies import STRATEGIES
from optc.searcher.surrogate import front


@dataclass(frozen=True, slots=True)
class Row:
    """One work: the figure to reach (task metric on the test split) within so many minutes."""

    model: str
    budget: str
    reach: float
    minutes: float
    samples: int
    forms: str = ""


ROWS = (
    Row("mobilenetv2", "latency=0.42x,size=22%", 87.5, 20, 256),
    Row("mobilenetv2", "latency=0.75x", 84.0, 30, 256, "float"),
    Row("efficientnet_lite0", "latency=0.7x", 83.5, 30, 256, "float"),
    Row("cifar_resnet20", "macs=50%", 91.0, 20, 1024),
    Row("cifar_resnet20", "size=8%", 90.0, 20, 1024),
    Row("squeezenet11", "size=10%", 58.0, 20, 256),
    Row("minilm_l6", "size=14%", 81.0, 30, 256),
    Row("kws_dscnn", "latency=0.6x", 89.0, 10, 200),
)
WAYS = (*STRATEGIES, "one-shot")
SURVEY = "survey"
METRICS = ("top1", "spearman", "f1_vs_ref", "speech_agree")
HEAD = "| strategy | candidates | test | agreement | KL or noise | MACs | size | latency | kept | front | verdict |"


def searched(kit: Path, row: Row, way: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The record of one search, with the test figure of its answer."""
    model, feeds, out = kit / "models" / f"{row.model}.onnx", folder / f"{row.model}.npz", folder / f"{way}.onnx"
    if not feeds.exists():
        command = [sys.executable, str(kit / "feeds.py"), row.model, str(feeds)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    record = folder / f"{way}.json"
    minutes = options.minutes or row.minutes
    words = [sys.executable, "-m", "optc", "search", str(model), "--data", str(feeds), "--budget", row.budget]
    words += ["--samples", str(options.samples or row.samples), "--time", f"{60 * minutes:g}s"]
    words += ["--forms", row.forms] if row.forms else []
    cache = folder / f"cache {way}"
    if way != SURVEY:  # a cache of its own, or the best of one strategy would be met again by the next
        shutil.copytree(folder / f"cache {SURVEY}", cache, dirs_exist_ok=True)
    words += ["--cache", str(cache), "-o", str(out), "--report", str(record), "-q"]
    words += ["--strategy", way if way in STRATEGIES else STRATEGIES[0]]
    words += ["--candidates", str(shot(folder))] if way == "one-shot" else []
    words += ["--candidates", "1"] if way == SURVEY else []
    words += ["--no-teach"] if way == "one-shot" or options.no_teach else []
    done = subprocess.run(words, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode not in (0, 3):
        return {"failed": done.stderr.strip().splitlines()[-1]}
    if way == SURVEY:
        return {}
    judge = [sys.executable, str(kit / "eval.py"), str(out), "--as", row.model]
    judge += ["--limit", str(options.limit)] if options.limit else []
    figures = json.loads(subprocess.run(judge, check=True, capture_output=True, text=True).stdout)
    document: dict[str, Any] = json.loads(record.read_text())
    document["test"] = next(figures[name] for name in METRICS if name in figures)
    return document


def shot(folder: Path) -> int:
    """How many candidates there are up to the first proposal of the knapsack."""
    strategies = [one["strategy"] for one in json.loads((folder / "knapsack.json").read_text())["candidates"]]
    return 1 + strategies.index("knapsack") if "knapsack" in strategies else len(strategies)


def line(row: Row, way: str, document: dict[str, Any]) -> str:
    if "failed" in document:
        return f"| {way} | | | | | | | | | | {document['failed']} |"
    answer = document["candidates"][document["chosen"]]
    limited = row.budget.partition("=")[0]
    points = [
        (one["costs"][limited], 1.0 - one["agreement"])
        for one in document["candidates"]
        if not one["failed"] and one["agreement"] is not None and limited in one["costs"]
    ]
    met = document["budget"]["met"]
    short = row.reach - document["test"]
    verdict = "over the budget" if not met else "met" if short <= 0 else f"{short:.2f} short"
    cells = [
        way,
        str(len(document["candidates"])),
        f"{document['test']:.2f}",
        "" if answer["agreement"] is None else f"{100 * answer['agreement']:.1f}",
        "" if answer["loss"] is None else f"{answer['loss']:.4g}",
        *(f"{answer['costs'][name]:.3f}" if name in answer["costs"] else "" for name in ("macs", "size", "latency")),
        "yes" if met else "no",
        f"{hypervolume(points, (1.0, 1.0)):.4f}",
        verdict,
    ]
    return f"| {' | '.join(cells)} |"


def hypervolume(points: list[tuple[float, float]], corner: tuple[float, float]) -> float:
    """The area between the front of `points` (cost, loss) and `corner`, where both are smaller (Zitzler and Thiele
    1999)."""
    area, before = 0.0, corner[1]
    for i in front(points):
        cost, loss = points[i]
        if cost < corner[0] and loss < before:
            area += (corner[0] - cost) * (before - loss)
            before = loss
    return area


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("--rows", nargs="*", default=[], help="numbers (from 1), or words of models and budgets")
    parser.add_argument("--strategies", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0, help="test inputs that are judged on; 0: all")
    parser.add_argument("--no-teach", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if "one-shot" in options.strategies and "knapsack" not in options.strategies:
        parser.error("one-shot is the knapsack's: name knapsack beside it")
    lines: list[str] = []
    for number, row in enumerate(ROWS, start=1):
        words = options.rows
        if words and not any(
            w == str(number) if w.isdigit() else w in f"{row.model} {row.budget} {row.forms}" for w in words
        ):
            continue
        lines += [f"\n{number}. {row.model}, {row.budget}: at least {row.reach:g}\n", HEAD, "|---" * 11 + "|"]
        with tempfile.TemporaryDirectory() as folder:
            searched(options.kit, row, SURVEY, options, Path(folder))
            for way in sorted(options.strategies, key=WAYS.index):
                lines.append(line(row, way, searched(options.kit, row, way, options, Path(folder))))
                print(lines[-1], file=sys.stderr, flush=True)
        text = "\n".join(lines) + "\n"
        if options.out is not None:
            options.out.write_text(text)
    load = os.getloadavg()[0]
    print("\n".join([*lines, f"\nload of the machine at the end: {load:.1f}"]))


if __name__ == "__main__":
    main()
