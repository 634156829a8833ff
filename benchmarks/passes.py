"""How long the lossy passes take, as multiples of one forward pass of the float model over the same samples.

    python benchmarks/passes.py KIT [--models NAME ...] [--passes TEXT ...] [--busy] [--out FILE]

KIT is a folder of models and data with its own `feeds.py`. Every row runs in a process of its own and without a cache,
with the threads that a build uses: wall time and the CPU time of all threads, each over that of one forward pass in
batches of 16, and the peak memory. `--busy` runs each row once more beside two processes that do nothing but count, and
gives both times over the quiet ones. The verdict is against the multiple of wall time to stay within.

On a machine that does other work compare CPU time only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODELS = {
    "mobilenetv2": 256,
    "efficientnet_lite0": 256,
    "cifar_resnet20": 256,
    "face_rfb320": 120,
    "minilm_l6": 256,
}
"""The models of the kit, with how many samples each is given."""
WITHIN = {
    "quant": 8,
    "prune": 12,
    "svd": 12,
    "depthwise": 12,
    "prune:kind=channels:ratio=0.3": 20,
    "svd:ratio=0.5": 25,
    "prune,svd,depthwise,quant": 25,
}
"""The pipelines, with how many forward passes each may take."""
BUSY_WALL, BUSY_CPU = 2.5, 1.3
"""How many times the quiet figures a row may take beside two busy loops on two cores."""

COUNTING = "while True:\n    pass"


def measure(kit: Path, model: str, passes: str, count: int) -> dict[str, float]:
    """One row; runs in a process of its own."""
    from optc.compiler import compile, read
    from optc.runtime.samples import load_samples
    from optc.runtime.session import Session

    path = kit / "models" / f"{model}.onnx"
    with tempfile.TemporaryDirectory() as folder:
        feeds, out = Path(folder) / "calib.npz", Path(folder) / "out.onnx"
        subprocess.run(
            [sys.executable, str(kit / "feeds.py"), model, str(feeds)], check=True, stdout=subprocess.DEVNULL
        )
        graph = read(path)
        samples = load_samples(feeds, graph).take(count)
        session = Session(graph)
        for _ in range(2):  # the first round warms up
            wall, cpu = time.perf_counter(), time.process_time()
            for batch in samples.batches(16):
                session.run(batch)
            forward, forward_cpu = time.perf_counter() - wall, time.process_time() - cpu
        del session
        cpu = time.process_time()
        build = compile(path, passes, output=out, data=samples, check=False, guard=False)
        cpu = time.process_time() - cpu
    names = {item.partition(":")[0] for item in passes.split(",")}
    steps = [step.report for step in build.report.steps if step.name.partition(":")[0] in names]
    seconds = sum(step.seconds for step in steps)
    return {
        "forward": forward,
        "forward_cpu": forward_cpu,
        "seconds": seconds,
        "cpu": cpu,
        "changed": sum(layer.outcome.value == "done" for step in steps for layer in step.layers),
        "looked_at": sum(len(step.layers) for step in steps),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def row(kit: Path, model: str, passes: str, count: int, *, busy: bool) -> dict[str, float]:
    loops = [subprocess.Popen([sys.executable, "-c", COUNTING]) for _ in range(2 if busy else 0)]
    try:
        command = [sys.executable, __file__, str(kit), "--row", model, passes, str(count)]
        ran = subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | {"OPTC_CACHE": "off"}
        )
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    figures: dict[str, float] = json.loads(ran.stdout.strip().splitlines()[-1])
    return figures


HEAD = (
    "| model | samples | passes | forward s | pass s | = forwards | CPU s | = forwards | peak MiB | layers done | |"
    " busy: wall x | CPU x | |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def line(model: str, count: int, passes: str, quiet: dict[str, float], busy: dict[str, float] | None) -> str:
    times = quiet["seconds"] / quiet["forward"]
    cells = [
        model, str(count), f"`{passes}`", f"{quiet['forward']:.2f}", f"{quiet['seconds']:.1f}", f"{times:.1f}",
        f"{quiet['cpu']:.1f}", f"{quiet['cpu'] / quiet['forward_cpu']:.1f}", f"{quiet['peak_mib']:.0f}",
        f"{quiet['changed']:.0f} of {quiet['looked_at']:.0f}",
        "met" if times <= WITHIN.get(passes, times) else f"over {WITHIN[passes]}",
    ]  # fmt: skip
    if busy is None:
        return "| " + " | ".join([*cells, "", "", ""]) + " |"
    wall, cpu = busy["seconds"] / quiet["seconds"], busy["cpu"] / quiet["cpu"]
    fair = "met" if wall <= BUSY_WALL and cpu <= BUSY_CPU else f"over {BUSY_WALL:g} or {BUSY_CPU:g}"
    return "| " + " | ".join([*cells, f"{wall:.2f}", f"{cpu:.2f}", fair]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--passes", nargs="+", default=list(WITHIN))
    parser.add_argument("--samples", type=int, help="how many samples every model is given")
    parser.add_argument("--busy", action="store_true", help="every row once more beside two busy loops")
    parser.add_argument("--out", type=Path, help="write the table here as well")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row is not None:
        model, passes, count = options.row
        print(json.dumps(measure(options.kit, model, passes, int(count))))
        return
    lines = list(HEAD)
    print("\n".join(lines), flush=True)
    for model in options.models:
        count = options.samples or MODELS.get(model, 256)
        for passes in options.passes:
            quiet = row(options.kit, model, passes, count, busy=False)
            busy = row(options.kit, model, passes, count, busy=True) if options.busy else None
            lines.append(line(model, count, passes, quiet, busy))
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
