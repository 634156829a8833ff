"""Networks to walk over, with samples and a teacher, and how far a student is from it."""

from __future__ import annotations

import numpy as np

from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.ir.verify.verify import verify
from optc.passes.base import Context, TargetFacts
from optc.runtime.session import Session
from optc.runtime.sources import load_samples


class Net:
    """A small convolutional graph in the making."""

    def __init__(self, *, batch: str | int = "N", channels: int = 8, size: int = 6, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph("net", opsets={"": 17})
        self.x = self.graph.add_input("x", TensorType(DType.FLOAT, (batch, channels, size, size)))
        self.batch = batch

    def weight(self, *shape: int) -> Value:
        scale = 1.0 / np.sqrt(np.prod(shape[1:]))
        return self.graph.constant((self.rng.normal(size=shape) * scale).astype(np.float32))

    def conv(self, x: Value, n: int, c: int, k: int = 3, *, bias: bool = True, **attributes: object) -> Value:
        inputs = [x, self.weight(n, c, k, k), *([self.weight(n)] if bias else [])]
        attributes = {"pads": [k // 2] * 4, **attributes}
        return self.graph.add("Conv", inputs, attributes, name=f"conv{len(self.graph)}", outputs=["y"]).output

    def add(self, op: str, *inputs: Value, **attributes: object) -> Value:
        return self.graph.add(op, inputs, attributes).output

    def done(self, *outputs: Value) -> Graph:
        for i, value in enumerate(outputs):
            self.graph.add_output(value, f"out{i}", TensorType(DType.FLOAT, None))
        for i, node in enumerate(self.graph):
            for value in node.outputs:
                value.name = f"v{i}"
        infer(self.graph)
        verify(self.graph)
        return self.graph


def residual_net(**options: int | str) -> Graph:
    """Linear bottlenecks as in MobileNetV2: the skip value is itself a convolution's output."""
    net = Net(**options)
    a = net.conv(net.add("Relu", net.conv(net.x, 16, 8)), 8, 16, 1)
    b = net.conv(net.add("Relu", net.conv(a, 16, 8, 1)), 8, 16, 3)
    c = net.add("Add", b, a)
    d = net.conv(net.add("Relu", net.conv(c, 16, 8, 3, strides=[2, 2])), 8, 16, 3)
    short = net.conv(c, 8, 8, 1, strides=[2, 2], bias=False)
    e = net.add("Relu", net.add("Add", d, short))
    f = net.add("Flatten", net.add("GlobalAveragePool", e))
    head = net.graph.add("Gemm", [f, net.weight(5, 8), net.weight(5)], {"transB": 1}, name="head").output
    return net.done(head)


def context(graph: Graph, count: int = 64, seed: int = 1) -> Context:
    rng = np.random.default_rng(seed)
    shape = [d if isinstance(d, int) else count for d in graph.inputs[0].shape or ()]
    if graph.inputs[0].shape and isinstance(graph.inputs[0].shape[0], int):
        feeds = [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(count)]
        samples = load_samples(feeds, graph)
    else:
        samples = load_samples({"x": rng.normal(size=shape).astype(np.float32)}, graph)
    return Context(TargetFacts("onnx", measurable=False), teacher=graph.clone(), fit=samples, threads=1)


def distance(teacher: Graph, student: Graph, ctx: Context) -> float:
    """Relative squared error of the first output over the samples."""
    assert ctx.fit is not None
    a, b = Session(teacher, threads=1), Session(student, threads=1)
    pairs = [(a.run(feeds)[0], b.run(feeds)[0]) for feeds in ctx.fit.batches(16)]
    y, z = (np.concatenate([pair[i] for pair in pairs]).astype(float) for i in (0, 1))
    return float(np.sum((y - z) ** 2) / np.sum((y - y.mean(axis=0)) ** 2))
