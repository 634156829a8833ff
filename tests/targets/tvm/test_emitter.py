"""A copy of the process that emits: the same artifact and the same errors as without it, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.types import DType, TensorType

pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies are made under Linux alone")

_BEGIN = """
import os, signal, sys, time
from optc.targets.tvm.artifact import build, emitter
from optc.targets.tvm.cpu import beside
beside.cpu.cores = lambda: 2
copies = []
class Counted(emitter._Copy):
    def __init__(self, *rest):
        super().__init__(*rest)
        copies.append(self._process)
emitter._Copy = Counted
"""
_END = """
from optc.cli.app import run
status = run(sys.argv[1:])
print(len(copies), "tvm" in sys.modules)
for one in copies:
    try:
        os.waitpid(one, 0)
    except ChildProcessError:
        continue
    raise AssertionError("a copy is left")
sys.exit(status)
"""


def model(folder: Path, op: str = "Sigmoid") -> str:
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 64)))
    weights = graph.constant(np.random.default_rng(0).standard_normal((64, 64), np.float32))
    y = graph.add(op, [graph.add("MatMul", [x, weights], name="layer").output], name="gate")
    graph.add_output(y.output, "y", TensorType(DType.FLOAT, (1, 64)))
    save(graph, folder / "m.onnx")
    return str(folder / "m.onnx")


def start(folder: Path, change: str, *more: str, target: str = "host") -> subprocess.Popen[str]:
    (folder / "temporary").mkdir()
    code = _BEGIN + change + _END
    words = ["--passes", "clean", "--target", target, "--no-cache", "-o", str(folder / "out.tar"), "-q", *more]
    return subprocess.Popen(
        [sys.executable, "-c", code, model(folder), *words],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "temporary")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left(folder: Path) -> list[str]:
    """What lies about, but for the reproducer of a fault."""
    names = (*os.listdir(folder), *os.listdir(folder / "temporary"))
    return sorted(one for one in names if one not in ("m.onnx", "temporary") and not one.startswith("optc-crash"))


@pytest.mark.parametrize("target", ["host:cpu=x86-64-v3", "host", "arm64"])
def test_a_copy_writes_the_same_bytes(target: str, tmp_path: Path) -> None:
    artifacts = []
    for name, change in (("copy", ""), ("alone", "beside.may_copy = lambda: False\n")):
        (tmp_path / name).mkdir()
        process = start(tmp_path / name, change, "--no-check", target=target)
        said, errors = process.communicate()
        assert process.returncode == 0, errors
        # A name of a CPU is looked up by TVM, so that it is loaded before there could be a copy.
        copied = name == "copy" and "cpu=" not in target
        assert said.split() == ["1" if copied else "0", str(not copied)]
        assert left(tmp_path / name) == ["out.tar"]
        artifacts.append((tmp_path / name / "out.tar").read_bytes())
    assert artifacts[0] == artifacts[1]


def test_where_there_can_be_no_copy_it_emits_here(tmp_path: Path) -> None:
    before = "def fork():\n    raise BlockingIOError('no more processes')\nos.fork = fork\n"
    process = start(tmp_path, before, "--no-check")
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert said.split() == ["0", "True"]
    assert left(tmp_path) == ["out.tar"]


def test_an_error_of_the_user_comes_back_as_it_is(tmp_path: Path) -> None:
    change = """
from optc.errors import TargetError
def lowered(*_):
    raise TargetError("MatMul node 'layer' cannot be compiled for host")
build.lowered = lowered
"""
    process = start(tmp_path, change)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (2, "optc: MatMul node 'layer' cannot be compiled for host\n")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raise KeyError('inside')", "host failed on graph 'net': KeyError: 'inside'; nothing was written; "),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "host failed on graph 'net': the compiler was ended by SIGSEGV"),
        ("os._exit(3)", "host failed on graph 'net': the compiler ended with status 3"),
    ],
    ids=["raises", "crashes", "exits"],
)
def test_a_fault_of_the_copy_is_told_with_what_reproduces_it(fault: str, said: str, tmp_path: Path) -> None:
    process = start(tmp_path, f"def lowered(*_):\n    {fault}\nbuild.lowered = lowered\n")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert said in errors
    assert "to reproduce: optc " in errors
    assert len(errors.splitlines()) == 1
    assert left(tmp_path) == []


_SLOW = """
def lowered(*_):
    print(os.getpid(), flush=True)
    time.sleep(60)
build.lowered = lowered
"""


def test_an_interrupt_ends_the_copy(tmp_path: Path) -> None:
    process = start(tmp_path, _SLOW)
    assert process.stdout is not None
    copy = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "interrupted" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(copy, 0)
    assert left(tmp_path) == []


def test_what_does_not_load_is_told(tmp_path: Path) -> None:
    change = (
        "import optc.targets.tvm.loading as loading\n"
        "def load():\n    raise ImportError('libtvm.so: cannot open')\nemitter.load = loading.load = load\n"
    )
    process = start(tmp_path, change)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "ImportError: libtvm.so: cannot open; nothing was written" in errors
    assert len(errors.splitlines()) == 1


def test_a_copy_ignores_what_its_maker_does(tmp_path: Path) -> None:
    """Below nohup, the end of a terminal ends neither."""
    process = start(tmp_path, "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + _SLOW.replace("sleep(60)", "sleep(2)"))
    assert process.stdout is not None
    copy = int(process.stdout.readline())
    os.kill(copy, signal.SIGHUP)
    _, errors = process.communicate()
    assert "TypeError" in errors, "it went on to the end of its sleep"


def test_a_copy_ends_with_its_maker(tmp_path: Path) -> None:
    process = start(tmp_path, _SLOW)
    assert process.stdout is not None
    copy = int(process.stdout.readline())
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{copy}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{copy}").exists()


def test_one_that_is_not_needed_ends_at_once(tmp_path: Path) -> None:
    """The model cannot be read, or the build is in the cache: the copy was made in vain."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "m.onnx").write_bytes(b"no model")
    words = ["--passes", "clean", "--target", "host", "-o", "out.tar", "-q"]
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + _END, "m.onnx", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout.split() == ["1", "False"]
    assert time.monotonic() - begin < 30
