"""Quantized models as libraries: they compute with integers, and answer as the model does."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from quantized import layers_on_codes

from optc.ir.graph import Graph, Value
from optc.ir.types import DType
from optc.passes.base import Context
from optc.runtime import cpu
from optc.runtime.session import Session
from optc.targets import table
from optc.targets.tvm.artifact import folder as artifact
from optc.targets.tvm.artifact.run import Library
from optc.targets.tvm.cpu import features
from optc.targets.tvm.cpu.machines import of_llvm

from .test_library import Net, need

STEP = 0.04


class CodedNet(Net):
    """A graph whose activations are rounded to codes of one type, with weights of eight bits."""

    def __init__(self, dtype: type[np.integer]) -> None:
        super().__init__()
        self.dtype = dtype
        self.scale = self.graph.constant(np.float32(STEP))
        self.zero = self.graph.constant(np.array(5 if dtype is np.int8 else 120, dtype))

    def codes(self, x: Value) -> Value:
        return self.add("QuantizeLinear", x, self.scale, self.zero)

    def floats(self, codes: Value) -> Value:
        return self.add("DequantizeLinear", codes, self.scale, self.zero)

    def rounded(self, x: Value) -> Value:
        return self.floats(self.codes(x))

    def weights(self, *shape: int, axis: int = 0) -> Value:
        bound = 127 if shape[1:] != (1, 3, 3) else 100
        codes = self.random.integers(-bound, bound + 1, size=shape).astype(np.int8)
        fan = np.prod(shape) / shape[axis]
        scales = self.random.uniform(0.8, 1.2, size=shape[axis]).astype(np.float32) / (70 * np.sqrt(fan))
        zeros = np.zeros(shape[axis], np.int8)
        parts = [self.graph.constant(part) for part in (codes, scales.astype(np.float32), zeros)]
        return self.add("DequantizeLinear", *parts, axis=axis)

    def conv(self, x: Value, *shape: int, relu: bool = False, **attributes: object) -> Value:
        y = self.add("Conv", x, self.weights(*shape), self.constant(shape[0]), **attributes)
        return self.rounded(self.add("Relu", y) if relu else y)


def picture_net(dtype: type[np.integer]) -> Graph:
    """Every kind of layer on codes, and what moves codes about between them; channels that fill no block among them."""
    net = CodedNet(dtype)
    x = net.rounded(net.input("x", "N", 3, 15, 23))
    x = net.conv(x, 16, 3, 3, 3, pads=[1, 1, 1, 1], strides=[2, 2])
    deep = net.conv(x, 16, 1, 3, 3, group=16, pads=[1, 1, 1, 1], relu=True)
    x = net.rounded(net.add("Add", net.conv(deep, 16, 16, 1, 1), x))
    odd = net.conv(x, 12, 16, 3, 3, dilations=[2, 2], pads=[2, 2, 2, 2])
    odd = net.conv(odd, 12, 1, 3, 3, group=12)
    odd = net.conv(odd, 16, 12, 1, 1, pads=[1, 1, 1, 1])
    joined = net.add("Concat", odd.producer.inputs[0], x.producer.inputs[0], axis=1)  # type: ignore[union-attr,arg-type]
    pooled = net.add("MaxPool", joined, kernel_shape=[3, 3], strides=[2, 2])
    grouped = net.conv(net.floats(pooled), 32, 16, 1, 1, group=2)
    mean = net.rounded(net.add("GlobalAveragePool", grouped))
    flat = net.floats(net.add("Flatten", mean.producer.inputs[0]))  # type: ignore[union-attr,arg-type]
    last = net.add("Gemm", flat, net.weights(10, 32), net.constant(10), transB=1)
    return net.done(net.rounded(last), grouped)


def built(graph: Graph, spec: str, path: Path) -> None:
    target = table.parse(spec)[0]
    legal = graph.clone()
    for step in target.legalisation().passes:
        step.run(legal, Context(target.facts))
    legal.sweep()
    target.emit(legal, str(path))


@pytest.mark.parametrize(
    ("spec", "objdump", "instruction"),
    [
        ("arm64:dotprod=true", "aarch64-linux-gnu-objdump", "sdot"),
        ("arm64:i8mm=true", "aarch64-linux-gnu-objdump", "smmla"),
        ("host:cpu=x86-64-v3", "objdump", "vpmaddwd"),
        ("host:cpu=alderlake", "objdump", "vpdpbusd"),
        ("host:cpu=skylake-avx512", "objdump", "vpmaddwd"),
        ("host:cpu=cascadelake", "objdump", "vpdpbusd"),
    ],
)
def test_the_hot_loop_is_the_dot_product(spec: str, objdump: str, instruction: str, tmp_path: Path) -> None:
    need(spec.partition(":")[0])
    if shutil.which(objdump) is None:
        pytest.skip(f"{objdump} is not here: apt-get install binutils, binutils-aarch64-linux-gnu")
    if spec.startswith("host") and platform.machine() != "x86_64":
        pytest.skip("names a CPU of x86-64")
    net = CodedNet(np.int8)
    graph = net.done(net.conv(net.rounded(net.input("x", 1, 16, 9, 9)), 16, 16, 3, 3, pads=[1, 1, 1, 1]))
    hot = max(innermost_loops(listing(graph, spec, objdump, tmp_path)), key=lambda loop: loop[instruction])
    assert hot[instruction] >= 16
    # One product in three is vpmaddwd: codes are spread and sums are added by others.
    assert hot[instruction] > (0.3 if instruction == "vpmaddwd" else 0.4) * hot.total()


X86_CPUS = ("x86-64", "x86-64-v2", "x86-64-v3", "alderlake", "skylake-avx512", "cascadelake")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_every_x86_cpu_gives_the_same_codes(dtype: type[np.integer], tmp_path: Path) -> None:
    """Whatever the instruction, the lanes of a register and the channels of a block."""
    need("host")
    if platform.machine() != "x86_64":
        pytest.skip("names CPUs of x86-64")
    feeds = {"x": np.random.default_rng(1).normal(size=(2, 3, 15, 23)).astype(np.float32)}
    graph, answers = picture_net(dtype), []
    for name in X86_CPUS:
        # What this CPU lacks is built and disassembled above.
        if not features.lacking(features.listed(of_llvm("x86_64", name), "x86_64"), "x86_64", cpu.flags()):
            built(graph, f"host:cpu={name}", tmp_path / "a.tar")
            answers.append(Library(str(tmp_path / "a.tar"), threads=1).run(feeds))
    assert len(answers) > 1
    assert all(np.array_equal(a, b) for one in answers for a, b in zip(one, answers[0], strict=True))
    assert np.ptp(answers[0][0]) > 20 * STEP


def test_products_of_matrices_give_the_same_codes(tmp_path: Path) -> None:
    """smmla and sdot are both exact; sizes that no tile divides, groups, strides and pads are among the layers."""
    need("arm64")
    graph = picture_net(np.uint8)
    feeds = {"x": np.random.default_rng(1).normal(size=(2, 3, 15, 23)).astype(np.float32)}
    answers = []
    for spec in ("arm64:i8mm=true", "arm64:dotprod=true"):
        built(graph, spec, tmp_path / "a.tar")
        opened = table.parse(spec)[0].open(str(tmp_path / "a.tar"), threads=2)
        answers.append(opened.run(feeds))
    assert all(np.array_equal(one, other) for one, other in zip(*answers, strict=True))


@pytest.mark.parametrize(
    ("spec", "objdump", "product", "register"),
    [
        ("arm64", "aarch64-linux-gnu-objdump", r"fmla.*\.4s", 16),
        ("host:cpu=x86-64-v3", "objdump", r"vfmadd\S+ps.*%ymm", 8),
        ("host:cpu=x86-64-v4", "objdump", r"vfmadd\S+ps.*%zmm", 18),
    ],
)
def test_the_hot_loop_of_floats_is_a_vector_product(
    spec: str, objdump: str, product: str, register: int, tmp_path: Path
) -> None:
    """The widest vectors there are, and more sums in registers where there are more of those."""
    need(spec.partition(":")[0])
    if shutil.which(objdump) is None:
        pytest.skip(f"{objdump} is not here: apt-get install binutils, binutils-aarch64-linux-gnu")
    if spec.startswith("host") and platform.machine() != "x86_64":
        pytest.skip("names a CPU of x86-64")
    net = CodedNet(np.int8)
    weight = net.graph.constant(np.random.default_rng(0).normal(size=(32, 32, 3, 3)).astype(np.float32))
    graph = net.done(net.graph.add("Conv", [net.input("x", 1, 32, 14, 14), weight], {"pads": [1] * 4}).output)
    text = listing(graph, spec, objdump, tmp_path)
    hot = max(innermost_loops(text), key=lambda loop: loop["fmla"] + sum(loop[n] for n in loop if n[:6] == "vfmadd"))
    products = hot["fmla"] + sum(hot[name] for name in hot if name.startswith("vfmadd"))
    assert products >= 16
    assert products > 0.4 * hot.total()
    operands = [line for line in text.splitlines() if re.search(product, line)]
    sums = {line.rpartition(",")[2] if "%" in line else line.split()[2] for line in operands}
    assert len(sums) >= register


def listing(graph: Graph, spec: str, objdump: str, folder: Path) -> str:
    """The instructions of the library that `graph` is compiled into."""
    built(graph, spec, folder / "a.tar")
    artifact.unpack(str(folder / "a.tar"), str(folder))
    command = [objdump, "-d", "--no-show-raw-insn", str(folder / "model.so")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def innermost_loops(listing: str) -> Iterator[Counter[str]]:
    """How often each instruction stands in each loop without branches: what a backward branch goes around."""
    instructions = [
        (int(m[1], 16), m[2], m[3])
        for m in re.finditer(r"^ *([0-9a-f]+):\t(?:\{vex\} )?(\S+) *(.*)$", listing, re.MULTILINE)
    ]
    at = {address: index for index, (address, _, _) in enumerate(instructions)}
    branch = re.compile(r"b\.|cbn?z|tbn?z|j")
    for index, (address, name, rest) in enumerate(instructions):
        goal = re.search(r"(?:^|[\s,])([0-9a-f]+) <", rest)
        if not branch.match(name) or goal is None or int(goal[1], 16) >= address or int(goal[1], 16) not in at:
            continue
        body = [one[1] for one in instructions[at[int(goal[1], 16)] : index + 1]]
        if not any(branch.match(one) for one in body[:-1]):
            yield Counter(body)


@pytest.mark.parametrize(
    ("spec", "dtype"),
    [("host", np.uint8), ("arm64", np.int8), ("arm64:dotprod=true", np.uint8), ("armv7", np.int8)],
)
def test_codes_are_within_a_step(spec: str, dtype: type[np.integer], tmp_path: Path) -> None:
    need(spec.partition(":")[0])
    graph = picture_net(dtype)
    assert len(layers_on_codes(graph)) == 8
    built(graph, spec, tmp_path / "a.tar")
    opened, reference = table.parse(spec)[0].open(str(tmp_path / "a.tar"), threads=1), Session(graph, optimise=False)
    feeds = {"x": np.random.default_rng(1).normal(size=(2, 3, 15, 23)).astype(np.float32)}
    for got, want in zip(opened.run(feeds), reference.run(feeds), strict=True):
        off = np.abs(got - want) / STEP
        assert np.ptp(want) > 20 * STEP
        assert off.max() < 1.01
        assert np.mean(off > 0.01) < 0.01


def test_each_layer_gives_the_codes_of_the_reference(tmp_path: Path) -> None:
    """Cut at every code, and given the reference's, each part makes the same ones: sums of integers are exact."""
    need("host")
    graph = picture_net(np.int8)
    makers = [node.output for node in graph if node.op == "QuantizeLinear"]
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 3, 15, 23)).astype(np.float32)}
    want = Session(graph, exact=True, outputs=makers).run(feeds)
    parts = graph.clone()
    for index, value in enumerate([node.output for node in parts if node.op == "QuantizeLinear"]):
        value.replace_uses(parts.add_input(f"codes{index}", value.type))
        parts.add_output(value, f"made{index}")
    built(parts, "host", tmp_path / "a.tar")
    opened = table.parse("host")[0].open(str(tmp_path / "a.tar"), threads=1)
    got = opened.run({**feeds, **{f"codes{i}": one for i, one in enumerate(want)}})[len(graph.outputs) :]
    assert len(got) == len(want) == 11
    apart = np.concatenate([np.abs(x.astype(int) - y).ravel() for x, y in zip(got, want, strict=True)])
    assert apart.size > 30_000
    assert apart.max() <= 1
    assert np.mean(apart) < 1e-4


@pytest.mark.parametrize("spec", ["host", "arm64"])
@pytest.mark.parametrize("turned", [False, True])
def test_what_a_layer_makes_in_blocks_is_added_to_codes_that_lie_plain(turned: bool, spec: str, tmp_path: Path) -> None:
    """Two channels fill no block: those of a pool lie plain, those of a layer in a block of their own."""
    need(spec)
    net = CodedNet(np.uint8)
    x = net.conv(net.rounded(net.input("x", "N", 3, 8, 8)), 2, 3, 1, 1)
    pooled = net.floats(net.add("MaxPool", x.producer.inputs[0], kernel_shape=[2, 2], strides=[2, 2]))  # type: ignore[union-attr,arg-type]
    layer = net.conv(pooled, 2, 2, 1, 1)
    both = (layer, pooled) if turned else (pooled, layer)
    graph = net.done(net.conv(net.rounded(net.add("Add", *both)), 4, 2, 1, 1))
    built(graph, spec, tmp_path / "a.tar")
    feeds = {"x": np.random.default_rng(2).normal(size=(2, 3, 8, 8)).astype(np.float32)}
    opened = table.parse(spec)[0].open(str(tmp_path / "a.tar"), threads=1)
    (got,), (want,) = opened.run(feeds), Session(graph, exact=True).run(feeds)
    assert np.ptp(want) > 20 * STEP
    assert np.abs(got - want).max() < 1e-5


@pytest.mark.parametrize("pads", [[2, 1, 2, 2], [0, 0, 0, 0]])
def test_columns_of_one_channel_stand_side_by_side(pads: list[int], tmp_path: Path) -> None:
    need("host")
    net = CodedNet(np.int8)
    x = net.rounded(net.input("x", "N", 1, 21, 10))
    graph = net.done(net.conv(x, 8, 1, 5, 4, pads=pads, strides=[2, 2], dilations=[1, 2]))
    built(graph, "host", tmp_path / "a.tar")
    feeds = {"x": np.random.default_rng(2).normal(size=(2, 1, 21, 10)).astype(np.float32)}
    opened = table.parse("host")[0].open(str(tmp_path / "a.tar"), threads=1)
    (got,), (want,) = opened.run(feeds), Session(graph, exact=True).run(feeds)
    assert "unfold" in " ".join(steps(tmp_path / "a.tar"))
    assert np.ptp(want) > 20 * STEP
    assert np.abs(got - want).max() < 1e-5


def steps(path: Path) -> list[str]:
    """The names of a library's kernels, as they stand in it."""
    artifact.unpack(str(path), str(path.parent))
    return [text.decode() for text in re.findall(rb"[a-z_0-9]{6,}", (path.parent / "model.so").read_bytes())]


def test_inputs_halfway_between_codes_are_rounded_as_the_quotient_says(tmp_path: Path) -> None:
    need("host")
    net = CodedNet(np.int8)
    built(net.done(net.codes(net.input("x", 2001))), "host", tmp_path / "a.tar")
    x = np.arange(-1000, 1001).astype(np.float32) * np.float32(STEP / 2) / np.float32(8)
    halves = np.count_nonzero(x / np.float32(STEP) % 1 == 0.5)
    assert halves > 100
    want = np.clip(np.rint(x / np.float32(STEP)) + 5, -128, 127)
    assert np.array_equal(table.parse("host")[0].open(str(tmp_path / "a.tar"), threads=1).run({"x": x})[0], want)


def test_biases_may_have_no_zero_point() -> None:
    net = CodedNet(np.int8)
    scale = net.graph.constant(np.full(16, 1e-4, np.float32))
    bias = net.add("DequantizeLinear", net.graph.constant(np.arange(16, dtype=np.int32)), scale)
    graph = net.done(net.add("Conv", net.rounded(net.input("x", 1, 16, 9, 9)), net.weights(16, 16, 3, 3), bias))
    assert len(layers_on_codes(graph)) == 1


def test_a_model_may_have_any_number_of_inputs(tmp_path: Path) -> None:
    need("host")
    net = CodedNet(np.int8)
    inputs = [net.input(f"x{i}", 5) for i in range(70)]
    built(net.done(*(net.add("Relu", x) for x in inputs)), "host", tmp_path / "a.tar")
    numbers = np.zeros(70 * 6 + 1, np.float32)  # none of them aligned
    feeds = {f"x{i}": numbers[6 * i + 1 : 6 * i + 6] for i in range(70)}
    for i, one in enumerate(feeds.values()):
        one += i
    answers = table.parse("host")[0].open(str(tmp_path / "a.tar"), threads=1).run(feeds)
    assert [one[0] for one in answers] == list(range(70))


@pytest.mark.parametrize(("spec", "dtype"), [("host", np.int8), ("host", np.uint8), ("arm64", np.uint8)])
def test_codes_that_the_user_gives_are_held_for_every_reader(
    spec: str, dtype: type[np.integer], tmp_path: Path
) -> None:
    """A pool that reads them as they are, and after it a layer that wants them in the type of its instruction."""
    need(spec)
    net = CodedNet(dtype)
    codes = net.input("x", 1, 16, 9, 9, dtype=DType.INT8 if dtype is np.int8 else DType.UINT8)
    pooled = net.floats(net.add("MaxPool", codes, kernel_shape=[3, 3]))
    layer = net.conv(net.floats(codes), 16, 16, 3, 3, pads=[1, 1, 1, 1])
    graph = net.done(pooled, layer)
    built(graph, spec, tmp_path / "a.tar")
    bounds = np.iinfo(dtype)
    feeds = {"x": np.random.default_rng(3).integers(bounds.min, bounds.max + 1, (1, 16, 9, 9)).astype(dtype)}
    got = table.parse(spec)[0].open(str(tmp_path / "a.tar"), threads=1).run(feeds)
    want = Session(graph, exact=True).run(feeds)
    assert all(np.ptp(one) > 20 * STEP for one in want)
    assert all(np.abs(one - other).max() < 1.01 * STEP for one, other in zip(got, want, strict=True))
    assert np.mean(np.abs(got[1] - want[1]) > STEP / 2) < 0.01


@pytest.mark.parametrize(
    ("shape", "kernel", "attributes"),
    [
        ((2, 4, 7, 6), (6, 2, 3, 2), "group = 2, strides = [2, 1], pads = [1, 0, 2, 1]"),
        ((1, 3, 7, 6), (2, 3, 2, 3), 'auto_pad = "SAME_LOWER", strides = [2, 1]'),
        ((1, 3, 9), (2, 3, 3), 'auto_pad = "VALID"'),
    ],
)
def test_conv_integer_of_weights_that_are_computed(
    shape: tuple[int, ...], kernel: tuple[int, ...], attributes: str
) -> None:
    import onnx
    import onnxruntime
    from interpreted import build, run

    from optc.targets.tvm.cpu.machines import host

    sizes = (", ".join(map(str, one)) for one in (shape, kernel))
    operands = "uint8[{}] x, uint8[{}] w, uint8 p, uint8[1] q".format(*sizes)
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> net ({operands}) => (int32[] y) '
        f"{{ y = ConvInteger <{attributes}> (x, w, p, q) }}"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    random = np.random.default_rng(0)
    feeds = [random.integers(0, 256, one).astype(np.uint8) for one in (shape, kernel, (), (1,))]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (want,) = session.run(None, dict(zip("xwpq", feeds, strict=True)))
    assert np.array_equal(run(build(model, host("x86-64-v3")), feeds)[0], want)
