"""Measure the architectures of the zoo, with random weights: how long each takes to build, and what quant makes of it.

    python benchmarks/families.py [NAME or FILE ...] [--samples N] [--build] [--quick]

For quant, and for ONNX Runtime's own quantizer (min-max), x is the time of the float model over that of the integers,
batch 1, one thread, all in turns in this process, and `islands` counts the float operators between integer kernels in
the graph as ONNX Runtime has optimised it. Both calibrate on made-up images, which decide no speed. `--build` measures
instead how long each network takes to build, of CPU time; `--quick` takes 4 samples and short turns. A FILE is a model
that reads one image.
"""

from __future__ import annotations

# isort: off
import optc  # noqa: F401  before numpy, as the command does it: its BLAS then knows not to wait by spinning

# isort: on
import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from quant import make, speeds

from optc.ir.graph import Graph
from optc.ir.onnx.reader import load
from optc.ir.onnx.writer import save
from optc.models import zoo
from optc.runtime.islands import islands
from optc.runtime.sources import load_samples

FAMILIES = (
    "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_lite0",
    "mnasnet_a1", "nasnet_mobile",
)  # fmt: skip
OPEN = 320
"""Sizes of an image where the model leaves them open."""
WHO = ("quant", "ort-minmax")


def built(name: str) -> tuple[Graph, float]:
    """A network, and the seconds of CPU time in which it was built."""
    start = time.process_time()
    graph = zoo.load(name)
    return graph, time.process_time() - start


def quantized(graph: Graph, count: int, folder: Path, *, seconds: float) -> str:
    """What is printed of `graph`: x and islands of each quantizer."""
    model, data = folder / "float.onnx", folder / "images.npz"
    save(graph, model)
    image = graph.inputs[0]
    sizes = [size if isinstance(size, int) else OPEN for size in (image.shape or ())[1:]]
    images = np.random.default_rng(0).normal(size=(count, *sizes)).astype(np.float32)
    np.savez(data, **{image.name: images})
    files = []
    for who in WHO:
        files.append(folder / f"{who}.onnx")
        make(who, model, data, count, files[-1])
    samples = load_samples(data, load(model))
    factors = speeds([model, *files], samples, seconds)[1:]
    between = [len(islands(load(file))) for file in files]
    return " | ".join(f"{x:.2f} | {number}" for x, number in zip(factors, between, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of the zoo, with options, or ONNX files; without any, the families")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--build", action="store_true", help="only how long each network of the zoo takes to build")
    parser.add_argument("--quick", action="store_true", help="few samples, and short turns")
    chosen = parser.parse_args()
    count, seconds = (4, 1.0) if chosen.quick else (chosen.samples, 10.0)
    if chosen.build:
        print("| network | parameters, MB | built in, s |\n|---|---|---|")
        for name in chosen.names or [entry.name for entry in zoo.entries() if entry.kind == "architecture"]:
            graph, taken = built(name)
            size = sum(v.constant.nbytes for v in graph.constants if v.constant is not None)
            print(f"| `{name}` | {size / 1e6:.1f} | {taken:.2f} |", flush=True)
        return
    print("| network | x, quant | islands | x, ONNX Runtime | islands |\n|---|---|---|---|---|")
    for name in chosen.names or FAMILIES:
        graph = load(name) if name.endswith(".onnx") else zoo.load(name)
        with tempfile.TemporaryDirectory() as folder:
            row = quantized(graph, count, Path(folder), seconds=seconds)
        print(f"| `{Path(name).name}` | {row} |", flush=True)


if __name__ == "__main__":
    main()
