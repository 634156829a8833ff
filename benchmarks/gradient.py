"""What a step costs: forward and backward as a multiple of the forward pass in the same form (weights as inputs).

    python benchmarks/gradient.py [MODEL.onnx:BATCH ...] [--rounds 9]

Without models, networks of the zoo stand in. The two are timed in turns, on one thread, and the least CPU time of each
counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from optc.ir.clone import clone
from optc.ir.gradient.differentiate import differentiate
from optc.ir.graph import Graph, Value
from optc.ir.onnx.reader import load
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.models import zoo
from optc.runtime.session import bare
from optc.runtime.training.blocked import block_convolutions, channel_block

STAND_INS = ("zoo:mobilenet_v2:16", "zoo:efficientnet_lite0:16", "zoo:digits_resnet:64")


def opened(name: str) -> tuple[Graph, int]:
    path, _, batch = name.rpartition(":")
    graph = zoo.load(path.removeprefix("zoo:")) if path.startswith("zoo:") else load(path)
    return cleaned(graph), int(batch)


def cleaned(graph: Graph) -> Graph:
    """Without what exporters leave around: as `optc` trains it."""
    from optc.passes.base import Context, TargetFacts
    from optc.passes.clean.clean import Clean

    infer(graph)
    Clean().run(graph, Context(TargetFacts("onnx")))
    infer(graph)
    return graph


def with_inputs(graph: Graph) -> tuple[Graph, list[Value]]:
    """A copy in which float constants of more than one element are inputs."""
    copies: dict[Value, Value] = {}
    copy = clone(graph, copies)
    weights = []
    for i, value in enumerate([v for v in copy.constants if v.dtype is DType.FLOAT and len(v.static_shape or ()) > 0]):
        assert value.constant is not None
        if value.constant.size > 1:
            weights.append(copy.add_input(f"w{i}", value.type))
            weights[-1].default = value.constant
            value.replace_uses(weights[-1])
    return copy, weights


def feeds(graph: Graph, batch: int, length: int = 48) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    arrays = {}
    for value in graph.inputs:
        if value.default is not None:
            arrays[value.name] = np.ascontiguousarray(value.default.numpy())
            continue
        assert isinstance(value.type, TensorType)
        assert value.type.shape is not None
        shape = [d if isinstance(d, int) else batch if axis == 0 else length for axis, d in enumerate(value.type.shape)]
        dtype = value.type.dtype.numpy
        integral = dtype.kind in "iu"
        arrays[value.name] = (np.ones(shape) if integral else random.standard_normal(shape)).astype(dtype)
    return arrays


def runner(graph: Graph, batch: int) -> Callable[[], object]:
    arrays = feeds(graph, batch)
    copy = graph.clone()
    for value in copy.inputs:
        value.default = None
    session = bare(copy, threads=1)
    names = [output.name for output in copy.outputs]
    import onnxruntime

    binding = session.io_binding()
    for name in (v.name for v in copy.inputs):
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(arrays[name]))
    for name in names:
        binding.bind_output(name)
    return lambda: session.run_with_iobinding(binding)


def differentiated(graph: Graph, weights: list[Value]) -> Graph:
    seeds: dict[Value, Value | None] = {output.value: None for output in graph.outputs[:1]}
    block = channel_block()
    gradients = differentiate(graph, seeds, weights, by_sample=block > 0)
    while graph.outputs:
        graph.remove_output(len(graph.outputs) - 1)
    for i, value in enumerate(gradients.of.values()):
        graph.add_output(value, f"gradient{i}", value.type)
    graph.sweep()
    block_convolutions(graph, block)
    return graph


def least(work: list[Callable[[], object]], rounds: int) -> list[float]:
    times = [float("inf")] * len(work)
    for _ in range(rounds):
        for i, one in enumerate(work):
            start = time.process_time()
            one()
            times[i] = min(times[i], time.process_time() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=STAND_INS)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(f"{'model':40} {'batch':>5} {'forward ms':>11} {'step ms':>9} {'multiple':>9}")
    for name in arguments.models:
        graph, batch = opened(name)
        forward, _ = with_inputs(graph)
        both = differentiated(*with_inputs(graph))
        first, second = least([runner(forward, batch), runner(both, batch)], arguments.rounds)
        label = Path(name).stem if name.endswith(str(batch)) and "/" in name else name
        print(f"{label:40} {batch:5} {1e3 * first:11.1f} {1e3 * second:9.1f} {second / first:9.2f}", flush=True)


if __name__ == "__main__":
    main()
