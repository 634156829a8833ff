"""The library targets: what they build answers as ONNX Runtime does, here and under emulation."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from optc.compiler import compile
from optc.errors import OutputError, TargetError
from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.runtime import cpu
from optc.runtime.session import Session
from optc.targets import table
from optc.targets.tvm.artifact import folder as artifact
from optc.targets.tvm.artifact import manifest
from optc.targets.tvm.cpu.machine import Machine

TOOLS = {"host": "g++", "arm64": "aarch64-linux-gnu-g++", "armv7": "arm-linux-gnueabihf-g++"}
EMULATORS = {"arm64": "qemu-aarch64-static", "armv7": "qemu-arm-static"}
PACKAGES = {"arm64": "g++-aarch64-linux-gnu qemu-user-static", "armv7": "g++-arm-linux-gnueabihf qemu-user-static"}


def need(target: str) -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    for tool in (TOOLS[target], EMULATORS.get(target)):
        if tool is not None and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here: apt-get install {PACKAGES.get(target, tool)}")


class Net:
    """A graph to be, with weights drawn from a seed."""

    def __init__(self) -> None:
        self.graph = Graph("net", opsets={"": 17})
        self.random = np.random.default_rng(0)

    def input(self, name: str, *shape: int | str, dtype: DType = DType.FLOAT) -> Value:
        return self.graph.add_input(name, TensorType(dtype, shape))

    def constant(self, *shape: int) -> Value:
        scale = np.sqrt(max(1, int(np.prod(shape[1:]))))
        return self.graph.constant((self.random.normal(size=shape) / scale).astype(np.float32))

    def add(self, op: str, *inputs: Value, **attributes: object) -> Value:
        return self.graph.add(op, list(inputs), attributes).output  # type: ignore[arg-type]

    def done(self, *outputs: Value) -> Graph:
        for index, value in enumerate(outputs):
            self.graph.add_output(value, f"y{index}")
        infer(self.graph)
        return self.graph


def images() -> Graph:
    """Convolutions of every kind, pooling, and what joins them; sizes that no tile divides are among them."""
    net = Net()
    x = net.input("x", "N", 3, 23, 29)
    first = net.add("Conv", x, net.constant(16, 3, 3, 3), net.constant(16), pads=[1, 1, 1, 1])
    relu = net.add("Relu", first)
    strided = net.add("Conv", relu, net.constant(24, 16, 3, 3), strides=[2, 2], pads=[0, 1, 1, 0])
    clipped = net.add("Clip", strided, net.graph.constant(np.float32(0)), net.graph.constant(np.float32(0.5)))
    depth = net.add(
        "Conv", clipped, net.constant(24, 1, 3, 3), net.constant(24), group=24, pads=[2, 2, 2, 2], dilations=[2, 2]
    )
    joined = net.add("Add", depth, clipped)
    grouped = net.add("Conv", joined, net.constant(16, 12, 1, 1), group=2)
    odd = net.add("Conv", joined, net.constant(10, 24, 1, 1), net.constant(10))
    most = net.add("MaxPool", joined, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    mean = net.add("AveragePool", joined, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    both = net.add("Concat", most, mean, axis=1)
    pooled = net.add("GlobalAveragePool", both)
    scaled = net.add("Mul", both, net.add("Sigmoid", pooled))
    classes = net.add("Gemm", net.add("Flatten", pooled), net.constant(7, 48), net.constant(7), transB=1)
    return net.done(grouped, net.add("Transpose", odd, perm=[0, 2, 3, 1]), scaled, net.add("Softmax", classes))


def tokens() -> Graph:
    """A block of attention over sequences of any length."""
    net = Net()
    ids = net.input("ids", "N", "T", dtype=DType.INT64)
    x = net.add("Gather", net.constant(50, 32), ids)
    heads = [
        net.add(
            "Transpose",
            net.add("Reshape", net.add("MatMul", x, net.constant(32, 32)), net.graph.constant(np.array([0, 0, 4, 8]))),
            perm=perm,
        )
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    ]
    scores = net.add("Softmax", net.add("MatMul", heads[0], heads[1]), axis=-1)
    mixed = net.add("Transpose", net.add("MatMul", scores, heads[2]), perm=[0, 2, 1, 3])
    flat = net.add("Reshape", mixed, net.graph.constant(np.array([0, 0, 32])))
    normal = net.add("LayerNormalization", net.add("Add", x, flat), net.constant(32), net.constant(32), axis=-1)
    wide = net.add("Erf", net.add("Add", net.add("MatMul", normal, net.constant(32, 50)), net.constant(50)))
    return net.done(wide, net.add("ReduceMean", wide, axes=[1], keepdims=0))


def build(graph: Graph, target: str, path: Path) -> None:
    table.parse(target)[0].emit(graph, str(path))


def agree(graph: Graph, target: str, path: Path, feeds: Sequence[dict[str, np.ndarray]]) -> None:
    expected = Session(graph, threads=1, optimise=False)
    opened = table.parse(target)[0].open(str(path), threads=2)
    for one in feeds:
        for got, want in zip(opened.run(one), expected.run(one), strict=True):
            assert got.shape == want.shape
            assert got.dtype == want.dtype
            assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def picture(count: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(count).normal(size=(count, 3, 23, 29)).astype(np.float32)}


@pytest.mark.parametrize("target", ["host", "arm64", "armv7"])
def test_images_answer_as_before(target: str, tmp_path: Path) -> None:
    need(target)
    build(images(), target, tmp_path / "a.tar")
    agree(images(), target, tmp_path / "a.tar", [picture(1), picture(3)])


def kernels_of(graph: Graph) -> list[str]:
    """What is called in turn on a machine of wide vectors."""
    from optc.targets.tvm.artifact.build import lowered
    from optc.targets.tvm.artifact.plan import KernelCall

    wide = Machine("wide", "x86_64-linux-gnu", lanes=16, registers=32, block=16, filtering=True)
    return [step.kernel for step in lowered(graph.clone(), wide, {})[1].steps if isinstance(step, KernelCall)]


def test_halves_of_blocks_are_read_where_they_are(tmp_path: Path) -> None:
    """Channels that do not fill their last block are not copied out of it for the next convolution or a mean."""
    need("host")
    net = Net()
    x = net.add("Conv", net.input("x", "N", 3, 15, 18), net.constant(24, 3, 3, 3), net.constant(24))
    y = net.add("Relu", net.add("Conv", x, net.constant(40, 24, 1, 1), net.constant(40)))
    y = net.add("Conv", y, net.constant(24, 40, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    graph = net.done(net.add("GlobalAveragePool", net.add("Exp", y)))
    kernels = kernels_of(graph)
    assert sum("conv" in name for name in kernels) == 3
    assert [name for name in kernels if "pack" in name] == kernels[-1:]  # the answer, one pixel a channel
    build(graph, "host", tmp_path / "a.tar")
    data = {"x": np.random.default_rng(0).normal(size=(2, 3, 15, 18)).astype(np.float32)}
    agree(graph, "host", tmp_path / "a.tar", [data])


@pytest.mark.parametrize("readers", [1, 2])
def test_images_that_are_joined_are_read_apart(readers: int, tmp_path: Path) -> None:
    """A convolution to fewer channels sums over each part, and a pool takes each; a second reader has them joined."""
    need("host")
    net = Net()
    x = net.add("Relu", net.add("Conv", net.input("x", "N", 3, 19, 22), net.constant(16, 3, 3, 3), net.constant(16)))
    parts = [net.add("Conv", x, net.constant(32, 16, k, k), net.constant(32), pads=[k // 2] * 4) for k in (1, 3)]
    joined = net.add("Concat", *parts, axis=1)
    pooled = net.add("MaxPool", joined, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0])
    few = net.add("Relu", net.add("Conv", pooled, net.constant(16, 64, 3, 3), net.constant(16), pads=[1, 1, 1, 1]))
    graph = net.done(few, *([net.add("Sigmoid", joined)] if readers == 2 else []))
    kernels = kernels_of(graph)
    assert sum("concatenate" in name for name in kernels) == readers - 1
    assert sum("max_pool" in name for name in kernels) == 2
    build(graph, "host", tmp_path / "a.tar")
    data = {"x": np.random.default_rng(0).normal(size=(2, 3, 19, 22)).astype(np.float32)}
    agree(graph, "host", tmp_path / "a.tar", [data])


def test_large_weights_are_held_once_for_each_opened_model(tmp_path: Path) -> None:
    """They are copied into large pages on x86; those of the file are given back, and read again by the next model."""
    need("host")
    net = Net()
    x = net.add("MatMul", net.input("x", "N", 1024), net.constant(1024, 1200))
    graph = net.done(net.add("MatMul", x, net.constant(1200, 7)))
    build(graph, "host", tmp_path / "a.tar")
    data = {"x": np.random.default_rng(0).normal(size=(3, 1024)).astype(np.float32)}
    (want,) = Session(graph, threads=1, optimise=False).run(data)
    others = _held("model.so")  # of libraries that this process opened before
    first = table.parse("host")[0].open(str(tmp_path / "a.tar"), threads=1)
    (before,) = first.run(data)
    second = table.parse("host")[0].open(str(tmp_path / "a.tar"), threads=1)
    assert _held("model.so") - others < 2 << 20
    assert np.array_equal(second.run(data)[0], before)
    del second
    assert np.array_equal(first.run(data)[0], before)
    assert np.abs(before - want).max() <= 1e-5 * np.abs(want).max()


def _held(name: str) -> int:
    """Bytes of a mapped file that are in memory; 0 where the system does not say so, or nothing is copied."""
    maps = Path("/proc/self/smaps")
    if not maps.exists() or not cpu.is_x86():
        return 0
    lines, inside = 0, False
    for line in maps.read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = name in line
        elif inside and line.startswith("Rss:"):
            lines += 1024 * int(line.split()[1])
    return lines


def test_sequences_of_any_length_answer_as_before(tmp_path: Path) -> None:
    need("host")
    build(tokens(), "host", tmp_path / "a.tar")
    random = np.random.default_rng(0)
    agree(
        tokens(),
        "host",
        tmp_path / "a.tar",
        [{"ids": random.integers(0, 50, size=size)} for size in ((1, 1), (1, 7), (3, 16), (2, 33))],
    )


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    need("host")
    for name in ("a.tar", "b.tar"):
        build(small(), "host", tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def small() -> Graph:
    net = Net()
    return net.done(net.add("Relu", net.add("Conv", net.input("x", "N", 3, 8, 8), net.constant(8, 3, 3, 3))))


def test_a_build_is_a_folder_that_is_checked(tmp_path: Path) -> None:
    need("host")
    folder = tmp_path / "out"
    for _ in range(2):  # the second takes the place of the first
        build = compile(small(), "clean", target="host", output=folder, threads=1)
    assert build.report.agreement is not None
    assert build.report.agreement.outputs[0].sqnr_db > 100  # type: ignore[operator]
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "model.h", "model.so", "runner.cc"}
    said = json.loads((folder / "manifest.json").read_text())
    assert said["inputs"] == [{"name": "x", "dtype": "<f4", "shape": ["N", 3, 8, 8]}]
    assert said["commands"]["build"].startswith("g++ ")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(OutputError, match="no part of an artifact"):
        artifact.check_folder(str(tmp_path))
    artifact.check_folder(str(tmp_path / "new"))


def test_an_artifact_that_was_changed_is_refused(tmp_path: Path) -> None:
    need("host")
    build(small(), "host", tmp_path / "a.tar")
    folder = tmp_path / "a"
    artifact.place_folder(str(tmp_path / "a.tar"), str(folder))
    (folder / "model.h").write_text("")
    with pytest.raises(TargetError, match=r"model\.h is missing or not what"):
        manifest.read(str(folder))


def test_inputs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    need("host")
    build(small(), "host", tmp_path / "a.tar")
    opened = table.parse("host")[0].open(str(tmp_path / "a.tar"))
    with pytest.raises(TargetError, match=r"'x' is float64\[1, 3, 8, 8\]; the model takes float32\[N, 3, 8, 8\]"):
        opened.run({"x": np.zeros((1, 3, 8, 8))})
    with pytest.raises(TargetError, match="the input 'x' is missing"):
        opened.run({})


def test_an_operator_that_is_not_taken_is_named(tmp_path: Path) -> None:
    need("host")
    net = Net()
    x = net.input("x", 5, 2, 3)
    graph = net.graph
    graph.add_output(graph.add("Unique", [x], name="once").output, "y")
    infer(graph)
    with pytest.raises(TargetError, match="Unique node 'once'"):
        build(graph, "host", tmp_path / "a.tar")
    assert not (tmp_path / "a.tar").exists()


def test_targets_are_listed_without_tvm() -> None:
    assert {"host", "arm64", "armv7"} <= set(table.names())
    target = table.parse("arm64:dotprod=true:cpu=cortex-a76")[0]
    assert table.spec(target) == "arm64:cpu=cortex-a76:dotprod=true"
    assert target.facts.name == "arm64:cpu=cortex-a76:dotprod=true"


def test_quantized_weights_without_an_integer_kernel_become_the_floats_they_stand_for(tmp_path: Path) -> None:
    need("host")
    net = Net()
    x = net.input("x", "N", 4, 8, 8)
    codes = net.graph.constant(net.random.integers(-127, 128, size=(4, 8, 3, 3)).astype(np.int8))
    scales = net.graph.constant(np.linspace(0.01, 0.02, 8).astype(np.float32))
    zeros = net.graph.constant(np.zeros(8, np.int8))
    weights = net.add("DequantizeLinear", codes, scales, zeros, axis=1)
    step = net.graph.constant(np.float32(0.05)), net.graph.constant(np.uint8(100))
    rounded = net.add("DequantizeLinear", net.add("QuantizeLinear", x, *step), *step)
    graph = net.done(net.add("ConvTranspose", rounded, weights))
    target = table.parse("host")[0]
    build = compile(graph, "clean", target=target, output=tmp_path / "a.tar", threads=1)
    assert [step.name for step in build.report.steps] == ["clean", "float-weights"]
    assert "runs in floats" in build.report.steps[-1].report.notes[0]
    agree(graph, "host", tmp_path / "a.tar", [{"x": net.random.normal(size=(2, 4, 8, 8)).astype(np.float32)}])


def test_a_library_is_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("host")
    from optc.cli.app import run
    from optc.ir.onnx.writer import save

    save(small(), tmp_path / "m.onnx")
    build(small(), "host", tmp_path / "a.tar")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32))
    words = ["run", str(tmp_path / "a.tar"), "--data", str(tmp_path / "x.npz"), "--against", str(tmp_path / "m.onnx")]
    assert run([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["agreement"] == pytest.approx(1, abs=1e-6)
    assert document["outputs"] == ["float32[1, 8, 6, 6]"]
    assert run(["run", str(tmp_path / "none.tar"), "--data", str(tmp_path / "x.npz")]) == 2
    capsys.readouterr()
    files = [str(tmp_path / name) for name in ("m.onnx", "a.tar")]
    assert run(["bench", *files, "--threads", "1", "--seconds", "0.1", "--json"]) == 0
    assert [one["model"] for one in json.loads(capsys.readouterr().out)["timings"]] == files


MAIN = """
#include <stdio.h>
#include "model.h"
int main(void) {
  float x[3 * 8 * 8], y[8 * 6 * 6];
  for (int i = 0; i < 3 * 8 * 8; ++i) x[i] = (float)(i % 7) - 3;
  const int64_t shape[] = {1, 3, 8, 8};
  const void* from[] = {x};
  const int64_t* dims[] = {shape};
  void* to[] = {y};
  optc_model* model = optc_open(1);
  if (optc_run(model, from, dims, to) != 0) return puts(optc_error()), 1;
  for (int i = 0; i < 8 * 6 * 6; ++i) printf("%.9g\\n", y[i]);
  optc_close(model);
  return 0;
}
"""


def test_an_archive_links_into_a_c_program(tmp_path: Path) -> None:
    need("arm64")
    artifact_path = tmp_path / "a.tar"
    table.parse("arm64:archive=true")[0].emit(small(), str(artifact_path))
    artifact.unpack(str(artifact_path), str(tmp_path))
    (tmp_path / "main.c").write_text(MAIN)
    command = ["aarch64-linux-gnu-gcc", "-static", "main.c", "model.a", "-lpthread", "-lm", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(["qemu-aarch64-static", "./main"], cwd=tmp_path, capture_output=True, text=True, check=True)
    x = (np.arange(3 * 8 * 8) % 7 - 3).astype(np.float32).reshape(1, 3, 8, 8)
    want = Session(small(), threads=1, optimise=False).run({"x": x})[0]
    assert np.allclose(np.array(done.stdout.split(), np.float32), want.ravel(), atol=1e-5)


def test_a_kernel_that_no_rule_can_cut_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    need("host")
    from tvm import s_tir

    from optc.targets.tvm.schedule.rest import Elementwise, RowsRule

    def fails(self: object, sch: s_tir.Schedule) -> None:
        sch.get_sblock("nowhere")

    net = Net()
    graph = net.done(net.add("Relu", net.input("x", 5, 64)))
    for name, broken in (("whole", False), ("left", True)):
        if broken:
            monkeypatch.setattr(Elementwise, "schedule", fails)
            monkeypatch.setattr(RowsRule, "schedule", fails)
        build(graph, "host", tmp_path / f"{name}.tar")
        artifact.unpack(str(tmp_path / f"{name}.tar"), str(tmp_path / name))
        left = manifest.read(str(tmp_path / name)).get("unscheduled", [])
        assert bool(left) == broken == ("no rule could schedule" in caplog.text)
        assert all(name in caplog.text for name in left)
    x = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    assert np.array_equal(table.parse("host")[0].open(str(tmp_path / "left.tar")).run({"x": x})[0], np.maximum(x, 0))
