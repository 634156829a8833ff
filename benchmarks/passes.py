"""How long the lossy passes take, as multiples of one forward pass of the float model over the same samples.

    python benchmarks/passes.py KIT [--models NAME ...] [--passes TEXT ...] [--busy] [--sessions] [--out FILE]

KIT is a folder of models and data with its own `feeds.py`; a name with a colon is a model of the zoo, for which samples
are made up. Every row runs in a process of its own and without a cache, with the threads that a build uses: wall time
and the CPU time of all threads in the passes that are named, each over that of one forward pass in batches of 16, the
CPU time of the whole command, and the peak memory. `--busy` runs each row once more beside two processes that do
nothing but count, and gives both times over the quiet ones. `--sessions` tells below each row what was run: how many
sessions were created, in how many seconds, and how many forward passes over all samples the runs amount to, by who
asked for them (a run of a part of the graph counts as its share of the nodes).

The verdict is against the multiple of CPU time to stay within, which other work on the machine does not change much.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optc.ir.graph import Graph
    from optc.passes.base import Pass, Report
    from optc.runtime.columns import Array
    from optc.runtime.samples import Samples

MODELS = {
    "mobilenetv2": 256,
    "efficientnet_lite0": 256,
    "cifar_resnet20": 256,
    "face_rfb320": 120,
    "minilm_l6": 256,
    "zoo:efficientnet_lite3": 64,
}
"""The models, with how many samples each is given."""
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


def read_case(kit: Path, model: str, count: int) -> tuple[str, Graph, Samples]:
    """Where a model is, the model, and samples of it."""
    from optc.compiler import read
    from optc.runtime.sources import load_samples
    from optc.runtime.synthesise import synthesise

    path = model if ":" in model else str(kit / "models" / f"{model}.onnx")
    graph = read(path)
    if ":" in model:
        return path, graph, synthesise(graph, count)
    with tempfile.TemporaryDirectory() as folder:
        feeds = Path(folder) / "calib.npz"
        command = [sys.executable, str(kit / "feeds.py"), model, str(feeds)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return path, graph, load_samples(feeds, graph).take(count)


def measure(kit: Path, model: str, passes: str, count: int, *, sessions: bool) -> dict[str, object]:
    """One row; runs in a process of its own."""
    from optc.compiler import compile
    from optc.passes.observers import Observer
    from optc.runtime.parallel import single_blas
    from optc.runtime.session import Session

    names = {item.partition(":")[0] for item in passes.split(",")}

    class Clock(Observer):
        """CPU time of the passes that are named."""

        def __init__(self) -> None:
            self.cpu = self.begin = 0.0

        def before(self, position: int, one: Pass, graph: Graph) -> None:
            self.begin = time.process_time()

        def after(self, position: int, one: Pass, graph: Graph, report: Report) -> None:
            if one.name in names:
                self.cpu += time.process_time() - self.begin

    path, graph, samples = read_case(kit, model, count)
    session = Session(graph)
    for _ in range(2):  # the first round warms up
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in samples.batches(16):
            session.run(batch)
        forward, forward_cpu = time.perf_counter() - wall, time.process_time() - cpu
    del session
    with single_blas():  # brings the libraries of linear algebra, as any pass before would have
        pass
    clock, runs = Clock(), Runs(len(list(graph)), samples) if sessions else None
    with tempfile.TemporaryDirectory() as folder:
        out, cpu = Path(folder) / "out.onnx", time.process_time()
        build = compile(path, passes, output=out, data=samples, check=False, guard=False, observers=[clock])
        cpu = time.process_time() - cpu
    steps = [step.report for step in build.report.steps if step.name.partition(":")[0] in names]
    return {
        "forward": forward,
        "forward_cpu": forward_cpu,
        "seconds": sum(step.seconds for step in steps),
        "cpu": clock.cpu,
        "whole_cpu": cpu,
        "changed": sum(layer.outcome.value == "done" for step in steps for layer in step.layers),
        "looked_at": sum(len(step.layers) for step in steps),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "runs": [] if runs is None else runs.lines(),
    }


class Runs:
    """Counts what sessions run, by the functions that made them."""

    def __init__(self, nodes: int, samples: Samples) -> None:
        from optc.runtime.session import Session

        self.nodes, self.samples = nodes, samples
        self.counts: dict[str, list[float]] = {}
        self.owners: dict[int, tuple[str, float]] = {}
        create, run = Session.__init__, Session.run

        def created(one: Session, graph: Graph, **options: object) -> None:
            begin = time.perf_counter()
            create(one, graph, **options)  # type: ignore[arg-type]
            frames = [frame for frame in traceback.extract_stack(limit=5)[:-1] if "optc" in frame.filename]
            owner = " < ".join(frame.name for frame in reversed(frames[-3:]))
            self.owners[id(one)] = owner, len(list(graph)) / nodes
            self._add(owner, 1, time.perf_counter() - begin, 0.0)

        def ran(one: Session, feeds: Mapping[str, Array]) -> list[Array]:
            owner, share = self.owners.get(id(one), ("", 0.0))
            if owner:
                # A part of the graph is given values on the way, the samples along their first axis.
                axes = {name: axis for name, axis in samples.axes.items() if axis is not None and name in feeds}
                sizes = [feeds[name].shape[axis] for name, axis in axes.items()]
                sizes += [array.shape[0] for array in feeds.values() if array.ndim]
                self._add(owner, 0, 0.0, share * (sizes or [1])[0] / samples.count)
            return run(one, feeds)

        Session.__init__, Session.run = created, ran  # type: ignore[method-assign]

    def _add(self, owner: str, *figures: float) -> None:
        kept = self.counts.setdefault(owner, [0.0, 0.0, 0.0])
        self.counts[owner] = [a + b for a, b in zip(kept, figures, strict=True)]

    def lines(self) -> list[str]:
        order = sorted(self.counts.items(), key=lambda item: -item[1][2])
        return [f"{n:.0f} sessions in {s:.2f} s, {f:.2f} forward passes: {owner}" for owner, (n, s, f) in order]


def row(kit: Path, model: str, passes: str, count: int, *, busy: bool, sessions: bool = False) -> dict[str, Any]:
    loops = [subprocess.Popen([sys.executable, "-c", COUNTING]) for _ in range(2 if busy else 0)]
    try:
        command = [sys.executable, __file__, str(kit), "--row", model, passes, str(count)]
        command += ["--sessions"] if sessions else []
        ran = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment())
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    figures: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    return figures


@functools.cache
def _environment() -> dict[str, str]:
    """No cache of models, and modules compiled beforehand, as they are where a package was installed."""
    own = os.environ | {"OPTC_CACHE": "off", "PYTHONDONTWRITEBYTECODE": ""}
    compiled = "import compileall, optc; compileall.compile_dir(optc.__path__[0], quiet=2)"
    subprocess.run([sys.executable, "-c", compiled], check=True, env=own)
    return own


HEAD = (
    "| model | samples | passes | forward s | pass s | = forwards | CPU s | = forwards | command's | peak MiB |"
    " layers done | | busy: wall x | CPU x | |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def line(model: str, count: int, passes: str, quiet: dict[str, Any], busy: dict[str, Any] | None) -> str:
    times = quiet["cpu"] / quiet["forward_cpu"]
    cells = [
        model, str(count), f"`{passes}`", f"{quiet['forward']:.2f}", f"{quiet['seconds']:.1f}",
        f"{quiet['seconds'] / quiet['forward']:.1f}", f"{quiet['cpu']:.1f}", f"{times:.1f}",
        f"{quiet['whole_cpu']:.1f}", f"{quiet['peak_mib']:.0f}",
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
    parser.add_argument("--sessions", action="store_true", help="tell what was run, below each row")
    parser.add_argument("--out", type=Path, help="write the table here as well")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row is not None:
        model, passes, count = options.row
        print(json.dumps(measure(options.kit, model, passes, int(count), sessions=options.sessions)))
        return
    lines = list(HEAD)
    print("\n".join(lines), flush=True)
    for model in options.models:
        count = options.samples or MODELS.get(model, 256)
        for passes in options.passes:
            quiet = row(options.kit, model, passes, count, busy=False, sessions=options.sessions)
            busy = row(options.kit, model, passes, count, busy=True) if options.busy else None
            lines.append(line(model, count, passes, quiet, busy))
            print(lines[-1], *(f"    {line}" for line in quiet["runs"]), sep="\n", flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
