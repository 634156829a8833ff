"""What a library asks of the device that loads it: old versions of glibc's functions, or the names of Android's."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from optc.compiler import compile
from optc.errors import TargetError
from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.targets import table
from optc.targets.tvm.artifact import folder as artifact

PREFIX = {"arm64": "aarch64-linux-gnu-", "armv7": "arm-linux-gnueabihf-", "host": "", "opencl": ""}


def need(target: str) -> str:
    """The prefix of the tools for the CPU of a target."""
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    prefix = PREFIX["arm64" if "arm64" in target else target.partition(":")[0]]
    if not prefix and platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library here is not glibc")
    if shutil.which(f"{prefix}g++") is None:
        pytest.skip(f"{prefix}g++ is not here: apt-get install g++-aarch64-linux-gnu g++-arm-linux-gnueabihf")
    return prefix


def net() -> Graph:
    """A model whose code calls functions of the C library: exponentials, and divisions of 64 bits."""
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 3, 8, 8)))
    n = graph.add_input("n", TensorType(DType.INT64, (4,)))
    weights = graph.constant(np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32))
    features = graph.add(
        "Erf", [graph.add("Exp", [graph.add("Tanh", [graph.add("Conv", [x, weights]).output]).output]).output]
    )
    graph.add_output(features.output, "y")
    waves = graph.add("Add", [graph.add("Sin", [features.output]).output, graph.add("Cos", [features.output]).output])
    graph.add_output(waves.output, "w")
    graph.add_output(graph.add("Div", [n, graph.constant(np.array([3, 5, 7, 9]))]).output, "m")
    infer(graph)
    return graph


def emitted(target: str, folder: Path) -> Path:
    table.parse(target)[0].emit(net(), str(folder / "a.tar"))
    (folder / "a").mkdir()
    artifact.unpack(str(folder / "a.tar"), str(folder / "a"))
    return folder / "a"


def read(prefix: str, library: Path, *what: str) -> str:
    done = subprocess.run([f"{prefix}readelf", "-W", *what, str(library)], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("target", ["arm64", "armv7", "opencl:host=arm64", "host:cpu=x86-64-v3", "opencl"])
def test_a_library_for_linux_needs_no_new_glibc(target: str, tmp_path: Path) -> None:
    prefix = need(target)
    library = emitted(target, tmp_path) / "model.so"
    symbols = read(prefix, library, "--dyn-syms")
    undefined = [words[7] for line in symbols.splitlines() if " UND " in line and "GLOBAL" in (words := line.split())]
    versions = [re.fullmatch(r".*@GLIBC_(\d+)\.(\d+)(\.\d+)?", name) for name in undefined]
    assert all(versions)
    assert max((int(one[1]), int(one[2])) for one in versions if one is not None) <= (2, 17)
    assert "libgcc_s" not in (needed := read(prefix, library, "-d"))
    assert "libstdc++" not in needed


@pytest.mark.parametrize("target", ["arm64:os=android", "armv7:os=android"])
def test_a_library_for_android_needs_bionic_alone(target: str, tmp_path: Path) -> None:
    prefix = need(target)
    folder = emitted(target, tmp_path)
    dynamic = read(prefix, folder / "model.so", "-d")
    assert set(re.findall(r"NEEDED.*\[(.*)\]", dynamic)) <= {"libc.so", "libm.so", "libdl.so"}
    assert "SONAME" in dynamic
    assert "TEXTREL" not in dynamic
    symbols = read(prefix, folder / "model.so", "--dyn-syms")
    assert "GLIBC" not in symbols
    undefined = {line.split()[-1] for line in symbols.splitlines() if " UND " in line} - {"UND"}
    assert {"pthread_create", "posix_memalign"} <= undefined
    assert not {name for name in undefined if name.startswith("__") and name != "__tls_get_addr"}
    loads = [line.split() for line in read(prefix, folder / "model.so", "-l").splitlines() if " LOAD " in line]
    assert {int(words[-1], 16) for words in loads} == {16384}
    machine = json.loads((folder / "manifest.json").read_text())["machine"]
    assert (machine["android_api"], machine["page_size"]) == (29, 16384)
    if target.startswith("arm64"):  # Android keeps this register to itself
        command = [f"{prefix}objdump", "-d", str(folder / "model.so")]
        assert not re.search(r"\b[xw]18\b", subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_library_for_android_is_run_under_the_emulator(tmp_path: Path) -> None:
    need("arm64")
    if shutil.which("qemu-aarch64-static") is None:
        pytest.skip("qemu-aarch64-static is not here: apt-get install qemu-user-static")
    build = compile(net(), "clean", target="arm64:os=android", output=tmp_path / "a.tar", threads=2)
    assert build.report.validation is not None
    assert build.report.validation.samples == 2
    build = compile(net(), "clean", target="armv7:os=android", output=tmp_path / "b.tar", threads=2)
    assert build.report.validation is not None
    assert build.report.validation.text.startswith("not run: it cannot run here")


def test_the_development_kit_compiles_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = need("arm64")
    folder = tmp_path / "toolchains/llvm/prebuilt/linux-x86_64/bin"
    folder.mkdir(parents=True)
    compiler = folder / "aarch64-linux-android29-clang++"
    log = tmp_path / "log"
    # As the kit's compiler does: what it is told, and libraries of its own.
    compiler.write_text(
        f'#!/bin/bash\necho "$@" >> {log}\nfor one; do [[ $one = -nostdlib++ ]] || words+=("$one"); done\n'
        f'exec {prefix}g++ "${{words[@]}}"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    monkeypatch.setenv("OPTC_CACHE", "off")
    emitted("arm64:os=android", tmp_path)
    linked = log.read_text().splitlines()[-2:]
    assert any("-nostdlib++ -lm -ldl" in line and "-Wl,-z,max-page-size=16384" in line for line in linked)
    assert not any("-nodefaultlibs" in line for line in linked)


def test_a_function_that_the_device_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("arm64")
    from optc.targets.tvm.cpu import system

    monkeypatch.setattr(system, "_C", tuple(name for name in system._C if name != "sysconf"))
    with pytest.raises(TargetError, match=r"linking the library failed: .*undefined reference to `sysconf'"):
        emitted("arm64", tmp_path)
