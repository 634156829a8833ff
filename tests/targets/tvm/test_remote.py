"""Running on a device over RPC: a server on the loopback, one that drops the connection, and none at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sent import graph, library, started

from optc.cli.app import run
from optc.errors import EmissionError, SpecError, TargetError
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.types import DType, TensorType
from optc.targets import table
from optc.targets.tuning import Device
from optc.targets.tvm.cpu import toolchain
from optc.targets.tvm.remote import relay, tracker
from optc.targets.tvm.remote.connection import Connection, address
from optc.targets.tvm.remote.run import Remote

__all__ = ["library"]

SERVER = """
import socket
from tvm.rpc.server import _listen_loop
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen(4)
print(listening.getsockname()[1], flush=True)
while True:
    try:
        _listen_loop(listening, listening.getsockname()[1], "", None, None, None)
    except RuntimeError:  # a session that was cut off
        pass
"""

TRACKED = """
import socket
from tvm.rpc.server import _listen_loop
from tvm.rpc.tracker import Tracker
if __name__ == "__main__":
    tracker = Tracker("127.0.0.1", port=19190, port_end=19990, silent=True)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(4)
    print(tracker.port, flush=True)
    _listen_loop(listening, listening.getsockname()[1], "board", ("127.0.0.1", tracker.port), None, None)
"""

WHEELS = "OPTC_DEVICE_WHEELS"
PARTS = ("tvm/lib/libtvm_runtime.so", "tvm_ffi/lib/libtvm_ffi.so", "tvm_ffi/include/")


@pytest.fixture(scope="module")
def server(library: Path) -> Iterator[int]:
    with started(sys.executable, "-c", SERVER) as port:
        yield port


def test_a_device_answers_as_the_model_does(library: Path, server: int, capsys: pytest.CaptureFixture[str]) -> None:
    remote = Remote(str(library), Connection(Device(f"127.0.0.1:{server}")), threads=1)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    outputs, seconds = remote.timed({"x": x}, 3)
    assert np.allclose(outputs[0], np.maximum(x @ np.arange(12, dtype=np.float32).reshape(4, 3), 0), atol=1e-5)
    assert 0 < seconds < 1
    with pytest.raises(TargetError, match="'x' is float64"):
        remote.run({"x": np.zeros((1, 4))})
    remote.close()
    words = ["run", str(library), "--data", str(library.parent / "x.npz"), "--rpc", f"127.0.0.1:{server}"]
    assert run([*words, "--against", str(library.parent / "m.onnx")]) == 0
    said = capsys.readouterr().out
    assert "agreement    100 %" in said
    assert "milliseconds" in said


def test_wrong_code_on_a_device_is_not_put_in_its_place(
    server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optc.compiler import compile
    from optc.targets.tvm.relax import module

    right = module.import_graph

    def wrong(graph: Graph, *rest: object) -> object:
        copy = graph.clone()
        for node in copy:
            node.op = "Abs" if node.op == "Relu" else node.op
        return right(copy, *rest)  # type: ignore[arg-type]

    device = Device(f"127.0.0.1:{server}")
    build = compile(graph(), "clean", target="host", output=tmp_path / "a.tar", device=device, threads=1)
    assert build.report.validation is not None
    assert build.report.validation.samples == 8
    monkeypatch.setattr(module, "import_graph", wrong)
    with pytest.raises(EmissionError, match="does not answer as the graph"):
        compile(graph(), "clean", target="host", output=tmp_path / "b.tar", device=device, threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The server in C++ on an emulated CPU, built as docs/targets/arm64.md says."""
    for tool, package in {
        "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
        "qemu-aarch64-static": "qemu-user-static",
    }.items():
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here: apt-get install {package}")
    wheels = sorted(Path(os.environ.get(WHEELS, "none")).glob("apache_tvm*aarch64.whl"))
    if len(wheels) != 2:
        pytest.skip(f"{WHEELS} names no folder with the wheels of TVM for aarch64: see docs/targets/arm64.md")
    folder = tmp_path_factory.mktemp("board")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.startswith(PARTS)])
    for name in ("tvm/lib/libtvm_runtime.so", "tvm_ffi/lib/libtvm_ffi.so"):
        shutil.copy(folder / name, folder)
    command = [
        "aarch64-linux-gnu-g++",
        "-std=c++17",
        "-O2",
        "-I",
        "tvm_ffi/include",
        f"{toolchain.SOURCES}/rpc_server.cc",
    ]
    linked = [
        "-L.",
        "-Wl,--no-as-needed",
        "-ltvm_runtime",
        "-ltvm_ffi",
        "-Wl,--allow-shlib-undefined",
        "-Wl,-rpath,$ORIGIN",
    ]
    subprocess.run([*command, *linked, "-o", "rpc_server"], cwd=folder, check=True)
    emulator = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"]
    with started(*emulator, str(folder / "rpc_server"), "--host", "127.0.0.1") as port:
        yield port


def test_a_device_without_python_answers_as_the_model_does(
    library: Path, board: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.parse("arm64")[0].emit(graph(), str(tmp_path / "a.tar"))
    words = ["run", str(tmp_path / "a.tar"), "--data", str(library.parent / "x.npz"), "--rpc", f"127.0.0.1:{board}"]
    for _ in range(2):  # each client has a session of its own
        assert run([*words, "--against", str(library.parent / "m.onnx")]) == 0
        assert "agreement    100 %" in capsys.readouterr().out
    with pytest.raises(TargetError, match="failed while loading the library"):
        Remote(str(library), Connection(Device(f"127.0.0.1:{board}")))
    with socket.create_connection(("127.0.0.1", board)) as stranger:
        stranger.sendall(b"GET ")
        assert stranger.recv(1) == b""


@pytest.mark.parametrize("shape", [(1 << 40, 3), (-1, 3), (2, 4)])
def test_a_device_does_not_say_how_much_memory_is_taken_here(shape: tuple[int, ...]) -> None:
    from optc.targets.tvm.artifact.manifest import Port
    from optc.targets.tvm.remote.run import _check_shape

    _check_shape((5, 3), Port("y", "<f4", ("N", 3)))
    with pytest.raises(TargetError, match="says that output 'y' is of shape"):
        _check_shape(shape, Port("y", "<f4", ("N", 3)))


def test_a_tracker_finds_a_device(library: Path) -> None:
    for needed in ("tornado", "cloudpickle", "psutil"):
        pytest.importorskip(needed, reason=f"TVM's tracker needs {needed}")
    with started(sys.executable, "-c", TRACKED) as port:
        remote = Remote(str(library), Connection(Device(f"127.0.0.1:{port}", "board")), threads=1)
        assert remote.run({"x": np.ones((1, 4), np.float32)})[0].tolist() == [[18, 22, 26]]
        remote.close()
        with pytest.raises(TargetError, match=r"the tracker at 127\.0\.0\.1:\d+ had no device 'phone' free in 0 s"):
            Connection(Device(f"127.0.0.1:{port}", "phone"), waiting=0.2)


def test_what_is_no_tracker_is_told() -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)

        def answer() -> None:
            one, _ = listening.accept()
            one.sendall(b"HTTP/1.0 400\r\n")
            one.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(TargetError, match="is no RPC tracker"):
            Connection(Device(f"127.0.0.1:{listening.getsockname()[1]}", "board"))


def _tracking(answer: bytes, *, slowly: bool = False) -> int:
    """The port of a tracker that gives one answer, where it is to be slow a byte at a time."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        one, _ = listening.accept()
        with listening, one, contextlib.suppress(OSError):
            one.sendall(one.recv(4))
            one.recv(100)
            text = struct.pack("<i", len(answer)) + answer
            for at in range(0, len(text), 1 if slowly else len(text)):
                one.sendall(text[at : at + (1 if slowly else len(text))])
                time.sleep(0.1)

    threading.Thread(target=serve, daemon=True).start()
    return int(listening.getsockname()[1])


@pytest.mark.parametrize(
    "answer",
    [
        b'[0, ["127.0.0.1", 1e999, "x"]]',
        b'[0, ["127.0.0.1", 99999, "x"]]',
        b'[0, ["127.0.0.1", -1, "x"]]',
        b'[0, ["127.0.0.1", true, "x"]]',
        b'[0, ["a\\u0000b", 9090, "x"]]',
        b'[0, ["\\u001b[2J", 9090, "x"]]',
        b'[0, [{}, 9090, "x"]]',
        b'[0, ["127.0.0.1", 9090]]',
        b"[0, " + b"[" * 30_000,
        b"[0, 1" + b"0" * 20_000 + b"]",
        b'"\xff"',
    ],
)
def test_an_answer_of_a_tracker_that_names_no_device(answer: bytes) -> None:
    with pytest.raises(TargetError, match="is no RPC tracker"):
        tracker.request("127.0.0.1", _tracking(answer), "board", connecting=5, waiting=5)


def test_a_tracker_that_answers_a_byte_at_a_time_is_waited_for_no_longer() -> None:
    start = time.monotonic()
    with pytest.raises(TargetError, match="had no device 'board' free"):
        tracker.request("127.0.0.1", _tracking(b" " * 1000, slowly=True), "board", connecting=5, waiting=0.5)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "\u00e4" * 80])
def test_a_host_that_cannot_be_looked_up(host: str) -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    for key in ("", "board"):
        with pytest.raises(TargetError):
            Connection(Device(f"{host}:9090", key))


def test_a_build_is_tuned_checked_and_timed_on_a_device(
    library: Path, server: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(library.parent / "wide.onnx"), "--target", "host", "--rpc", f"127.0.0.1:{server}"]
    save(wide(), library.parent / "wide.onnx")
    options = ["--tune", "1s", "--tune-records", str(tmp_path / "r.jsonl"), "--budget", "latency=9x", "--no-cache"]
    # Status 3 would tell of a budget that is missed.
    assert run([*words, *options, "--passes", "clean", "-o", str(tmp_path / "a.tar"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["agreement"]["share"] == 1
    assert document["latency"]["ratio"] > 0
    assert f"run and timed on the device 127.0.0.1:{server}, the original built for it too" in document["notes"]
    assert (tmp_path / "r.jsonl").read_text().startswith('{"default"')
    assert run(["profile", *words, "-o", str(tmp_path / "t.json"), "--json"]) == 0
    assert json.loads((tmp_path / "t.json").read_text())["device"] == f"127.0.0.1:{server}"


def wide() -> Graph:
    """A product that has more than one tile to choose from."""
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (8, 4)))
    w = graph.constant(np.arange(128, dtype=np.float32).reshape(4, 32))
    graph.add_output(graph.add("MatMul", [x, w]).output, "y")
    return graph


MIDDLE = 4000
"""Bytes after which the smallest library is still on its way."""


@pytest.mark.parametrize(("after", "doing"), [(0, "connecting"), (MIDDLE, "sending the library")])
def test_a_device_that_falls_silent_is_let_go(after: int, doing: str, library: Path) -> None:
    """The wire stays open, and nothing comes through it after so many bytes to the device."""
    began = time.monotonic()
    with started(sys.executable, "-c", SERVER) as server, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(4)
        threading.Thread(target=_cut, args=(listening, server, after, False), daemon=True).start()
        device = Device(f"127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(TargetError, match=rf"failed while {doing}: it did not answer within 0\.5 s") as caught:
            Remote(str(library), Connection(device, silence=0.5))
    assert len(str(caught.value).splitlines()) == 1
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("after", [4, MIDDLE])
def test_a_connection_that_drops_is_one_line(after: int, library: Path, server: int) -> None:
    """The wire is cut after so many bytes to the device: at the greeting, and in the middle of the library.

    A server may not outlive the second: it comes last.
    """
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(4)
    cut = threading.Thread(target=_cut, args=(listening, server, after), daemon=True)
    cut.start()
    with pytest.raises(
        TargetError, match=r"the device at 127\.0\.0\.1:\d+ failed while (connecting|sending)"
    ) as caught:
        Remote(str(library), Connection(Device(f"127.0.0.1:{listening.getsockname()[1]}")))
    assert len(str(caught.value).splitlines()) == 1
    listening.close()


def _cut(listening: socket.socket, port: int, after: int, close: bool = True) -> None:
    ours, _ = listening.accept()
    with contextlib.suppress(OSError), ours, socket.create_connection(("127.0.0.1", port)) as theirs:

        def back() -> None:
            with contextlib.suppress(OSError):
                while data := theirs.recv(1 << 16):
                    ours.sendall(data)

        threading.Thread(target=back, daemon=True).start()
        passed = 0
        while passed < after and (data := ours.recv(min(1 << 16, after - passed))):
            theirs.sendall(data)
            passed += len(data)
        if not close:
            ours.recv(1 << 20)
            while ours.recv(1 << 20):
                pass
        ours.shutdown(socket.SHUT_RDWR)
        theirs.shutdown(socket.SHUT_RDWR)


def test_nobody_there_is_told(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        free = one.getsockname()[1]
    words = ["run", str(library), "--data", str(library.parent / "x.npz"), "--rpc", f"127.0.0.1:{free}"]
    assert run(words) == 2
    assert capsys.readouterr().err == f"optc: nothing answers at 127.0.0.1:{free}: Connection refused\n"


def test_addresses() -> None:
    assert address("[::1]:9090") == ("::1", 9090)
    with pytest.raises(SpecError, match="--rpc takes HOST:PORT"):
        address("device")


def test_what_a_device_says_is_passed_on_in_whole_messages() -> None:
    greeting = struct.pack("<ii", 0xFF271, 7) + b"server:"
    messages = relay.Messages()
    assert messages.whole(greeting[:5]) == b""
    assert messages.whole(greeting[5:] + struct.pack("<Q", 3) + b"a") == greeting
    assert messages.whole(b"bc" + struct.pack("<Q", 0)) == struct.pack("<Q", 3) + b"abc" + struct.pack("<Q", 0)
    assert messages.whole(struct.pack("<Q", 400_000_000) + b"but little") == b""  # no room is made for it
    assert relay.Messages().whole(b"HTTP/1.1 400") == b"HTTP/1.1 400"


@pytest.mark.parametrize(
    "said",
    [struct.pack("<ii", 0xFF271, 1 << 30), struct.pack("<ii", 0xFF271, -1), struct.pack("<iiQ", 0xFF271, 0, 1 << 40)],
)
def test_a_device_that_claims_to_say_gigabytes_is_cut_off(said: bytes) -> None:
    with pytest.raises(OSError, match="too long"):
        relay.Messages().whole(said)
