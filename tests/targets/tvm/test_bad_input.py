"""What can be wrong with a library target's model, tools or artifact: one line, status 2, nothing left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from processes import optc

from optc.cli.app import run
from optc.errors import TargetError
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.types import DType, SequenceType, TensorType
from optc.targets import table
from optc.targets.tvm.artifact import folder as artifact

WITHOUT_TVM = "import sys; sys.modules['tvm'] = None; from optc.cli.app import run; sys.exit(run(sys.argv[1:]))"


def process(words: list[str], folder: Path, *, tvm: bool = True, path: str | None = None) -> tuple[int, str]:
    """The exit status and what a real process said on standard error."""
    environment = {} if path is None else {"PATH": path}
    if tvm:
        done: subprocess.CompletedProcess[str] = optc(*words, cwd=folder, environment=environment, modules=["tvm"])
    else:
        command = [sys.executable, "-c", WITHOUT_TVM, *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip()


def model(path: Path, op: str = "Relu", dtype: DType = DType.FLOAT, name: str = "act") -> Path:
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(dtype, ("N", 4)))
    graph.add_output(graph.add(op, [x], name=name).output, "y")
    save(graph, path)
    return path


def sequence(path: Path) -> Path:
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    parts = graph.add("SplitToSequence", [x], {"axis": 1}).output
    graph.add_output(parts, "parts", SequenceType(TensorType(DType.FLOAT, None)))
    save(graph, path)
    return path


def repeated(path: Path) -> Path:
    """A sum whose first axis is N or 64: only N, when it is known, tells."""
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    column = graph.constant(np.ones((64, 1), np.float32))
    graph.add_output(graph.add("Mul", [x, column], name="scaled").output, "y")
    save(graph, path)
    return path


def compile_words(path: Path, target: str) -> list[str]:
    return [str(path), "--passes", "clean", "--target", target, "-o", str(path.with_suffix("")), "--quiet"]


def test_without_tvm_the_way_to_install_it_is_told(tmp_path: Path) -> None:
    status, said = process(compile_words(model(tmp_path / "m.onnx"), "host"), tmp_path, tvm=False)
    assert (status, said) == (2, "optc: this target needs Apache TVM: pip install 'optc[tvm]'")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("armv7", "arm-linux-gnueabihf-g++, which is not here; install the package g++-arm-linux-gnueabihf"),
        ("arm64", "without qemu-aarch64-static; install the package qemu-user-static, or build without running"),
    ],
)
def test_a_missing_tool_is_named_before_the_work(target: str, missing: str, tmp_path: Path) -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    if target == "arm64" and shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("aarch64-linux-gnu-g++ is not here: apt-get install g++-aarch64-linux-gnu")
    tools = tmp_path / "bin"
    tools.mkdir()
    if target == "arm64":
        (tools / "aarch64-linux-gnu-g++").symlink_to(str(shutil.which("aarch64-linux-gnu-g++")))
    status, said = process(compile_words(model(tmp_path / "m.onnx"), target), tmp_path, path=str(tools))
    assert status == 2
    assert missing in said
    assert len(said.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "bin"}


@pytest.mark.parametrize(
    ("op", "dtype", "said"),
    [
        ("NonZero", DType.FLOAT, "declare the size of its result"),
        ("StringNormalizer", DType.STRING, "StringNormalizer node 'act': it works on text"),
    ],
)
def test_a_model_that_cannot_be_built_is_told_why(
    op: str, dtype: DType, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    words = compile_words(model(tmp_path / "m.onnx", op, dtype), "host")
    assert run([*words, "--no-check"]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert len(errors.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    if shutil.which("g++") is None:
        pytest.skip("g++ is not here: apt-get install g++")
    folder = tmp_path_factory.mktemp("library")
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    graph.add_output(graph.add("Relu", [x]).output, "y")
    table.parse("host")[0].emit(graph, str(folder / "a.tar"))
    np.savez(folder / "x.npz", x=np.zeros((2, 4), np.float32))
    return folder / "a.tar"


def test_a_truncated_artifact_is_refused_wherever_it_ends(library: Path, tmp_path: Path) -> None:
    whole = library.read_bytes()
    for share in (0, 1, 511, 600, len(whole) // 3, len(whole) // 2, len(whole) - 10_500):
        (tmp_path / "b.tar").write_bytes(whole[:share])
        with pytest.raises(TargetError, match=r"b\.tar is no artifact|is missing or not what|has no manifest"):
            table.parse("host")[0].open(str(tmp_path / "b.tar"))


def changed(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / "manifest.json").read_text())
        change(document)
        (folder / "manifest.json").write_text(json.dumps(document))

    return apply


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(lambda d: d.update(schema="optc.library/0")), "is of form optc.library/0, and this version reads"),
        (changed(lambda d: d.update(target="vax")), "no target is called 'vax'"),
        (changed(lambda d: d.pop("inputs")), "does not say all that it should; build the artifact again"),
        (changed(lambda d: d.update(files={"../x": "0"})), "does not say all that it should"),
        (changed(lambda d: d["machine"].update(triple="s390x-linux-gnu")), "was built for host (s390x-linux-gnu)"),
        (changed(lambda d: d["machine"].update(features=["+avx1024"])), "a CPU with avx1024, which this one lacks"),
        (lambda folder: (folder / "model.so").write_bytes(b"\x7fELF"), "model.so is missing or not what manifest.json"),
    ],
    ids=["version", "target", "incomplete", "escaping", "machine", "features", "library"],
)
def test_an_artifact_that_is_not_ours_is_refused(
    change: Callable[[Path], None], said: str, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact.place_folder(str(library), str(tmp_path / "a"))
    change(tmp_path / "a")
    assert run(["run", str(tmp_path / "a"), "--data", str(library.parent / "x.npz")]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert len(errors.strip().splitlines()) <= 3  # a word that is misspelled is pointed at


def test_a_library_of_another_version_is_refused_by_a_process(library: Path, tmp_path: Path) -> None:
    artifact.place_folder(str(library), str(tmp_path / "a"))
    changed(lambda d: d.update(schema="optc.library/9"))(tmp_path / "a")
    status, said = process(["run", str(tmp_path / "a"), "--data", str(library.parent / "x.npz")], tmp_path)
    assert status == 2
    assert said.endswith("and this version reads optc.library/1; build the artifact again")


def test_sequences_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tvm", reason="needs the extra optc[tvm]")
    assert run(compile_words(sequence(tmp_path / "m.onnx"), "host")) == 2
    said = capsys.readouterr().err
    assert "SplitToSequence node 'parts': it works on sequences of tensors; replace it by other operators" in said
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_what_needs_sizes_is_refused_by_its_node(tmp_path: Path) -> None:
    status, said = process(compile_words(repeated(tmp_path / "m.onnx"), "host"), tmp_path)
    assert status == 2, said
    assert said.count("\n") == 0
    assert "Mul node 'scaled' cannot be compiled for host" in said
    assert "fix the sizes of the inputs with --shape" in said
