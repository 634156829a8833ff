"""Libraries built by TVM against ONNX Runtime on the same models, interleaved, at 1 and 2 threads.

    python benchmarks/libraries.py KIT [MODEL …] [--before] [--limit SECONDS] [--quantized FOLDER]

KIT is the folder of real models. `--before` times TVM's own default pipeline as well. With a FOLDER of quantized models
(NAME.onnx, QuantizeLinear and DequantizeLinear), each is built too and set against the float library and against ONNX
Runtime on the same file: how much faster, how small, and how many elements of its answer differ by more than one step
from what ONNX Runtime's integer kernels answer (a step is 1/255 of the range of an output; float evaluations node by
node are further from each other than that, see `exactness.py`). Ratios are of this machine; run it on a quiet one.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tarfile
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

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from unsigned import unsigned

MODELS = ("mobilenetv2", "squeezenet11", "cifar_resnet20", "face_rfb320", "minilm_l6")

_SAMPLES = 8


class Default:
    """What TVM makes of the model with nothing but its own defaults."""

    emulated = False

    def __init__(self, graph: Any, threads: int) -> None:
        import tvm
        from tvm import relax
        from tvm.relax.frontend.onnx import from_onnx

        from optc.ir.onnx.writer import to_proto
        from optc.targets.tvm.cpu.machines import host

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
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quantized", type=Path)
    arguments = parser.parse_args()
    target = table.parse("host")[0]
    ratios: dict[int, list[float]] = {threads: [] for threads in arguments.threads}
    gains: dict[int, list[float]] = {threads: [] for threads in arguments.threads}
    coded: dict[int, list[float]] = {threads: [] for threads in arguments.threads}
    with tempfile.TemporaryDirectory() as folder:
        graphs = {}
        feeds = {}
        for name in arguments.models:
            graphs[name] = read(str(arguments.kit / "models" / f"{name}.onnx"))
            run(Pipeline.parse("clean"), graphs[name], Context(target.facts))
            data = f"{folder}/{name}.npz"
            command = [sys.executable, str(arguments.kit / "feeds.py"), name, data, "--split", "calib"]
            subprocess.run(command, check=True, capture_output=True)
            with np.load(data) as arrays:
                feeds[name] = {key: arrays[key][:1] for key in arrays.files}
                samples = [{key: arrays[key][i : i + 1] for key in arrays.files} for i in range(_SAMPLES)]
            start = time.perf_counter()
            target.emit(graphs[name], f"{folder}/{name}.tar")
            print(f"{name:16} built in {time.perf_counter() - start:.1f} s", flush=True)
            if arguments.quantized is not None:
                quantized(arguments, name, target, f"{folder}/{name}.int8.tar", samples)
        for threads in ratios:
            for name, graph in graphs.items():
                sessions: list[Any] = [
                    Session(graph, threads=threads),
                    target.open(f"{folder}/{name}.tar", threads=threads),
                ]
                if arguments.quantized is not None:
                    sessions.append(target.open(f"{folder}/{name}.int8.tar", threads=threads))
                    sessions.append(Session.open(arguments.quantized / f"{name}.onnx", threads=threads))
                if arguments.before:
                    sessions.append(Default(graph, threads))
                old, new, *rest = latency(sessions, feeds[name], limit=arguments.limit)
                ratios[threads].append(new.ratio)
                integer, theirs = (rest.pop(0), rest.pop(0)) if arguments.quantized is not None else (None, None)
                line = f"{name:16} {threads} threads  ONNX Runtime {1e3 * old.seconds:8.3f} ms  "
                line += f"library {1e3 * new.seconds:8.3f} ms  ratio {new.ratio:.3f} ({new.low:.3f}..{new.high:.3f})"
                if integer is not None and theirs is not None:
                    gains[threads].append(new.seconds / integer.seconds)
                    coded[threads].append(integer.ratio / theirs.ratio)
                    line += f"  int8 {1e3 * integer.seconds:8.3f} ms, {gains[threads][-1]:.2f} times as fast"
                    line += f", {coded[threads][-1]:.3f} of ONNX Runtime's int8"
                line += "".join(f"  TVM's default {1e3 * one.seconds:.1f} ms" for one in rest)
                print(line, flush=True)
    for threads, measured in ratios.items():
        print(f"{threads} threads: geometric mean {_mean(measured):.3f}")
        if gains[threads]:
            print(f"{threads} threads: int8 is {_mean(gains[threads]):.2f} times as fast (geometric mean)")
            print(f"{threads} threads: int8 takes {_mean(coded[threads]):.3f} of the time of ONNX Runtime's int8")


def quantized(arguments: argparse.Namespace, name: str, target: Any, path: str, samples: list[Any]) -> None:
    """Build a quantized model and print what became of its size and its answers."""
    graph = read(str(arguments.quantized / f"{name}.onnx"))
    reference = Session(unsigned(graph), threads=1)
    run(Pipeline((*Pipeline.parse("clean").passes, *target.legalisation().passes)), graph, Context(target.facts))
    start = time.perf_counter()
    target.emit(graph, path)
    taken = time.perf_counter() - start
    opened = target.open(path, threads=1)
    within = []
    for feed in samples:
        for got, want in zip(opened.run(feed), reference.run(feed), strict=True):
            within.append((np.abs(got - want) <= np.ptp(want) / 255).ravel())
    with tarfile.open(path) as tar:
        size = next(entry.size for entry in tar.getmembers() if entry.name == "model.so")
    small = size / (arguments.kit / "models" / f"{name}.onnx").stat().st_size
    share = float(np.mean(np.concatenate(within)))
    print(
        f"{name:16} int8 built in {taken:.1f} s, {small:.3f} of the float file, {share:.4%} within a step", flush=True
    )


def _mean(measured: list[float]) -> float:
    return math.exp(sum(map(math.log, measured)) / len(measured))


if __name__ == "__main__":
    main()
