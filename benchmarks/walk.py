"""What the passes on the walk reach on real models: task metric, MACs, size, latency, time and memory.

    python benchmarks/walk.py KIT [--rows WORD ...] [--steps N] [--quick] [--out FILE]

KIT is a folder of models and data with its own `eval.py` and `feeds.py`. Every row is one pipeline, fitted on the
calibration samples and judged on the test split by the kit's script. A row runs in a process of its own, so that its
peak memory is its own; time is given as a multiple of the float model's forward passes over the same samples in the
same process. `--rows` takes the rows that a number (from 1) or a word names: one that the model, the pipeline or the
note holds. `--quick` takes at most 64 samples and 256 test inputs, to see that all rows run; no figure is worth
anything then. Prints a Markdown table, and below it how far memory grows with the samples.

The verdict is against the figure to reach, the latency and the seconds that a row names. Rows of passes on their
defaults must come out never worse: not larger, not slower (median and lower quartile of interleaved runs), and with an
agreement of 95 % or a task metric within 1 % of the float model's. Rows that are *taught* end with `distill`, whose
minutes are part of the row; `--steps N` gives each so many steps instead, for a figure that does not depend on what
else the machine does. Times are worth something only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

DEFAULTS = "prune:kind=channels,svd,depthwise"


@dataclass(frozen=True, slots=True)
class Row:
    """One pipeline on one model, with the figure to reach (task metric on the test split), and the seconds, the
    latency, as a share of the float model's, and the KL divergence on the test split to stay within."""

    model: str
    passes: str
    samples: int
    reach: float | None = None
    note: str = ""
    seconds: float | None = None
    latency: float | None = None
    kl: float | None = None

    def taking(self, steps: int | None) -> Row:
        """The row with so many steps in the place of minutes."""
        return self if steps is None else replace(self, passes=re.sub(r"minutes=[\d.]+", f"steps={steps}", self.passes))


ROWS = (
    Row("cifar_resnet20", "svd:ratio=0.5:form=spatial:scope=layer:align=1", 1024, 89.8),
    Row("cifar_resnet20", "svd:ratio=0.5:form=channel:scope=layer:align=1", 1024, 85.0, "every layer alike"),
    Row("cifar_resnet20", "svd:ratio=0.5:form=channel:align=1", 1024, 85.0, "spread"),
    Row("cifar_resnet20", "svd:ratio=0.5:form=channel:scope=layer", 1024, None, "ranks as the target likes"),
    Row("cifar_resnet20", "svd:ratio=0.5:align=1", 1024, 90.3),
    Row("cifar_resnet20", "prune:kind=channels:ratio=0.5:scope=layer", 1024, 84.0),
    Row("cifar_resnet20", "prune:kind=channels:ratio=0.3:scope=global", 1024, 89.0),
    Row("cifar_resnet20", "prune:ratio=0.8", 1024, 87.5, "every layer alike", seconds=15),
    Row("cifar_resnet20", "prune:ratio=0.8:scope=global", 1024, 87.5, "spread"),
    Row("cifar_resnet20", "prune:ratio=0.8:store=sparse", 1024, 87.5, "a smaller file"),
    Row("cifar_resnet20", "prune:kind=nm", 1024, 91.3),
    Row("cifar_resnet20", "depthwise:rank=1", 1024, 64.0),
    Row("cifar_resnet20", "depthwise:rank=2", 1024, 84.5),
    Row("cifar_resnet20", "depthwise:rank=3", 1024, 89.5),
    Row("cifar_resnet20", "prune:ratio=0.8", 128, None, "memory with few samples"),
    Row("mobilenetv2", "prune:ratio=0.5", 256, None, "one walk", seconds=90),
    Row("mobilenetv2", "prune:kind=channels:ratio=0.25:scope=global", 256, 80.0, latency=0.85),
    Row("minilm_l6", "prune:kind=channels:ratio=0.25:scope=global:of=params", 512, 80.53),
    Row("cifar_resnet20", "prune:kind=blocks:ratio=0.3", 1024, 87.5, latency=0.7),
    Row("cifar_resnet32_bn", "prune:kind=blocks:ratio=0.3", 1024, 86.0, latency=0.7),
    Row("cifar_resnet20", "prune:kind=blocks:ratio=0.3,distill:minutes=10", 1024, 88.5, "taught", latency=0.7),
    Row("cifar_resnet32_bn", "prune:kind=blocks:ratio=0.3,distill:minutes=10", 1024, 89.0, "taught", latency=0.7),
    Row("cifar_resnet20", "prune:kind=channels:ratio=0.5:scope=layer:align=8,distill:minutes=10", 1024, 88.5, "taught"),
    Row("cifar_resnet20", "svd:ratio=0.5:form=spatial:align=1,distill:minutes=10", 1024, 91.0, "taught"),
    Row("cifar_resnet20", "depthwise:rank=1,distill:minutes=15", 1024, 82.0, "taught"),
    Row("cifar_resnet20", "prune:ratio=0.9,distill:minutes=10", 1024, None, "taught"),
    Row("mobilenetv2", "prune:kind=channels:ratio=0.3:scope=global,distill:minutes=15", 256, 80.5, "taught", kl=0.36),
    Row(
        "efficientnet_lite0", "prune:kind=channels:ratio=0.3:scope=global,distill:minutes=15", 256, 82.5, "taught",
        kl=0.18,
    ),
    Row("minilm_l6", "prune:kind=channels:ratio=0.35:scope=global:of=params,distill:minutes=15", 256, None, "taught"),
    Row("face_rfb320", "prune:kind=channels:ratio=0.4:scope=global,distill:minutes=10", 120, None, "taught"),
    Row("mobilenetv2", "quant:weights=int4,distill:minutes=10", 256, 88.3, "taught", kl=0.03),
    Row("efficientnet_lite0", "quant:weights=int4,distill:minutes=10", 256, None, "taught", kl=0.02),
    Row("cifar_resnet20", "quant:weights=int4:activations=int4,distill:minutes=15", 1024, 90.0, "taught"),
    Row("cifar_resnet20", "quant:weights=int2,distill:minutes=15", 1024, 89.5, "taught"),
    *(
        Row(model, DEFAULTS, 1024, None, "defaults")
        for model in (
            "cifar_resnet20", "cifar_resnet32_bn", "mobilenetv2", "squeezenet11",
            "face_rfb320", "silero_vad16k", "kws_dscnn", "minilm_l6",
        )
    ),
)  # fmt: skip


PASSES = ("prune", "svd", "depthwise", "quant", "distill")
"""The passes whose seconds count."""
QUICK_SAMPLES, QUICK_TESTS = 64, 256


def measure(kit: Path, row: Row, quick: bool) -> dict[str, object]:
    """Build one row and judge it; runs in a process of its own."""
    from optc.compiler import compile, read
    from optc.runtime.session import Session
    from optc.runtime.sources import load_samples

    path = kit / "models" / f"{row.model}.onnx"
    with tempfile.TemporaryDirectory() as folder:
        feeds, out = Path(folder) / "calib.npz", Path(folder) / "out.onnx"
        subprocess.run(
            [sys.executable, str(kit / "feeds.py"), row.model, str(feeds)], check=True, stdout=subprocess.DEVNULL
        )
        graph = read(path)
        samples = load_samples(feeds, graph).take(min(row.samples, QUICK_SAMPLES) if quick else row.samples)
        session = Session(graph)
        for _ in range(2):  # the first round warms up
            start = time.perf_counter()
            for batch in samples.batches(16):
                session.run(batch)
            forward = time.perf_counter() - start
        del session
        build = compile(path, row.passes, output=out, data=samples, guard="defaults" in row.note)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        judge = [
            sys.executable,
            str(kit / "eval.py"),
            "--as",
            row.model,
            *(["--limit", str(QUICK_TESTS)] if quick else []),
        ]
        judged, whole = (_judged([*judge, str(m), "--ref", str(path)]) for m in (out, path))
    report = build.report
    steps = [step for step in report.steps if step.name.partition(":")[0] in PASSES]
    seconds = sum(step.report.seconds for step in steps)
    metric = next(k for k in ("top1", "spearman", "f1_vs_ref", "speech_agree") if k in judged)
    return {
        "metric": metric,
        "value": judged[metric],
        "float": whole[metric],
        "agree": judged.get("agree"),
        "kl": judged.get("kl"),
        "changed": any(step.report.changed for step in steps),
        "macs": report.after.macs / report.before.macs,
        "bytes": report.after.bytes / report.before.bytes,
        "latency": None if report.latency is None else report.latency.ratio,
        "slower": report.latency is not None and report.latency.ratio > 1 and report.latency.low > 1,
        "seconds": seconds,
        "forwards": seconds / forward,
        "peak_mib": peak,
    }


def _judged(script: list[str]) -> dict[str, float]:
    figures: dict[str, float] = json.loads(subprocess.run(script, check=True, capture_output=True, text=True).stdout)
    return figures


def verdict(row: Row, figures: dict[str, Any]) -> str:
    """Whether the row reaches what it must, or what it misses."""
    missed = []
    if row.reach is not None and figures["value"] < row.reach:
        missed.append(f"{row.reach - figures['value']:.2f} short")
    if row.seconds is not None and figures["seconds"] > row.seconds:
        missed.append(f"over {row.seconds:g} s")
    if row.latency is not None and (figures["latency"] is None or figures["latency"] > row.latency):
        missed.append(f"latency over {row.latency:g}")
    if row.kl is not None and (figures["kl"] is None or figures["kl"] > row.kl):
        missed.append(f"KL over {row.kl:g}")
    if row.passes == DEFAULTS:
        if not figures["changed"]:
            return "nothing paid"
        if figures["bytes"] > 1:
            missed.append("larger")
        if figures["slower"]:
            missed.append("slower")
        if (figures["agree"] or 0) < 95 and figures["value"] < 0.99 * figures["float"]:
            missed.append("agrees too little")
    elif row.reach is None and row.seconds is None and row.kl is None:
        return ""
    return ", ".join(missed) or "met"


def line(number: int, row: Row, figures: dict[str, Any]) -> str:
    def figure(name: str, form: str) -> str:
        value = figures[name]
        return "" if value is None else format(value, form)

    reach = "" if row.reach is None else f"{row.reach:g}"
    cells = (
        str(number), row.model, f"`{row.passes}`", row.note, str(row.samples), reach,
        f"{figure('value', '.2f')} {figures['metric']}", figure("float", ".2f"), figure("agree", ".2f"),
        figure("kl", ".4f"), figure("macs", ".3f"), figure("bytes", ".3f"), figure("latency", ".2f"),
        figure("seconds", ".1f"), figure("forwards", ".1f"), figure("peak_mib", ".0f"), verdict(row, figures),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| row | model | passes | | samples | reach | test | float | agree | KL | MACs | bytes | latency | s |"
    " forward passes | peak MiB | |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def wanted(words: list[str], number: int, row: Row) -> bool:
    """Whether one of `words` names the row; all are wanted where there are none."""
    texts = (row.model, row.passes, row.note)
    return not words or any(
        word == str(number) if word.isdigit() else any(word in text for text in texts) for word in words
    )


def growth(peaks: dict[tuple[str, str], dict[int, float]]) -> list[str]:
    """How the peak memory of a pipeline grows with the samples, where it was measured with several numbers of them."""
    figures = []
    for (model, passes), by_samples in peaks.items():
        few, many = min(by_samples), max(by_samples)
        if few < many:
            ratio = by_samples[many] / by_samples[few]
            figures.append(
                f"`{passes}` on {model}: peak memory with {many} samples is {ratio:.2f} of that with {few} "
                f"({'met' if ratio <= 1.25 else 'over 1.25'})"
            )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("--rows", nargs="+", default=[], help="numbers or words of the rows to take")
    parser.add_argument("--steps", type=int, help="steps of `distill` in the place of its minutes")
    parser.add_argument("--quick", action="store_true", help="few samples: to see that every row runs")
    parser.add_argument("--out", type=Path, help="write the table here as well")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row is not None:
        print(json.dumps(measure(options.kit, ROWS[options.row - 1].taking(options.steps), options.quick)))
        return
    lines = list(HEAD)
    print("\n".join(lines), flush=True)
    peaks: dict[tuple[str, str], dict[int, float]] = {}
    for number, row in enumerate((one.taking(options.steps) for one in ROWS), start=1):
        if not wanted(options.rows, number, row):
            continue
        command = [sys.executable, __file__, str(options.kit), "--row", str(number), *["--quick"] * options.quick]
        command += [] if options.steps is None else ["--steps", str(options.steps)]
        # A pass that an earlier row has run must run here too: its time and memory are asked for.
        ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OPTC_CACHE": "off"})
        if ran.returncode:
            said = ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"]
            lines.append(f"| {number} | {row.model} | `{row.passes}` | failed: {said[-1]} |")
        else:
            figures = json.loads(ran.stdout.strip().splitlines()[-1])
            lines.append(line(number, row, figures))
            peaks.setdefault((row.model, row.passes), {})[row.samples] = figures["peak_mib"]
        print(lines[-1], flush=True)
    below = ["", *growth(peaks)]
    print("\n".join(below))
    lines += below
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
