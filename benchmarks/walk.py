"""What the passes on the walk reach on real models: task metric, MACs, size, latency, time and memory.

    python benchmarks/walk.py KIT [--only WORD] [--out FILE]

KIT is a folder of models and data with its own `eval.py` and `feeds.py`. Every row is one pipeline, fitted on the
calibration samples and judged on the test split by the kit's script. `--only` takes the rows whose model or pipeline
holds WORD. A row runs in a process of its own, so that its peak memory is its own; time is given as a multiple of the
float model's forward passes over the same samples in the same process. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One pipeline on one model, with the figure to reach (task metric on the test split)."""

    model: str
    passes: str
    samples: int
    reach: float | None = None
    note: str = ""


ROWS = (
    Row("cifar_resnet20", "svd:ratio=0.5:form=spatial:align=1", 1024, 89.8),
    Row("cifar_resnet20", "svd:ratio=0.5:form=channel:align=1", 1024, 85.0, "every layer alike"),
    Row("cifar_resnet20", "svd:ratio=0.5:form=channel:scope=global:align=1", 1024, 85.0, "spread"),
    Row("cifar_resnet20", "svd:ratio=0.5:form=channel", 1024, None, "ranks in steps of what the target likes"),
    Row("cifar_resnet20", "svd:ratio=0.5:scope=global:align=1", 1024, 90.3),
    Row("cifar_resnet20", "prune:kind=channels:ratio=0.5", 1024, 84.0),
    Row("cifar_resnet20", "prune:kind=channels:ratio=0.3:scope=global", 1024, 89.0),
    Row("cifar_resnet20", "prune:ratio=0.8", 1024, 87.5, "every layer alike"),
    Row("cifar_resnet20", "prune:ratio=0.8:scope=global", 1024, 87.5, "spread"),
    Row("cifar_resnet20", "prune:ratio=0.8:store=sparse", 1024, 87.5, "a smaller file"),
    Row("cifar_resnet20", "prune:kind=nm", 1024, 91.3),
    Row("cifar_resnet20", "depthwise:rank=1", 1024, 64.0),
    Row("cifar_resnet20", "depthwise:rank=2", 1024, 84.5),
    Row("cifar_resnet20", "depthwise:rank=3", 1024, 89.5),
    Row("cifar_resnet20", "prune:ratio=0.8", 128, None, "memory with few samples"),
    Row("mobilenetv2", "prune:kind=channels:ratio=0.25:scope=global", 256, 80.0),
    Row("minilm_l6", "prune:kind=channels:ratio=0.25:scope=global:of=params", 512, 80.53),
    *(
        Row(model, "prune:kind=channels,svd,depthwise", 256, None, "defaults")
        for model in (
            "cifar_resnet20", "cifar_resnet32_bn", "mobilenetv2", "squeezenet11",
            "face_rfb320", "silero_vad16k", "kws_dscnn", "minilm_l6",
        )
    ),
)  # fmt: skip


def measure(kit: Path, row: Row) -> dict[str, object]:
    """Build one row and judge it; runs in a process of its own."""
    from optc.compiler import compile, read
    from optc.runtime.samples import load_samples
    from optc.runtime.session import Session

    path = kit / "models" / f"{row.model}.onnx"
    with tempfile.TemporaryDirectory() as folder:
        feeds, out = Path(folder) / "calib.npz", Path(folder) / "out.onnx"
        subprocess.run(
            [sys.executable, str(kit / "feeds.py"), row.model, str(feeds)], check=True, stdout=subprocess.DEVNULL
        )
        graph = read(path)
        samples = load_samples(feeds, graph).take(row.samples)
        session = Session(graph)
        for _ in range(2):  # the first round warms up
            start = time.perf_counter()
            for batch in samples.batches(16):
                session.run(batch)
            forward = time.perf_counter() - start
        del session
        build = compile(path, row.passes, output=out, data=samples, guard="defaults" in row.note)
        script = [sys.executable, str(kit / "eval.py"), str(out), "--as", row.model, "--ref", str(path)]
        judged = json.loads(subprocess.run(script, check=True, capture_output=True, text=True).stdout)
    report = build.report
    steps = [step for step in report.steps if step.name != "clean"]
    seconds = sum(step.report.seconds for step in steps)
    metric = next(k for k in ("top1", "spearman", "f1_vs_ref", "speech_agree") if k in judged)
    return {
        "metric": metric,
        "value": judged[metric],
        "agree": judged.get("agree"),
        "macs": report.after.macs / report.before.macs,
        "bytes": report.after.bytes / report.before.bytes,
        "latency": None if report.latency is None else report.latency.ratio,
        "seconds": seconds,
        "forwards": seconds / forward,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def line(row: Row, found: dict[str, object]) -> str:
    def number(name: str, form: str) -> str:
        value = found[name]
        return "" if value is None else format(value, form)

    reach = "" if row.reach is None else f"{row.reach:g}"
    cells = (
        row.model, f"`{row.passes}`", row.note, str(row.samples), reach, f"{number('value', '.2f')} {found['metric']}",
        number("macs", ".3f"), number("bytes", ".3f"), number("latency", ".2f"),
        number("seconds", ".1f"), number("forwards", ".1f"), number("peak_mib", ".0f"),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("--only", default="", help="rows whose model or pipeline holds this")
    parser.add_argument("--out", type=Path, help="write the table here as well")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row is not None:
        print(json.dumps(measure(options.kit, ROWS[options.row])))
        return
    lines = [
        "| model | passes | | samples | reach | test | MACs | bytes | latency | s | forward passes | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for number, row in enumerate(ROWS):
        if options.only not in f"{row.model} {row.passes} {row.note}":
            continue
        command = [sys.executable, __file__, str(options.kit), "--row", str(number)]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            cells = f"| {row.model} | `{row.passes}` | failed: {ran.stderr.strip().splitlines()[-1]} |"
            lines.append(cells)
        else:
            lines.append(line(row, json.loads(ran.stdout.strip().splitlines()[-1])))
        print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
