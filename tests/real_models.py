"""Small models of the kinds that people compress and that are not plain stacks of layers, with inputs for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.generic]
FLOAT = TensorProto.FLOAT


class Maker:
    """A model in the making: every method adds a node and gives the name of its first output."""

    def __init__(self, opset: int = 17, seed: int = 0, **domains: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.opsets = {"": opset, **{name.replace("_", "."): version for name, version in domains.items()}}

    def constant(self, array: object, dtype: object = None) -> str:
        name = f"w{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def weight(self, *shape: int, scale: float | None = None, dtype: object = np.float32) -> str:
        scale = 1.0 / np.sqrt(max(np.prod(shape[1:]), 1)) if scale is None else scale
        return self.constant(self.rng.standard_normal(shape) * scale, dtype)

    def add(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: object) -> str:
        names = [f"{op}{len(self.nodes)}.{i}" for i in range(outputs)]
        node = helper.make_node(op, inputs, names, f"{op}{len(self.nodes)}", domain=domain, **attributes)
        self.nodes.append(node)
        return names[0]

    def build(
        self, inputs: Mapping[str, Sequence[object]], outputs: Mapping[str, str], types: Mapping[str, int] | None = None
    ) -> onnx.ModelProto:
        """The model of these inputs (name -> shape) and outputs (name -> value); `types` where they are not float."""
        types = types or {}
        for name, value in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [name]))
        taken = [helper.make_tensor_value_info(n, types.get(n, FLOAT), shape) for n, shape in inputs.items()]
        ports = [helper.make_tensor_value_info(n, types.get(n, FLOAT), None) for n in outputs]
        graph = helper.make_graph(self.nodes, "g", taken, ports, initializer=self.tensors)
        imports = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


def samples(count: int, seed: int = 1, **shapes: Sequence[int]) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((count, *shape)).astype(np.float32) for name, shape in shapes.items()}


def experts(*, threshold: float | None = None, count: int = 3) -> onnx.ModelProto:
    """Tokens of 16 numbers, each sent to the expert of highest score, or (`threshold`) to one where it passes."""
    make = Maker()
    h = make.add("Relu", make.add("Add", make.add("MatMul", "x", make.weight(16, 24)), make.weight(24)))
    rows = make.add("Reshape", h, make.constant([-1, 24], np.int64))
    if threshold is None:
        scores = make.add("MatMul", rows, make.weight(24, count, scale=1.0))
        best = make.add("ArgMax", scores, axis=1, keepdims=0)
        chosen = [make.add("Equal", best, make.constant(i, np.int64)) for i in range(count)]
    else:
        score = make.add("MatMul", rows, make.weight(24, 1, scale=0.3))
        flat = make.add("Reshape", score, make.constant([-1], np.int64))
        chosen = [make.add("Greater", flat, make.constant(threshold, np.float32))]
    total = make.add("Mul", rows, make.constant(0.0, np.float32))
    for mask in chosen:
        at = make.add("Transpose", make.add("NonZero", mask), perm=[1, 0])
        mine = make.add("GatherND", rows, at)
        up = make.add("Relu", make.add("Gemm", mine, make.weight(64, 24), make.weight(64), transB=1))
        down = make.add("Gemm", up, make.weight(24, 64), make.weight(24), transB=1)
        total = make.add("ScatterND", total, at, down)
    mixed = make.add("Add", rows, total)
    return make.build({"x": ["N", 8, 16]}, {"y": make.add("MatMul", mixed, make.weight(24, 5))})


def siamese() -> onnx.ModelProto:
    """Two pictures through the same layers, and how far apart they are."""
    make = Maker()
    kernels = [(make.weight(16, 3, 3, 3), make.weight(16)), (make.weight(32, 16, 3, 3), make.weight(32))]
    last = make.weight(32, 24)
    codes = []
    for side in ("left", "right"):
        h = side
        for weight, bias in kernels:
            h = make.add("Relu", make.add("Conv", h, weight, bias, pads=[1] * 4, strides=[2, 2]))
        codes.append(make.add("MatMul", make.add("Flatten", make.add("GlobalAveragePool", h)), last))
    shapes = {"left": ["N", 3, 16, 16], "right": ["N", 3, 16, 16]}
    return make.build(shapes, {"y": make.add("Sub", *codes), "left_code": codes[0]})


def pyramid() -> onnx.ModelProto:
    """A head of two convolutions over three sizes of one picture."""
    make = Maker()
    stem = make.add("Relu", make.add("Conv", "x", make.weight(24, 3, 3, 3), make.weight(24), pads=[1] * 4))
    shared = [(make.weight(24, 24, 3, 3), make.weight(24)), (make.weight(8, 24, 3, 3), make.weight(8))]
    levels = [stem, *(make.add("MaxPool", stem, kernel_shape=[k, k], strides=[k, k]) for k in (2, 4))]
    outputs = {}
    for number, level in enumerate(levels):
        h = level
        for weight, bias in shared:
            h = make.add("Relu", make.add("Conv", h, weight, bias, pads=[1] * 4))
        outputs[f"y{number}"] = h
    return make.build({"x": ["N", 3, 16, 16]}, outputs)


def unrolled(steps: int = 3) -> onnx.ModelProto:
    """One block applied over and over, as in ALBERT or an unrolled loop."""
    make = Maker()
    up, bias, down = make.weight(24, 64), make.weight(64), make.weight(64, 24, scale=0.05)
    h = make.add("MatMul", "x", make.weight(16, 24))
    for _ in range(steps):
        inner = make.add("Relu", make.add("Add", make.add("MatMul", h, up), bias))
        h = make.add("Add", h, make.add("MatMul", inner, down))
    return make.build({"x": ["N", 6, 16]}, {"y": make.add("MatMul", h, make.weight(24, 5))})


def half_precision(kind: str = "cast", dtype: object = np.float16) -> onnx.ModelProto:
    """A convolutional classifier in half precision: its weights alone, each behind a Cast (`cast`), or all of it, its
    inputs and outputs too (`all`), or all of it between Casts of a float interface (`inside`)."""
    make = Maker(21)

    def weight(*shape: int) -> str:
        stored = make.weight(*shape, dtype=dtype)
        return make.add("Cast", stored, to=FLOAT) if kind == "cast" else stored

    half = int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    h = make.add("Cast", "x", to=half) if kind == "inside" else "x"
    for n, c in ((16, 3), (32, 16), (32, 32)):
        h = make.add("Relu", make.add("Conv", h, weight(n, c, 3, 3), weight(n), pads=[1] * 4, strides=[2, 2]))
    h = make.add("Flatten", make.add("GlobalAveragePool", h))
    h = make.add("Relu", make.add("Gemm", h, weight(64, 32), weight(64), transB=1))
    y = make.add("Gemm", h, weight(10, 64), weight(10), transB=1)
    y = make.add("Cast", y, to=FLOAT) if kind == "inside" else y
    return make.build({"x": ["N", 3, 16, 16]}, {"y": y}, dict.fromkeys("xy", half) if kind == "all" else None)


def with_body(op: str = "Loop") -> onnx.ModelProto:
    """A block inside the body of a control-flow operator, with a weight of its own and one of the graph around it."""
    make = Maker()
    h = make.add("Relu", make.add("Add", make.add("MatMul", "x", make.weight(16, 48)), make.weight(48)))
    outer = make.weight(48, 48)
    inner = numpy_helper.from_array((make.rng.standard_normal((48, 48)) / 7).astype(np.float32), "inner")

    def info(name: str, shape: list[object], kind: int = FLOAT) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    def block(source: str, out: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("MatMul", [source, outer], [f"{out}a"]),
            helper.make_node("Tanh", [f"{out}a"], [f"{out}b"]),
            helper.make_node("MatMul", [f"{out}b", "inner"], [f"{out}c"]),
            helper.make_node("Tanh", [f"{out}c"], [out]),
        ]

    if op == "Loop":
        nodes = [helper.make_node("Identity", ["go"], ["on"]), *block("state", "next")]
        taken = [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("state", ["N", 48])]
        returned = [info("on", [], TensorProto.BOOL), info("next", ["N", 48])]
        body = helper.make_graph(nodes, "body", taken, returned, [inner])
        h = make.add("Loop", make.constant(3, np.int64), make.constant(True), h, body=body)
    elif op == "If":
        outs = ["o0", "o1"]
        then, other = (helper.make_graph(block(h, o), o, [], [info(o, ["N", 48])], [inner]) for o in outs)
        positive = make.add("Greater", make.add("ReduceSum", "x", keepdims=0), make.constant(0, np.float32))
        h = make.add("If", positive, then_branch=then, else_branch=other)
    else:
        nodes = [*block("row", "made"), helper.make_node("Add", ["state", "made"], ["next"]),
                 helper.make_node("Identity", ["made"], ["out"])]  # fmt: skip
        taken, returned = [info("state", [48]), info("row", [48])], [info("next", [48]), info("out", [48])]
        body = helper.make_graph(nodes, "body", taken, returned, [inner])
        make.add("Scan", make.constant(np.zeros(48, np.float32)), h, outputs=2, body=body, num_scan_inputs=1)
        h = make.nodes[-1].output[1]
    h = make.add("MatMul", h, outer)
    return make.build({"x": ["N", 16]}, {"y": make.add("MatMul", h, make.weight(48, 10))})


def group_norm(form: str, *, size: object = 16) -> onnx.ModelProto:
    """A residual block with normalisations over 8 groups of channels, in one of three forms: Reshape and
    InstanceNormalization (`old`), GroupNormalization with parameters a group (`18`) or a channel (`21`)."""
    make = Maker(15 if form == "old" else int(form))

    def norm(h: str, c: int) -> str:
        if form != "old":
            count = 8 if form == "18" else c
            scale, bias = (make.constant(make.rng.uniform(0.5, 1.5, count), np.float32) for _ in range(2))
            return make.add("GroupNormalization", h, scale, bias, num_groups=8)
        shape = make.add("Shape", h)
        h = make.add("Reshape", h, make.constant([0, 8, -1], np.int64))
        h = make.add(
            "InstanceNormalization", h, make.constant(np.ones(8, np.float32)), make.constant(np.zeros(8, np.float32))
        )
        h = make.add("Reshape", h, shape)
        h = make.add("Mul", h, make.constant(make.rng.uniform(0.5, 1.5, (c, 1, 1)), np.float32))
        return make.add("Add", h, make.constant(make.rng.uniform(-0.5, 0.5, (c, 1, 1)), np.float32))

    def conv(h: str, n: int, c: int) -> str:
        return make.add("Conv", h, make.weight(n, c, 3, 3), make.weight(n), pads=[1] * 4)

    h = conv("x", 32, 4)
    inner = make.add("Relu", norm(conv(make.add("Relu", norm(h, 32)), 64, 32), 64))
    h = make.add("Add", h, conv(inner, 32, 64))
    return make.build({"x": ["N", 4, size, size]}, {"y": conv(make.add("Relu", norm(h, 32)), 4, 32)})
