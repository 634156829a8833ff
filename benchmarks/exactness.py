"""How exactly libraries answer as quantized models say: layer by layer, and from end to end.

    python benchmarks/exactness.py KIT QUANTIZED [MODEL ...] [--target host] [--images 4]

KIT is the folder of real models, QUANTIZED one of quantized models of the same names. What libraries are held to from
end to end are the integer kernels that ONNX Runtime makes of the file: they alone give an answer that can be repeated
bit by bit. Codes are made unsigned for them, which says the same, because kernels for signed weights saturate on x86
without VNNI; the kinds of operators that stay float are named.

The other reference is ONNX Runtime with quantized operators computed in floats, as QuantizeLinear and DequantizeLinear
say. Layer by layer: the model is cut at every code, and each part is given the codes that this one has there. Integer
sums are exact, so what differs are quotients that come out halfway between two codes in one order of float operations
and beside it in another. From end to end each of these few grows from layer to layer. The last column says how far two
float evaluations of the same file by ONNX Runtime are apart, optimised and node by node: nothing can be expected to be
nearer to one of them than they are to each other. A step is 1/255 of the range of an output.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from optc.compiler import read
from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.passes.base import Context
from optc.passes.pipeline import Pipeline
from optc.passes.runner import run
from optc.runtime.islands import is_integer, optimised
from optc.runtime.session import Session
from optc.targets import table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from unsigned import unsigned

MODELS = ("mobilenetv2", "squeezenet11", "cifar_resnet20", "face_rfb320", "kws_dscnn")


def cut(graph: Graph) -> Graph:
    """`graph` with every code an output, and read from an input."""
    parts = graph.clone()
    for index, node in enumerate([node for node in parts if node.op == "QuantizeLinear"]):
        codes = node.output
        codes.replace_uses(parts.add_input(f"codes{index}", codes.type))
        parts.add_output(codes, f"made{index}")
    infer(parts)
    return parts


def pairs(got: list[list[Any]], want: list[list[Any]]) -> list[tuple[Any, Any]]:
    """Output by output, of every run."""
    return [pair for one in zip(got, want, strict=True) for pair in zip(*one, strict=True)]


def within(got: list[list[Any]], want: list[list[Any]]) -> tuple[float, float]:
    """The share of elements that are at most one step apart, and the most steps that any is."""
    steps = np.concatenate([(np.abs(x - y) * 255 / np.ptp(y)).ravel() for x, y in pairs(got, want)])
    return float(np.mean(steps <= 1)), float(steps.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("quantized", type=Path)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--target", default="host")
    parser.add_argument("--images", type=int, default=4)
    arguments = parser.parse_args()
    target: Any = table.parse(arguments.target)[0]
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            data = f"{folder}/feeds.npz"
            command = [sys.executable, str(arguments.kit / "feeds.py"), name, data, "--split", "calib"]
            subprocess.run(command, check=True, capture_output=True)
            with np.load(data) as arrays:
                feeds = [{key: arrays[key][i : i + 1] for key in arrays.files} for i in range(arguments.images)]
            graph = read(str(arguments.quantized / f"{name}.onnx"))
            passes = Pipeline((*Pipeline.parse("clean").passes, *target.legalisation().passes))
            run(passes, graph, Context(target.facts))
            infer(graph)
            makers = [node for node in graph if node.op == "QuantizeLinear"]
            values = [output.value for output in graph.outputs]
            reference = Session(graph, threads=1, exact=True, outputs=[*values, *(node.output for node in makers)])
            expected = [reference.run(feed) for feed in feeds]
            want, codes = [one[: len(values)] for one in expected], [one[len(values) :] for one in expected]

            parts = cut(graph)
            target.emit(parts, f"{folder}/parts.tar")
            opened = target.open(f"{folder}/parts.tar", threads=1)
            counts, differing, most = np.zeros(len(makers)), np.zeros(len(makers)), 0
            for feed, inputs in zip(feeds, codes, strict=True):
                results = opened.run({**feed, **{f"codes{i}": one for i, one in enumerate(inputs)}})[len(values) :]
                for i, (x, y) in enumerate(zip(results, inputs, strict=True)):
                    apart = np.abs(x.astype(int) - y.astype(int))
                    counts[i] += apart.size
                    differing[i] += np.count_nonzero(apart)
                    most = max(most, int(apart.max()))
            worst = float(np.max(differing / counts))
            print(
                f"{name:16} {len(makers)} layers, {counts.sum():,.0f} codes: {differing.sum():.0f} differ, by {most} "
                f"at most; {1 - worst:.4%} the same in the worst layer",
                flush=True,
            )
            target.emit(graph.clone(), f"{folder}/whole.tar")
            opened = target.open(f"{folder}/whole.tar", threads=1)
            plain = Session(graph, threads=1, optimise=False)
            answers = [opened.run(feed) for feed in feeds]
            coded = unsigned(graph)
            kernels = Session(coded, threads=1)
            wanted = [kernels.run(feed) for feed in feeds]
            exact = within(answers, wanted)
            same = np.mean(np.concatenate([np.equal(*pair).ravel() for pair in pairs(answers, wanted)]))
            floats = sorted({node.op_type for node in optimised(coded).node if not is_integer(node.op_type)})
            print(
                f"{name:16} end to end against integer kernels {exact[0]:.4%} within a step, {exact[1]:.2f} steps at "
                f"most, {same:.4%} the same bits; others there: {', '.join(floats)}",
                flush=True,
            )
            ours = within(answers, want)
            floor = within([plain.run(feed) for feed in feeds], want)
            print(
                f"{name:16} end to end against floats {ours[0]:.4%} within a step, {ours[1]:.2f} steps at most; these "
                f"node by node {floor[0]:.4%}, {floor[1]:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
