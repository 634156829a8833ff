"""Random graphs answer the same after `clean`, and cleaning them again changes nothing.

Each graph is grown from a seed: operators, constants of every shape that broadcasts, values read twice, some outputs,
static and symbolic batch sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from equivalence import assert_equivalent, feeds

from optc.ir.graph import Graph
from optc.ir.node import Node, Value
from optc.ir.onnx.writer import size
from optc.ir.shapes.infer import infer
from optc.ir.text.dump import dump
from optc.ir.types import DType, TensorType
from optc.ir.verify.verify import verify
from optc.passes.base import Context, TargetFacts
from optc.passes.clean import Clean

CHUNKS = 8
EACH = 40
ULPS = 16.0


class Grower:
    """Grows one graph: `pool` holds the values made so far, with their shapes for a batch of 2."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.graph = Graph("random", opsets={"": int(self.random.choice([11, 13, 17, 18, 21]))})
        batch = "N" if self.random.random() < 0.7 else 2
        self.pool: list[tuple[Value, tuple[int, ...]]] = []
        for name, shape in (("x", (4, 6, 6)), ("v", (8,)), ("t", (3, 8))):
            value = self.graph.add_input(name, TensorType(DType.FLOAT, (batch, *shape)))
            self.pool.append((value, (2, *shape)))

    def constant(self, *shape: int, low: float = -2.0, high: float = 2.0) -> Value:
        data = self.random.uniform(low, high, shape).astype(np.float32)
        if self.random.random() < 0.15:
            data = np.full(shape, self.random.choice([0.0, 1.0]), np.float32)
        return self.graph.constant(data)

    def integers(self, *numbers: int) -> Value:
        return self.graph.constant(np.asarray(numbers, np.int64))

    def axes(self, op: str, value: Value, axes: Sequence[int], since: int) -> Node:
        if self.graph.opset() >= since:
            return self.graph.add(op, [value, self.integers(*axes)])
        return self.graph.add(op, [value], {"axes": list(axes)})

    def keep(self, node: Node, shape: Sequence[int]) -> None:
        self.pool.append((node.output, tuple(shape)))

    def grow(self) -> None:
        value, shape = self.pool[int(self.random.integers(max(0, len(self.pool) - 4), len(self.pool)))]
        makers: list[Callable[[Value, tuple[int, ...]], None]] = [
            self.arithmetic,
            self.unary,
            self.view,
            self.move,
            self.cut,
        ]
        if len(shape) == 4:
            makers += [self.convolution, self.convolution, self.normalise, self.normalise, self.pad_or_pool]
        if len(shape) in (2, 3):
            makers += [self.product, self.product]
        if len(shape) == 2:
            makers.append(self.normalise)
        makers[int(self.random.integers(len(makers)))](value, shape)

    def arithmetic(self, value: Value, shape: tuple[int, ...]) -> None:
        op = str(self.random.choice(["Add", "Sub", "Mul", "Div"]))
        kind = self.random.integers(5)
        if kind == 0:
            same = [v for v, s in self.pool if s == shape]
            other = same[int(self.random.integers(len(same)))]
            op = str(self.random.choice(["Add", "Mul"]))
        elif kind == 1:
            other = self.constant(low=0.5)
        else:
            sizes = [1] * len(shape)
            axis = int(self.random.integers(1, len(shape)))
            sizes[axis] = shape[axis]
            if self.random.random() < 0.5:
                sizes = sizes[int(self.random.integers(0, axis + 1)) :]
            other = self.constant(*sizes, low=0.5)
        pair = [value, other] if op == "Div" or self.random.random() < 0.6 else [other, value]
        self.keep(self.graph.add(op, pair), shape)

    def unary(self, value: Value, shape: tuple[int, ...]) -> None:
        op = str(self.random.choice(["Relu", "Neg", "Identity", "Abs", "Sigmoid", "Clip", "Cast", "Dropout"]))
        if op == "Clip":
            bounds = sorted(self.random.uniform(-2, 2, 2).astype(np.float32).tolist())
            operands = [value, *(self.graph.constant(np.float32(b)) for b in bounds)]
            self.keep(self.graph.add(op, operands[: int(self.random.integers(2, 4))]), shape)
        else:
            self.keep(self.graph.add(op, [value], {"to": 1} if op == "Cast" else {}), shape)

    def view(self, value: Value, shape: tuple[int, ...]) -> None:
        kind = self.random.integers(5)
        if kind == 0:
            axis = int(self.random.integers(0, len(shape) + 1))
            result = self.axes("Unsqueeze", value, [axis], 13)
            self.keep(result, (*shape[:axis], 1, *shape[axis:]))
            if self.random.random() < 0.7:
                self.keep(self.axes("Squeeze", result.output, [axis], 13), shape)
        elif kind == 1:
            self.keep(self.graph.add("Flatten", [value], {"axis": 1}), (shape[0], int(np.prod(shape[1:]))))
        elif kind == 2 and len(shape) > 2:
            merged = (*shape[:-2], shape[-2] * shape[-1])
            self.keep(self.graph.add("Reshape", [value, self.integers(0, *merged[1:])]), merged)
        else:
            batch = self.graph.add("Gather", [self.graph.add("Shape", [value]).output, self.integers(0)])
            rest = self.integers(int(np.prod(shape[1:])))
            target = self.graph.add("Concat", [batch.output, rest], {"axis": 0})
            result = self.graph.add("Reshape", [value, target.output])
            self.keep(result, (shape[0], int(np.prod(shape[1:]))))
            self.keep(self.graph.add("Reshape", [result.output, self.integers(-1, *shape[1:])]), shape)

    def move(self, value: Value, shape: tuple[int, ...]) -> None:
        perm = [0, *(1 + self.random.permutation(len(shape) - 1)).tolist()]
        result = self.graph.add("Transpose", [value], {"perm": perm})
        self.keep(result, [shape[p] for p in perm])
        if self.random.random() < 0.5:
            back = np.argsort(perm).tolist()
            self.keep(self.graph.add("Transpose", [result.output], {"perm": back}), shape)

    def cut(self, value: Value, shape: tuple[int, ...]) -> None:
        axis = int(self.random.integers(1, len(shape)))
        length = shape[axis]
        if self.random.random() < 0.5:
            joined = self.graph.add("Concat", [value, value], {"axis": axis})
            value, length = joined.output, 2 * length
            self.keep(joined, [length if i == axis else d for i, d in enumerate(shape)])
        start = int(self.random.choice([0, length // 2]))
        end = int(self.random.choice([length, np.iinfo(np.int64).max])) if start else max(1, length // 2)
        bounds = [self.integers(start), self.integers(end), self.integers(axis)]
        size = min(end, length) - start
        self.keep(self.graph.add("Slice", [value, *bounds]), [size if i == axis else d for i, d in enumerate(shape)])

    def convolution(self, value: Value, shape: tuple[int, ...]) -> None:
        _, channels, height, width = shape
        groups = int(self.random.choice([1, 1, channels]))
        kernel = 1 if min(height, width) < 3 or self.random.random() < 0.4 else 3
        out = groups * int(self.random.choice([1, 2])) if groups > 1 else int(self.random.choice([2, 4]))
        bias = [self.constant(out)] if self.random.random() < 0.5 else []
        pad = int(self.random.choice([0, kernel // 2]))
        if self.random.random() < 0.25:
            weight = self.constant(channels, out // groups, kernel, kernel)
            result = self.graph.add("ConvTranspose", [value, weight, *bias], {"group": groups})
            self.keep(result, (2, out, height + kernel - 1, width + kernel - 1))
            return
        weight = self.constant(out, channels // groups, kernel, kernel)
        result = self.graph.add("Conv", [value, weight, *bias], {"group": groups, "pads": [pad] * 4})
        self.keep(result, (2, out, height + 2 * pad - kernel + 1, width + 2 * pad - kernel + 1))

    def normalise(self, value: Value, shape: tuple[int, ...]) -> None:
        figures = [self.constant(shape[1], low=0.5) for _ in range(4)]
        self.keep(self.graph.add("BatchNormalization", [value, *figures]), shape)

    def pad_or_pool(self, value: Value, shape: tuple[int, ...]) -> None:
        kind = self.random.integers(3)
        if kind == 0:
            low, high = self.random.integers(0, 2, 2).tolist()
            result = self.graph.add("Pad", [value, self.integers(0, 0, low, low, 0, 0, high, high)])
            self.keep(result, (*shape[:2], shape[2] + low + high, shape[3] + low + high))
        elif kind == 1 and min(shape[2:]) > 1:
            op = str(self.random.choice(["AveragePool", "MaxPool"]))
            result = self.graph.add(op, [value], {"kernel_shape": [2, 2]})
            self.keep(result, (*shape[:2], shape[2] - 1, shape[3] - 1))
        else:
            pooled = self.graph.add("GlobalAveragePool", [value])
            self.keep(pooled, (*shape[:2], 1, 1))
            self.keep(self.graph.add("Flatten", [pooled.output]), shape[:2])

    def product(self, value: Value, shape: tuple[int, ...]) -> None:
        out = int(self.random.choice([2, 5]))
        if len(shape) == 2 and self.random.random() < 0.5:
            turned = int(self.random.integers(2))
            weight = self.constant(*((out, shape[1]) if turned else (shape[1], out)))
            bias = [self.constant(*(((out,), (1, out), (1,))[int(self.random.integers(3))]))]
            scales = {"transB": turned, "alpha": 0.5, "beta": float(self.random.choice([1.0, 2.0]))}
            self.keep(self.graph.add("Gemm", [value, weight, *bias], scales), (shape[0], out))
            return
        result = self.graph.add("MatMul", [value, self.constant(shape[-1], out)])
        self.keep(result, (*shape[:-1], out))
        if self.random.random() < 0.5:
            self.keep(self.graph.add("Add", [result.output, self.constant(out)]), (*shape[:-1], out))

    def finish(self) -> Graph:
        unread = [value for value, _ in self.pool if value.producer is not None and not value.uses]
        values = [value for value, _ in self.pool if value.producer is not None and value.uses]
        for index, value in enumerate(unread[-5:] + values[-1:]):
            self.graph.add_output(value, f"y{index}")
        infer(self.graph)
        for output in self.graph.outputs:
            output.type = output.value.type
        return self.graph


def random_graph(seed: int) -> Graph:
    grower = Grower(seed)
    for _ in range(int(grower.random.integers(3, 16))):
        grower.grow()
    return grower.finish()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_graphs_answer_the_same(chunk: int) -> None:
    fired: set[str] = set()
    for seed in range(chunk * EACH, (chunk + 1) * EACH):
        original, graph = random_graph(seed), random_graph(seed)
        verify(original)
        before = size(graph)
        fired |= Clean().run(graph, Context(TargetFacts("onnx"))).rewrites.keys()
        verify(graph)
        assert size(graph) <= before + 128, seed
        try:
            assert_equivalent(original, graph, feeds(original, seed), ulps=ULPS)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n{dump(original)}\n{dump(graph)}") from error
        text = dump(graph, tensors="inline")
        again = Clean().run(graph, Context(TargetFacts("onnx")))
        assert not again.rewrites, f"seed {seed}"
        assert dump(graph, tensors="inline") == text, f"seed {seed}"
    assert len(fired) > 5
