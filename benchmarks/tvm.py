"""Libraries built by TVM against ONNX Runtime on the same models, interleaved, at 1 and 2 threads.

    python benchmarks/tvm.py KIT [MODEL …] [--before] [--limit SECONDS]

KIT is the folder of real models. `--before` times TVM's own default pipeline as well. Ratios are of this machine; run
it on a quiet one.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from optc.compiler import read
from optc.passes.base import Context
from optc.passes.pipeline import Pipeline
from optc.passes.runner import run
from optc.runtime.latency import latency
from optc.runtime.session import Session
from optc.targets import table

MODELS = ("mobilenetv2", "squeezenet11", "cifar_resnet20", "face_rfb320", "minilm_l6")


class Default:
    """What TVM makes of the model with nothing but its own defaults."""

    emulated = False

    def __init__(self, graph: Any, threads: int) -> None:
        import tvm
        from tvm import relax
        from tvm.relax.frontend.onnx import from_onnx

        from optc.ir.writer import to_proto
        from optc.targets.tvm.machines import host

        self.threads = threads
        self.names = [value.name for value in graph.inputs]
        tvm.get_global_func("runtime.config_threadpool")(1, threads)
        built = relax.build(from_onnx(to_proto(graph)), tvm.target.Target(host().target()))
        self.main = relax.VirtualMachine(built, tvm.cpu())["main"]

    def run(self, feeds: Any) -> list[Any]:
        import tvm

        return [self.main(*(tvm.runtime.tensor(np.ascontiguousarray(feeds[name])) for name in self.names))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--before", action="store_true")
    parser.add_argument("--limit", type=float, default=3.0)
    arguments = parser.parse_args()
    target = table.parse("host")[0]
    ratios: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        graphs = {}
        feeds = {}
        for name in arguments.models:
            graphs[name] = read(str(arguments.kit / "models" / f"{name}.onnx"))
            run(Pipeline.parse("clean"), graphs[name], Context(target.facts))
            data = f"{folder}/{name}.npz"
            command = [sys.executable, str(arguments.kit / "feeds.py"), name, data, "--split", "calib"]
            subprocess.run(command, check=True, capture_output=True)
            with np.load(data) as held:
                feeds[name] = {key: held[key][:1] for key in held.files}
            start = time.perf_counter()
            target.emit(graphs[name], f"{folder}/{name}.tar")
            print(f"{name:16} built in {time.perf_counter() - start:.1f} s", flush=True)
        for threads in ratios:
            for name, graph in graphs.items():
                sessions: list[Any] = [
                    Session(graph, threads=threads),
                    target.open(f"{folder}/{name}.tar", threads=threads),
                ]
                if arguments.before:
                    sessions.append(Default(graph, threads))
                old, new, *rest = latency(sessions, feeds[name], limit=arguments.limit)
                ratios[threads].append(new.ratio)
                line = f"{name:16} {threads} threads  ONNX Runtime {1e3 * old.seconds:8.3f} ms  "
                line += f"library {1e3 * new.seconds:8.3f} ms  ratio {new.ratio:.3f} ({new.low:.3f}..{new.high:.3f})"
                line += "".join(f"  TVM's default {1e3 * one.seconds:.1f} ms" for one in rest)
                print(line, flush=True)
    for threads, found in ratios.items():
        print(f"{threads} threads: geometric mean {math.exp(sum(map(math.log, found)) / len(found)):.3f}")


if __name__ == "__main__":
    main()
