"""What the default passes make of the trained networks that ship: the table of the README.

    python benchmarks/zoo.py [--passes prune,svd,quant ...]

Fitted on each network's `calib` samples, judged on its `test` split, which no pass sees. `latency` is the median of the
result's time over the original's, both on one thread, timed in turns in this process.
"""

from __future__ import annotations

import argparse

import numpy as np

from optc.compiler import compile
from optc.ir.graph import Graph
from optc.models import zoo
from optc.runtime.latency import latency
from optc.runtime.session import Session

PIPELINES = ("clean", "quant", "prune,svd,quant", "prune:kind=channels,quant")


def accuracy(graph: Graph, name: str) -> float:
    (logits,) = Session(graph, threads=1).run(zoo.samples(name, "test"))
    return float((np.asarray(logits).argmax(1) == zoo.labels(name, "test")).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", nargs="*", default=PIPELINES)
    chosen = parser.parse_args().passes
    print("| network | passes | file | MACs | test accuracy | latency |\n|---|---|---|---|---|---|")
    for entry in zoo.entries():
        if entry.kind != "trained":
            continue
        original = zoo.load(entry.name)
        for passes in chosen:
            build = compile(f"zoo:{entry.name}", passes, threads=1, check=False)
            before, after = build.report.before, build.report.after
            sample = {key: value[:1] for key, value in zoo.samples(entry.name, "test").items()}
            timed = latency((Session(original, threads=1), Session(build.graph, threads=1)), sample, limit=5)[1]
            right = accuracy(original, entry.name), accuracy(build.graph, entry.name)
            print(
                f"| {entry.name} | `{passes}` | {after.bytes / before.bytes:.2f} | {after.macs / before.macs:.2f} "
                f"| {100 * right[0]:.1f} → {100 * right[1]:.1f} % | {timed.ratio:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
