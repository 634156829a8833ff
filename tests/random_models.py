"""Random models of many operators and several outputs, and what a target of TVM makes of them.

Operators, types, odd sizes and opsets (11 to 21) are drawn; each operator reads what came before, so that many are
fused, read twice, or are outputs and read at once. Numbers are small and some are NaN or infinite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optc.errors import OptcError
from optc.ir.graph import Graph, Value
from optc.ir.onnx.writer import save
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.runtime.session import Session

_TOLERANCE = {"float32": 2e-4, "float16": 1e-2, "float64": 1e-7}


@dataclass(frozen=True, slots=True)
class Model:
    graph: Graph
    feeds: dict[str, np.ndarray]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save(self.graph, folder / "model.onnx")
        np.savez(folder / "test.npz", **{name: feed[None] for name, feed in self.feeds.items()})


@dataclass(frozen=True, slots=True)
class Verdict:
    """`kind` is equal, refused (by name), skipped (ONNX Runtime does not run it), unnamed, wrong or crash."""

    kind: str
    why: str = ""


def random_model(seed: int, operators: int = 14) -> Model:
    return _Maker(seed).model(operators)


class _Maker:
    def __init__(self, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.opset = int(self.draw.choice([11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]))
        self.graph = Graph(f"random{seed}", opsets={"": self.opset})
        self.feeds: dict[str, np.ndarray] = {}
        self.kind = str(self.draw.choice(["float32", "float32", "float32", "float16", "float64"]))
        self.values: list[Value] = []

    def model(self, operators: int) -> Model:
        batch, channels = int(self.draw.integers(1, 4)), int(self.draw.choice([1, 3, 5, 8, 16]))
        height, width = (int(self.draw.integers(3, 10)) for _ in range(2))
        self._input("image", (batch, channels, height, width), self.kind)
        self._input("row", (width,), self.kind)
        self._input("codes", (batch, channels, height, width), str(self.draw.choice(["int32", "int64"])))
        kinds = [
            self._unary,
            self._binary,
            self._compare,
            self._shape,
            self._reduce,
            self._layer,
            self._whole,
            self._pick,
        ]
        for _ in range(operators):
            result = None
            while result is None:
                result = kinds[int(self.draw.integers(len(kinds)))]()
            self.values.append(result)
        unread = [value for value in self.values if not value.uses and value.producer is not None]
        also = [
            value for value in self.values if value.uses and value.producer is not None and self.draw.random() < 0.2
        ]
        for index, value in enumerate((*unread, *also)):
            self.graph.add_output(value, f"y{index}")
        return Model(self.graph, self.feeds)

    def _input(self, name: str, shape: tuple[int, ...], kind: str) -> None:
        if kind.startswith("float"):
            data = self.draw.normal(size=shape)
            data[self.draw.random(shape) < 0.01] = np.nan if self.draw.random() < 0.2 else 0.0
        else:
            data = self.draw.integers(-5, 6, shape)
        self.feeds[name] = np.asarray(data, kind)
        self.values.append(self.graph.add_input(name, TensorType(DType.of(np.dtype(kind)), shape)))

    def _of(self, right: Callable[[Value], bool]) -> Value | None:
        fits = [value for value in self.values if value.static_shape is not None and right(value)]
        return fits[int(self.draw.integers(max(0, len(fits) - 6), len(fits)))] if fits else None

    def _float(self, rank: int | None = None) -> Value | None:
        return self._of(lambda v: _name(v) == self.kind and (rank is None or len(v.static_shape or ()) == rank))

    def _add(self, op: str, inputs: list[Value | None], **attributes: Any) -> Value:
        result = self.graph.add(op, inputs, attributes).output
        infer(self.graph)
        return result

    def _number(self, value: Any, kind: str | None = None) -> Value:
        return self.graph.constant(np.asarray(value, kind or self.kind))

    def _unary(self) -> Value | None:
        ops = "Relu Sigmoid Tanh Abs Neg Exp Sqrt Floor Ceil Sign Erf LeakyRelu HardSigmoid Selu Cos Sin"
        if self.kind == "float32":
            ops += " Softsign Round Reciprocal Log ThresholdedRelu Softplus Elu Atan"
        if self.kind == "float32" and self.opset >= 14:
            ops += " HardSwish"
        x = self._float()
        return None if x is None else self._add(str(self.draw.choice(ops.split())), [x])

    def _binary(self) -> Value | None:
        x, y = self._float(), self._float()
        if x is None or y is None or not _fit(x, y):
            y = self._number(self.draw.choice([0.5, 2.0, -1.0, 3.0, 0.0]))
        op = str(self.draw.choice(["Add", "Sub", "Mul", "Div", "Max", "Min", "Add", "Mul"]))
        return None if x is None else self._add(op, [x, y] if self.draw.random() < 0.7 else [y, x])

    def _compare(self) -> Value | None:
        x = self._float()
        if x is None:
            return None
        y = self._of(lambda v: _name(v) == self.kind and _fit(x, v)) or x
        truth = self._add(str(self.draw.choice(["Greater", "Less", "Equal"])), [x, y])
        if self.draw.random() < 0.5:
            truth = self._add("Not", [truth])
        other = self._of(lambda v: _name(v) == "bool" and _fit(truth, v))
        if other is not None:
            truth = self._add(str(self.draw.choice(["And", "Or", "Xor"])), [truth, other])
        if self.draw.random() < 0.5:
            return self._add("Where", [truth, x, y])
        return truth if self.draw.random() < 0.5 else self._add("Cast", [truth], to=int(DType.of(np.dtype(self.kind))))

    def _shape(self) -> Value | None:
        x = self._of(lambda v: len(v.static_shape or ()) >= 2)
        if x is None:
            return None
        shape = x.static_shape or ()
        axis = int(self.draw.integers(len(shape)))
        match int(self.draw.integers(8)):
            case 0:
                return self._add("Transpose", [x], perm=[int(i) for i in self.draw.permutation(len(shape))])
            case 1:
                return self._add("Reshape", [x, self._number([-1, shape[axis]], "int64")])
            case 2:
                return self._add("Concat", [x, x], axis=axis)
            case 3:
                ends = [self._number([n], "int64") for n in (1 if shape[axis] > 1 else 0, 2**31, axis, 1 + axis % 2)]
                return self._add("Slice", [x, *ends])
            case 4 if shape[axis] > 1:
                node = self.graph.add("Split", [x], {"axis": axis}, outputs=["", ""]) if shape[axis] % 2 == 0 else None
                if node is None or self.opset >= 18:
                    if node is not None:
                        node.set_attribute("num_outputs", 2)
                    else:
                        return None
                infer(self.graph)
                self.values.append(node.outputs[1])
                return node.outputs[0]
            case 5:
                pads = [int(n) for n in self.draw.integers(0, 3, 2 * len(shape))]
                return (
                    self._add("Pad", [x, self._number(pads, "int64")], mode="constant") if _name(x) != "bool" else None
                )
            case 6:
                return self._add("Gather", [x, self._number([0, shape[axis] - 1, 0], "int64")], axis=axis)
            case _:
                return self._add("Expand", [x, self._number([2, *([1] * len(shape))], "int64")])

    def _reduce(self) -> Value | None:
        x = self._float()
        if x is None or not x.static_shape:
            return None
        axis = int(self.draw.integers(len(x.static_shape)))
        ops = [
            "ReduceMax",
            "ReduceMin",
            "ReduceMean",
            "ReduceSum",
            "Softmax",
            "LogSoftmax",
            "ArgMax",
            "ArgMin",
            "CumSum",
        ]
        op = str(self.draw.choice(ops))
        if op == "CumSum":
            return self._add(op, [x, self._number(axis, "int64")]) if self.kind != "float16" else None
        if op in ("Softmax", "LogSoftmax"):
            return self._add(op, [x], axis=axis if self.opset >= 13 else len(x.static_shape) - 1)
        keep = int(self.draw.integers(2))
        if op.startswith("Arg"):
            return self._add(op, [x], axis=axis, keepdims=keep)
        if self.opset >= (13 if op == "ReduceSum" else 18):
            return self._add(op, [x, self._number([axis], "int64")], keepdims=keep)
        return self._add(op, [x], axes=[axis], keepdims=keep)

    def _layer(self) -> Value | None:
        x = self._float(4)
        if x is None or self.kind == "float64" or min((x.static_shape or (0,))[1:]) < 1:
            return None
        _, channels, height, width = x.static_shape or (0, 0, 0, 0)
        size = int(self.draw.integers(1, min(4, height + 1, width + 1)))
        match int(self.draw.integers(4)):
            case 0:
                out, pad = int(self.draw.choice([4, 8, 5])), int(self.draw.integers(size))
                w = self.draw.normal(size=(out, channels, size, size)) / (size * np.sqrt(channels))
                return self._add("Conv", [x, self._number(w), self._number(self.draw.normal(size=out))], pads=[pad] * 4)
            case 1:
                w = self.draw.normal(size=(channels, 1, size, size))
                return self._add(
                    "Conv", [x, self._number(w)], group=channels, strides=[1, int(self.draw.integers(1, 3))]
                )
            case 2:
                op = str(self.draw.choice(["MaxPool", "AveragePool"]))
                return self._add(op, [x], kernel_shape=[size, size], strides=[1, 2])
            case _:
                return self._add("MatMul", [x, self._number(self.draw.normal(size=(width, 6)))])

    def _whole(self) -> Value | None:
        x = self._of(lambda v: _name(v) in ("int32", "int64"))
        if x is None:
            return None
        kind = _name(x)
        y = self._of(lambda v: _name(v) == kind and _fit(x, v)) or self._number(3, kind)
        op = str(self.draw.choice(["Add", "Sub", "Mul", "Div", "Mod", "Cast", "Abs", "Neg", "Greater", "Max"]))
        if op in ("Div", "Mod"):
            y = self._number(3, kind)
        if op == "Max" and self.opset < 12:
            return None
        if op == "Cast":
            return self._add(op, [x], to=int(DType.of(np.dtype(self.kind))))
        return self._add(op, [x] if op in ("Abs", "Neg") else [x, y])

    def _pick(self) -> Value | None:
        x = self._float()
        if x is None or not x.static_shape or self.kind == "float16":
            return None
        axis = int(self.draw.integers(len(x.static_shape)))
        count = int(self.draw.integers(1, x.static_shape[axis] + 1)) if x.static_shape[axis] else 0
        if not count:
            return None
        node = self.graph.add("TopK", [x, self._number([count], "int64")], {"axis": axis}, outputs=["", ""])
        infer(self.graph)
        self.values.append(node.outputs[1])
        return node.outputs[0]


def _name(value: Value) -> str:
    return "" if value.dtype is None else value.dtype.numpy.name


def _fit(a: Value, b: Value) -> bool:
    """Whether shapes broadcast, to no more than some thousand elements."""
    try:
        return int(np.prod(np.broadcast_shapes(a.static_shape or (), b.static_shape or ()))) < 1 << 14
    except ValueError:
        return False


def judged(model: Model, target: str) -> Verdict:
    """What a target answers, beside ONNX Runtime."""
    try:
        want = Session(model.graph.clone(), threads=1, optimise=False).run(model.feeds)
    except OptcError as error:
        return Verdict("skipped", str(error)[:100])
    try:
        with np.errstate(all="ignore"):
            got = _run(model, target)
    except OptcError as error:
        named = any(f"{node.op} node" in str(error) for node in model.graph)
        return Verdict("refused" if named else "unnamed", str(error)[:300])
    except Exception as error:
        return Verdict("crash", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    for output, one, other in zip(model.graph.outputs, got, want, strict=True):
        if why := _difference(one, other):
            maker = output.value.producer
            return Verdict("wrong", f"{output.name} ({maker.op if maker is not None else ''}): {why}")
    return Verdict("equal")


def _run(model: Model, target: str) -> list[np.ndarray]:
    feeds = list(model.feeds.values())
    if target == "host":
        import interpreted

        from optc.targets.tvm.cpu.machines import host

        return interpreted.run(interpreted.build(model.graph, host("x86-64-v3")), feeds)
    import launched

    return launched.answers(model.graph, feeds, target)


def _difference(one: np.ndarray, other: np.ndarray) -> str:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return f"{one.dtype} {one.shape} for {other.dtype} {other.shape}"
    if one.dtype.kind != "f":
        far = one != other
    else:
        a, b, most = one.astype(np.float64), other.astype(np.float64), _TOLERANCE[one.dtype.name]
        finite = np.abs(b[np.isfinite(b)])
        with np.errstate(all="ignore"):
            far = ~np.isclose(
                a, b, rtol=most, atol=most * max(1e-3, float(np.median(finite)) if finite.size else 0), equal_nan=True
            )
    if not far.any():
        return ""
    return f"{int(far.sum())} of {far.size} differ, {one[far][:3].tolist()} for {other[far][:3].tolist()}"
