"""The innermost loops of kernels: a slow kernel is slow by what they do besides their sums, each time."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from .test_codes import CodedNet, listing
from .test_library import need

OBJDUMP = "aarch64-linux-gnu-objdump"


def instructions(text: str) -> list[tuple[int, str]]:
    """Every instruction of a listing behind its address."""
    return [(int(at, 16), rest) for at, rest in re.findall(r"^\s*([0-9a-f]+):\t(.*)$", text, re.MULTILINE)]


def loops(text: str) -> list[list[str]]:
    """The instructions of every stretch that a branch back closes and that holds no other such, operands and all."""
    code = instructions(text)
    index = {at: i for i, (at, _) in enumerate(code)}
    bodies: list[list[str]] = []
    last = -1
    for i, (at, rest) in enumerate(code):
        target = re.match(r"(?:b\.\w+|cbn?z|tbn?z)\t(?:.*, )?(?:#\d+, )?([0-9a-f]+) <", rest)
        if target is None or int(target[1], 16) not in index or int(target[1], 16) > at:
            continue
        if (start := index[int(target[1], 16)]) > last:
            bodies.append([one for _, one in code[start : i + 1]])
        last = i
    return bodies


@pytest.fixture(autouse=True)
def tools() -> None:
    need("arm64")
    if shutil.which(OBJDUMP) is None:
        pytest.skip(f"{OBJDUMP} is not here: apt-get install binutils-aarch64-linux-gnu")


def test_sums_of_codes_and_weights_of_several_groups_stay_in_registers(tmp_path: Path) -> None:
    net = CodedNet(np.int8)
    graph = net.done(net.conv(net.rounded(net.input("x", 1, 64, 12, 20)), 64, 64, 1, 1))
    inner = loops(listing(graph, "arm64:dotprod=true", OBJDUMP, tmp_path))
    hot = max(inner, key=lambda loop: sum(one.startswith("sdot") for one in loop))
    assert sum(one.startswith("sdot") for one in hot) >= 16
    assert not [one for one in hot if "[sp" in one]


def test_borders_are_told_apart_before_the_rows_are_copied(tmp_path: Path) -> None:
    """No loop asks of each pixel whether it is the first or the last of its row."""
    net = CodedNet(np.int8)
    x = net.rounded(net.input("x", 1, 16, 12, 80))
    graph = net.done(net.conv(x, 16, 1, 3, 3, group=16, pads=[1, 1, 1, 1]))
    code = [rest for _, rest in instructions(listing(graph, "arm64:dotprod=true", OBJDUMP, tmp_path))]
    # Codes are made wider as they are copied: what stands right before that is where each was found.
    before = [code[i - 2 : i] for i, one in enumerate(code) if one.startswith("saddw")]
    assert before
    assert not [one for pair in before for one in pair if re.match(r"b\.|cbn?z|tbn?z", one)]


def test_what_is_rounded_is_the_product_as_a_float() -> None:
    """One instruction for a product and a sum would round something else; ties go to even before an odd zero."""
    import tvm
    from tvm import te
    from tvm.target import Target

    from optc.targets.tvm.compute import codes

    random = np.random.default_rng(0)
    scale = np.float32(1.1e-5)
    # Large sums, whose products with the scale are halfway between two codes once they are rounded.
    near = np.rint((np.arange(-120, 120) + 0.5) / float(scale)).astype(np.int32)
    halves = np.arange(-63, 64, dtype=np.int32)
    for zero in (-128, 3):
        for sums, one in ((halves, np.float32(0.5)), (random.permutation(near), scale)):
            x = te.placeholder(sums.shape, "int32")
            by = te.placeholder((1,), "float32")
            bias = te.compute((1,), lambda _: tvm.tirx.const(0, "int32"))
            rounded = codes.encode(codes.scaled(x, bias, by), 1.0, zero, -128, 127, "int8", bounded=True)
            function = te.create_prim_func([x, by, rounded]).with_attr("global_symbol", "kernel")
            target = Target({"kind": "llvm", "mcpu": str(tvm.target.codegen.llvm_get_system_cpu())})
            kernel = tvm.tirx.build(tvm.IRModule({"kernel": function}), target=target)
            answer = tvm.runtime.empty(sums.shape, "int8")
            kernel["kernel"](tvm.runtime.tensor(sums), tvm.runtime.tensor(np.array([one])), answer)
            want = np.clip(np.rint(sums.astype(np.float32) * one) + zero, -128, 127)
            assert np.array_equal(answer.numpy(), want)


def test_no_more_panels_are_packed_than_there_are() -> None:
    """Where the columns of a computed matrix are known only when the kernel runs, too."""
    pytest.importorskip("tvm", reason="needs the extra optc[tvm]")
    from tvm import sym, te, tirx

    from optc.targets.tvm.compute.dense import matmul
    from optc.targets.tvm.cpu.tiling import Tile

    size = tirx.Var("n", "int64")
    product = matmul(te.placeholder((2, size, 8)), te.placeholder((2, 8, size)), Tile(4, 2), 16)
    stages, packed = [product], None
    while stages:
        stage = stages.pop()
        packed = stage if stage.op.name == "packed" else packed
        stages.extend(list(stage.op.input_tensors))
    assert packed is not None
    assert sym.Analyzer().can_prove_equal(packed.shape[1], tirx.ceildiv(size, 32))
